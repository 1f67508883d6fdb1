// Numbers and codes in words.

const QUALITY = {
  "too-dark": "too dark",
  "too-bright": "too bright",
  "low-contrast": "low contrast",
  "blurred": "blurred",
  "cut-off": "field of view cut off",
  "no-field-of-view": "no field of view found",
  "not-in-color": "gray or red-free",
  "channels-swapped": "color channels swapped",
  "low-resolution": "resolution too low",
  "not-a-fundus-photograph": "does not look like a fundus photograph",
};

const DOUBTS = { "at-edge": "along the edge", "few-pixels": "very few pixels" };

/** With four significant digits, as scores are printed everywhere. */
export const four = (value) => (value === 0 ? "0.000" : value.toPrecision(4));

/** A p-value. */
export const pValue = (value) => (value === null ? "–" : value.toFixed(4));

/** A share as per cent, with two significant digits. */
export function percent(share) {
  return `${Number((100 * share).toPrecision(2))}\u00a0%`;
}

/** Whether a finding may be none, in words. */
export const doubtWords = (doubt) => DOUBTS[doubt] ?? doubt.replaceAll("-", " ");

/** A label of a mark, in words. */
export const labelWords = (label) => label.replaceAll("-", " ");

/** What a finding resembles: the line that resad_client writes. */
export function likeWords({ kind, votes, of, distance, healthy_distance: healthy }) {
  const three = (value) => Number(value.toPrecision(3));
  return `like ${labelWords(kind)}: ${votes} of the ${of} nearest examples, distance ${three(distance)} against ${three(healthy)} to healthy`;
}

/** That the index has this photograph, or its mirror image or a copy. */
export function copyWords({ photo, bits, mirrored }) {
  const kind = mirrored ? "a mirror image of" : bits === null ? "the same file as" : "a copy of";
  return `This is ${kind} ${photo}, a photograph of the index`;
}

/** A count with its noun: "1 finding", "2 findings". */
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** What is said of a photograph's quality. */
export const qualityWords = (reason) => QUALITY[reason] ?? reason.replaceAll("-", " ");

/** normal, abnormal, or no verdict where there are too few normals for one. */
export function verdict(result) {
  return result.abnormal === null ? "no verdict" : result.abnormal ? "abnormal" : "normal";
}

/** Why score and verdict may not be trusted, in words; empty where they may. */
export function doubt({ quality }) {
  return quality.acceptable ? "" : quality.reasons.map(qualityWords).join(", ");
}

/** With a capital at its beginning. */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** What went wrong, without the number of its status; a request id helps an operator. */
export function fault(error) {
  const detail = error.detail || error.message || String(error);
  const text = error.title && error.detail ? `${error.title}: ${error.detail}` : detail;
  return capital(text);
}

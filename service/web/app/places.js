// Places of findings in words, as the eye is known: nasal and temporal, or left and right of the photograph.

const PHOTO_SIDE = /^(superior|inferior), (left|right) of the photo$/;
/** Of the field's radius: a photograph centered on the macula shows its disc at about 0.6, one of the disc at 0. */
const CENTRAL = 0.3;

/** `result` with the places that its findings have in this eye; "" is an unknown one.  It was asked for without an eye. */
export function placed(result, eye) {
  if (!eye) return result;
  return { ...result, findings: result.findings.map((finding) => ({ ...finding, place: placeIn(finding.place, eye) })) };
}

function placeIn(place, eye) {
  const parts = PHOTO_SIDE.exec(place ?? "");
  return parts ? `${parts[1]} ${parts[2] === eye ? "nasal" : "temporal"}` : place;
}

/**
 * Which eye the optic disc speaks for, "" where it lies near the middle or was not found: the disc is nasal of the
 * middle, which is on the right of the photograph in a right eye.
 */
export function eyeByDisc({ optic_disc: disc, field_of_view: field, width }) {
  if (!disc) return "";
  const [middle, radius] = field ? [field.cx, field.radius] : [width / 2, width / 2];
  const across = (disc.cx - middle) / radius;
  return Math.abs(across) < CENTRAL ? "" : across > 0 ? "right" : "left";
}

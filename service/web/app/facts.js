// Verdict, quality and index of an answer, for reading.

import { drawing, element } from "./dom.js";
import { closeness, rankWords, scoresOf } from "./judgement.js";
import { capital, counted, doubt, four, pValue, percent, verdict } from "./text.js";

const [WIDTH, HEIGHT] = [300, 40];

/**
 * Shows in `badge` what the answer says, whether that is close to the threshold, and whether it may be trusted: by
 * words, a mark and an edge, not by color alone.
 */
export function showVerdict(badge, result) {
  const [word, why, close] = [verdict(result), doubt(result), closeness(result)];
  badge.dataset.verdict = word;
  badge.toggleAttribute("data-doubtful", Boolean(why));
  badge.toggleAttribute("data-close", Boolean(close));
  badge.title = [why && `Doubtful: ${why}`, close].filter(Boolean).join("; ");
  const parts = [why ? `${word}?` : word];
  if (close) parts.push(", close", element("span", { class: "unseen" }, ` (${close})`));
  if (why) parts.push(element("span", { class: "unseen" }, ` doubtful: ${why}`));
  badge.replaceChildren(...parts);
}

/** The verdict, the score among those of the healthy photographs, and what it rests on. */
export function verdictCard(result, service) {
  const badge = element("span", { class: "badge" });
  showVerdict(badge, result);
  const [why, close] = [doubt(result), closeness(result)];
  const card = element(
    "section",
    { class: "card verdict", "data-verdict": verdict(result), "aria-label": "Verdict" },
    element("h2", {}, badge),
    why && element("p", { class: "remark" }, `Not like the photographs of the index (${why}): score and verdict may not be trusted.`),
    close && element("p", { class: "remark close" }, `${capital(close)}: as good as undecided.`),
    result.index.warnings?.map(({ text }) => element("p", { class: "remark close" }, `The index: ${text}.`)),
    facts([
      ["Image score", element("strong", {}, four(result.image_score))],
      ["p-value", element("span", {}, element("strong", {}, pValue(result.p_value)), element("span", { class: "quiet" }, ` ${rankWords(result)}`))],
      ["Threshold", result.threshold === null ? "none" : `${four(result.threshold)} (rate ${percent(result.fpr)})`],
      ["Its 95 % interval", interval(result.normals.rate)],
      ["Compared with", compared(result.normals)],
    ]),
    (result.reason || result.normals.reason) &&
      element("p", { class: "remark" }, [result.reason, result.normals.reason].filter(Boolean).join("; ")),
  );
  service.detail(result.index.name).then(
    ({ manifest }) => {
      if (manifest?.version === result.index.version) {
        card.querySelector(".facts").before(strip(result, manifest.calibration));
      }
    },
    () => undefined, // the strip is left out where the index is not told
  );
  return card;
}

/** The photograph's quality. */
export function qualityFacts({ quality }) {
  const { measures } = quality;
  const words = doubt({ quality }) || "Like the photographs of the index";
  return group(
    "Photo quality",
    element("p", { class: quality.acceptable ? "good" : "doubt" }, words),
    facts([
      ["Brightness", measures.brightness.toFixed(0)],
      ["Contrast", measures.contrast.toFixed(2)],
      ["Sharpness", measures.sharpness.toFixed(4)],
      ["Field of view shown", percent(measures.completeness)],
      ["Overexposed", percent(measures.saturated)],
    ]),
  );
}

/** The index that answered. */
export function indexFacts(result, service) {
  const { index } = result;
  const list = facts([
    ["Name", index.name],
    ["Version", index.version],
    ["Fingerprint", element("span", { title: index.fingerprint }, `${index.fingerprint.slice(0, 19)}…`)],
    ["Backbone", index.backbone],
  ]);
  service.detail(index.name).then(
    ({ manifest }) => {
      if (manifest?.version !== index.version) return;
      const { counts, calibration } = manifest;
      const source = calibration.source === "separate" ? "separate normals" : "its own normals, each left out";
      const more = [
        ["Reference photos", counts.photos.toLocaleString("en")],
        ["Memories", counts.memories.toLocaleString("en")],
        ["Patch grid", counts.grid.join(" × ")],
        ["Calibrated on", source],
      ];
      list.append(...facts(more).children);
    },
    () => undefined, // the answer's own facts stand alone
  );
  return group("Index", list);
}

/** A heading over its content, which can be folded away. */
export function group(title, ...content) {
  return element("details", { class: "group", open: true }, element("summary", {}, element("h2", {}, title)), ...content);
}

function facts(pairs) {
  const kept = pairs.filter(([, value]) => value != null);
  return element("dl", { class: "facts" }, ...kept.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** Of the rate at which such healthy photographs come out above the threshold. */
const interval = (rate) => rate && `${percent(rate.low)} to ${percent(rate.high)} of normals`;

function compared({ camera, photos }) {
  return `${counted(photos, "healthy photograph")}${camera ? ` of camera ${camera}` : ""}`;
}

/** The scores of the healthy photographs as ticks, the threshold, and this photograph's score. */
function strip({ image_score: score, threshold, normals }, calibration) {
  const scores = scoresOf(calibration, normals.camera);
  const all = [...scores, score, ...(threshold === null ? [] : [threshold])];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const at = (value) => (8 + ((value - low) / (high - low || 1)) * (WIDTH - 16)).toFixed(1);
  const line = (value, name, top, bottom) =>
    drawing("line", { x1: at(value), x2: at(value), y1: top, y2: bottom, class: name });
  const text = `Scores of ${scores.length} healthy photographs from ${four(scores[0])} to ${four(scores.at(-1))}`;
  return element(
    "figure",
    { class: "strip" },
    drawing(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${text}; this photograph ${four(score)}` },
      drawing("line", { x1: 0, x2: WIDTH, y1: 26, y2: 26, class: "axis" }),
      ...scores.map((value) => line(value, "normal", 16, 26)),
      threshold !== null && line(threshold, "limit", 6, 32),
      drawing("path", { d: `M${at(score)} 25l-6 -10h12z`, class: "score" }),
    ),
    element("figcaption", {}, `${text}. ${threshold === null ? "" : "Dashed: threshold. "}Triangle: this photograph.`),
  );
}

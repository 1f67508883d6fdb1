// The layers of a pane, and what lies on them.

import { colorOf } from "./colors.js";
import { drawing, element } from "./dom.js";
import { labelWords } from "./text.js";

const NUMBERED = 12; // findings with numbers while the whole photograph is seen

/** A pane with its layers, from the photograph up. */
export function pane(name) {
  const photo = element("img", { alt: "", class: "photo", draggable: "false", hidden: true });
  const canvas = element("canvas", { class: "map", hidden: true });
  const edges = drawing("svg", { class: "edges", preserveAspectRatio: "none" });
  const outlines = drawing("svg", { class: "outlines" });
  const marks = element("div", { class: "marks" });
  const enhanced = element("canvas", { class: "enhanced", hidden: true });
  const ruler = drawing("svg", { class: "ruler" });
  const regions = drawing("svg", { class: "regions" });
  const labels = element("div", { class: "marks" });
  const draft = drawing("svg", { class: "draft" });
  const drawn = [regions, outlines, marks, labels, ruler, draft];
  const layers = name === "plain" ? [photo, enhanced, ...drawn] : [photo, enhanced, canvas, edges, ...drawn];
  const sheet = element("div", { class: "sheet" }, ...layers);
  return { box: element("div", { class: `pane ${name}`, "aria-hidden": "true" }, sheet), sheet, photo, enhanced, canvas, edges, outlines, marks, ruler, regions, labels, draft };
}

/** A finding's outline, in the color of its peak where the scale is known; it is only chosen by a pointer if it has a rank. */
export function contour(finding, scale) {
  const d = `M${finding.contour.map(([x, y]) => `${x + 0.5} ${y + 0.5}`).join("L")}Z`;
  const path = (name, stroke = null) => drawing("path", { d, class: name, stroke, "data-rank": finding.rank });
  const paths = [path("under"), path("over", scale ? colorOf(scale, finding.peak) : "#ffffff"), path("touch")];
  return drawing("g", { "data-rank": finding.rank, class: finding.doubts?.length > 0 && "doubtful" }, ...paths);
}

/** A finding's number. */
export function mark({ rank, box }, width, height) {
  const made = element("span", { class: rank > NUMBERED ? "mark minor" : "mark", "data-rank": rank }, String(rank));
  const [left, top] = [(100 * box[0]) / width, (100 * box[1]) / height];
  made.style.left = `${left}%`;
  made.style.top = `${top}%`;
  return made;
}

/** The outline of what a reader has marked. */
export function region({ id, contour: points }) {
  const d = `M${points.map(([x, y]) => `${x + 0.5} ${y + 0.5}`).join("L")}Z`;
  return drawing("g", { "data-mark": id }, ...["under", "over"].map((name) => drawing("path", { d, class: name })));
}

/** Its label, below it. */
export function regionLabel({ id, label, contour: points }, width, height) {
  const made = element("span", { class: "region-label", "data-mark": id }, labelWords(label));
  made.style.left = `${(100 * Math.min(...points.map(([x]) => x))) / width}%`;
  made.style.top = `${(100 * (1 + Math.max(...points.map(([, y]) => y)))) / height}%`;
  return made;
}

/** Resolves with the picture's size once it is shown, or with null where the browser cannot show it. */
export function loaded(photo, address) {
  photo.hidden = true;
  return new Promise((resolve) => {
    photo.onload = () => {
      photo.hidden = false;
      resolve({ width: photo.naturalWidth, height: photo.naturalHeight });
    };
    photo.onerror = () => resolve(null);
    photo.src = address;
  });
}

// A finding beside the healthy patches nearest to it.

import { NotAllowed, NotFound } from "../client/index.js";
import { element } from "./dom.js";
import { fault, four } from "./text.js";

const CROP = 144;
const CELLS = 9;

/** The finding's own crop, then the nearest healthy patches' crops, or what is known of them without. */
export function evidenceStrip(finding, result, service, stage) {
  const own = element("figure", { class: "own" }, ownCrop(finding, result, stage.image), element("figcaption", {}, "This finding"));
  const strip = element("div", { class: "strip-of-crops", role: "list", "aria-label": "Nearest healthy patches" });
  const remark = element("p", { class: "quiet", role: "status" });
  const near = finding.evidence.map((one) => patch(one));
  strip.append(...near);
  loadCrops(finding.evidence, near, result.index.name, service, remark);
  return element("div", { class: "strip-box" }, own, element("div", { class: "nearest" }, strip, remark));
}

async function loadCrops(evidence, figures, index, service, remark) {
  for (const [place, one] of evidence.entries()) {
    try {
      const crop = await service.client.evidenceCrop(index, one);
      const address = URL.createObjectURL(crop);
      const picture = element("img", { src: address, alt: `Healthy patch of ${one.photo}`, onload: () => URL.revokeObjectURL(address) });
      figures[place].firstElementChild.replaceWith(picture);
    } catch (error) {
      remark.textContent = whyNone(error);
      return;
    }
  }
}

function whyNone(error) {
  if (error instanceof NotFound) {
    const detail = error.type.endsWith(":not-found") ? "" : ` ${fault(error)}.`;
    return `No crops: this index keeps none of its healthy patches' pixels.${detail}`;
  }
  if (error instanceof NotAllowed) return `No crops: ${fault(error)}`;
  return `Crops could not be fetched. ${fault(error)}`;
}

function patch({ photo, distance, y, x }) {
  return element(
    "figure",
    { role: "listitem" },
    element("span", { class: "no-crop", "aria-hidden": "true" }),
    element("figcaption", {}, element("strong", {}, four(distance)), element("span", {}, photo), element("span", {}, `cell ${y}, ${x}`)),
  );
}

/** The photograph around the finding's peak, some cells of the patch grid wide. */
function ownCrop({ x, y }, { photo }, image) {
  const canvas = element("canvas", { width: CROP, height: CROP, role: "img", "aria-label": "The finding in this photograph" });
  if (!image) return canvas;
  // A finding's surroundings as large as its evidence's: a share of the field of view, which the grid spans.
  const side = cropSide(photo);
  const paper = canvas.getContext("2d");
  paper.imageSmoothingQuality = "high";
  paper.drawImage(image, x + 0.5 - side / 2, y + 0.5 - side / 2, side, side, 0, 0, CROP, CROP);
  return canvas;
}

function cropSide({ width, height, field_of_view: disc }) {
  const across = disc ? 2 * disc.radius : Math.max(width, height);
  return (CELLS * across) / 64;
}

// A finding beside the healthy patches nearest to it.

import { NotAllowed, NotFound } from "../client/index.js";
import { ownCrop } from "./crops.js";
import { element } from "./dom.js";
import { fault, four } from "./text.js";

const withoutCrops = new Set();

/**
 * The finding's own crop, then the nearest healthy patches' crops; where there are none to be had, what is known of
 * the patches and why they cannot be seen.
 */
export function comparison(finding, result, service, stage) {
  const own = element("figure", { class: "own" }, element("figcaption", {}, element("strong", {}, "This finding")));
  const box = element("div", { class: "comparison" }, own);
  service.detail(result.index.name).then(
    ({ manifest }) => own.prepend(ownCrop(finding, result.photo, stage.image, manifest)),
    () => own.prepend(ownCrop(finding, result.photo, stage.image, null)),
  );
  if (finding.evidence.length) fill(box, finding.evidence, result.index, service);
  return box;
}

async function fill(box, evidence, index, service) {
  const version = `${index.name}/${index.version}`;
  if (withoutCrops.has(version)) return box.append(told(evidence, NO_CROPS));
  const pending = element("p", { class: "quiet told", role: "status" }, "Fetching the nearest healthy patches");
  box.append(pending);
  try {
    // The first alone: where it is missing, the others need not be asked for.
    const crop = (one) => service.client.evidenceCrop(index, one);
    const first = await crop(evidence[0]);
    const crops = [first, ...(await Promise.all(evidence.slice(1).map(crop)))];
    pending.replaceWith(...crops.map((crop, place) => pictured(crop, evidence[place])));
    if (evidence.some(({ mirrored }) => mirrored)) box.append(element("p", { class: "quiet note" }, MIRRORED));
  } catch (error) {
    if (error instanceof NotFound && !/another version/.test(error.detail)) withoutCrops.add(version);
    pending.replaceWith(told(evidence, whyNone(error)));
  }
}

const MIRRORED = "Mirrored: nearest to this photograph's mirror image, and shown turned left to right.";

const NO_CROPS = "Pictures of these patches are not kept by this index.";

function whyNone(error) {
  if (error instanceof NotFound) return error.type.endsWith(":not-found") ? NO_CROPS : `${NO_CROPS} (${error.detail})`;
  if (error instanceof NotAllowed) return `Pictures of these patches are not shown: ${error.detail}`;
  return `Pictures of these patches could not be fetched. ${fault(error)}`;
}

/** A patch that is near to the photograph's mirror image is turned, so that what was compared looks alike. */
function pictured(crop, { photo, distance, y, x, mirrored }) {
  const address = URL.createObjectURL(crop);
  const alt = `Healthy patch of reference photo ${photo}${mirrored ? ", mirrored" : ""}`;
  return element(
    "figure",
    {},
    element("img", { src: address, alt, class: mirrored && "mirrored", onload: () => URL.revokeObjectURL(address) }),
    element(
      "figcaption",
      {},
      element("strong", {}, four(distance)),
      element("span", {}, photo),
      element("span", {}, `cell ${y}, ${x}`),
      mirrored && element("span", {}, "mirrored"),
    ),
  );
}

/** The patches in words. */
function told(evidence, why) {
  const line = ({ photo, distance, y, x, mirrored }) =>
    element(
      "tr",
      {},
      element("td", {}, element("strong", {}, four(distance))),
      element("td", {}, photo),
      element("td", {}, `${y}, ${x}${mirrored ? ", mirrored" : ""}`),
    );
  const heads = ["Distance", "Healthy photo", "Cell"].map((text) => element("th", { scope: "col" }, text));
  return element(
    "div",
    { class: "told" },
    element("table", { class: "patches" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...evidence.map(line))),
    element("p", { class: "quiet" }, why),
  );
}

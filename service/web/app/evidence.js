// A finding beside the healthy patches nearest to it, and the examples of lesions that it resembles.

import { NotAllowed, NotFound } from "../client/index.js";
import { ownCrop } from "./crops.js";
import { element } from "./dom.js";
import { capital, fault, four, labelWords, likeWords } from "./text.js";

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
  const { evidence, resembles } = finding;
  if (evidence.length) fill(box, evidence, result.index, service, "the nearest healthy patches");
  if (resembles) {
    box.append(
      element("p", { class: "note" }, element("strong", {}, `${capital(likeWords(resembles))}.`), " Examples marked by readers; resemblance, no diagnosis."),
    );
    const examples = element("div", { class: "comparison examples" });
    box.append(examples);
    if (resembles.examples.length) fill(examples, resembles.examples, result.index, service, "examples");
  }
  return box;
}

async function fill(box, evidence, index, service, what) {
  const version = `${index.name}/${index.version}`;
  if (withoutCrops.has(version)) return box.append(told(evidence, NO_CROPS));
  const pending = element("p", { class: "quiet told", role: "status" }, `Fetching ${what}`);
  box.append(pending);
  try {
    // The first alone: where it is missing, the others need not be asked for.
    const crop = (one) => service.client.evidenceCrop(index, one);
    const first = await crop(evidence[0]);
    const crops = [first, ...(await Promise.all(evidence.slice(1).map(crop)))];
    pending.replaceWith(...crops.map((crop, place) => pictured(crop, evidence[place])));
    if (evidence.some(({ mirrored }) => mirrored)) box.append(element("p", { class: "quiet note" }, MIRRORED));
  } catch (error) {
    // Of marked photographs one may have no picture where the others have.
    if (error instanceof NotFound && evidence[0].label == null && !/another version/.test(error.detail)) withoutCrops.add(version);
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
function pictured(crop, { photo, distance, y, x, mirrored, label }) {
  const address = URL.createObjectURL(crop);
  const what = label ? `Patch marked ${labelWords(label)}, of photo` : "Healthy patch of reference photo";
  const alt = `${what} ${photo}${mirrored ? ", mirrored" : ""}`;
  return element(
    "figure",
    {},
    element("img", { src: address, alt, class: mirrored && "mirrored", onload: () => URL.revokeObjectURL(address) }),
    element(
      "figcaption",
      {},
      element("strong", {}, four(distance)),
      label && element("span", {}, `marked ${labelWords(label)}`),
      element("span", {}, photo),
      element("span", {}, `cell ${y}, ${x}`),
      mirrored && element("span", {}, "mirrored"),
    ),
  );
}

/** The patches in words. */
function told(evidence, why) {
  const line = ({ photo, distance, y, x, mirrored, label }) =>
    element(
      "tr",
      {},
      element("td", {}, element("strong", {}, four(distance))),
      element("td", {}, `${photo}${label ? `, marked ${labelWords(label)}` : ""}`),
      element("td", {}, `${y}, ${x}${mirrored ? ", mirrored" : ""}`),
    );
  const heads = ["Distance", evidence.some(({ label }) => !label) ? "Healthy photo" : "Marked photo", "Cell"].map((text) => element("th", { scope: "col" }, text));
  return element(
    "div",
    { class: "told" },
    element("table", { class: "patches" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...evidence.map(line))),
    element("p", { class: "quiet" }, why),
  );
}

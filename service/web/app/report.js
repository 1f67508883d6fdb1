// The printable report: the open photograph, and what its names say belongs to it, side by side.

import { ownCrop } from "./crops.js";
import { byId, element } from "./dom.js";
import { indexFacts, qualityFacts } from "./facts.js";
import { nameParts, together } from "./groups.js";
import { closeness, rankWords } from "./judgement.js";
import { eyeByDisc } from "./places.js";
import { standAlone } from "./picture.js";
import { capital, copyWords, counted, doubt, doubtWords, four, labelWords, likeWords, pValue, percent, verdict } from "./text.js";

const CROPS = 8; // findings shown enlarged, the strongest ones
const LISTED = 25; // the strongest ones; a page more would be read by nobody

/** Opens the browser's own print dialog, which prints or writes PDF; `maps` gives a photograph's map. */
export async function printReport(photo, photos, maps, service) {
  const all = together(photo, photos).filter(({ result, state }) => result && state !== "failed");
  const parts = [];
  for (const member of all) parts.push(await section(member, maps, service, all.length === 1));
  const title = all.length > 1 ? `${nameParts(photo.name).rest || "one patient"}: ${counted(all.length, "photograph")}` : photo.name;
  byId("report").replaceChildren(
    element("h1", {}, `Anomaly report: ${title}`),
    element("p", { class: "notice" }, element("strong", {}, photo.result.intended_use), " ReSAD names no disease; its score is not a probability, and a photograph without findings is not a healthy one."),
    element("div", { class: "report-columns", "data-columns": String(Math.min(2, parts.length)) }, ...parts),
    element("p", { class: "notice" }, `${photo.result.intended_use} Written ${new Date().toLocaleString("en-GB")}.`),
  );
  document.body.toggleAttribute("data-report", true);
  addEventListener("afterprint", clear, { once: true });
  print();
}

function clear() {
  document.body.removeAttribute("data-report");
  byId("report").replaceChildren();
}

/** alone: an eye of one letter or two in its name may then mean something else. */
async function section(photo, maps, service, alone) {
  const { result, name } = photo;
  const [picture, map, manifest] = await Promise.all([
    createImageBitmap(photo.file).catch(() => null),
    maps.get(photo),
    service.detail(result.index.name).then((detail) => detail.manifest, () => null),
  ]);
  const { eye, visit } = nameParts(name);
  const stated = photo.eye || (alone && !/left|right/i.test(name) ? "" : eye);
  const about = [stated && `${stated} eye${photo.eye ? "" : " by its name"}`, visit].filter(Boolean).join(", ");
  const pictures = picture
    ? [["Photograph", null], ["Anomaly map, findings outlined", map]].map(([words, shown]) =>
        element("figure", {}, standAlone(photo, picture, shown, false), element("figcaption", {}, words)))
    : [element("p", {}, "This browser cannot show the photograph's format.")];
  const made = element(
    "section",
    { class: "report-photo" },
    element("h2", {}, name, about && element("span", { class: "quiet" }, ` (${about})`)),
    ...sentences(photo).map((text) => element("p", {}, text)),
    element("div", { class: "report-pictures" }, ...pictures),
    findingsTable(result),
    picture && crops(result, picture, manifest),
    qualityFacts(result),
    indexFacts(result, service),
  );
  picture?.close();
  // The index's own facts come with the next turn, from what is kept.
  await new Promise((resolve) => setTimeout(resolve));
  return made;
}

/** The answer in sentences. */
function sentences({ result, eye }) {
  const { p_value: p, normals, findings } = result;
  const [why, close, disc] = [doubt(result), closeness(result), eyeByDisc(result.photo)];
  const doubtful = findings.filter(({ doubts }) => doubts?.length).length;
  return [
    `${capital(verdict(result))} at a false-positive rate of ${percent(result.fpr)}: image score ${four(result.image_score)}, threshold ${result.threshold === null ? "none" : four(result.threshold)}.`,
    p === null ? result.reason && `${capital(result.reason)}.` : `p = ${pValue(p)}, ${rankWords(result)} (${counted(normals.photos, "healthy photograph")} compared).`,
    close && `${capital(close)}: as good as undecided.`,
    why && `Score and verdict may not be trusted: ${why}.`,
    ...(result.index.warnings ?? []).map(({ text }) => `The index: ${text}.`),
    result.same_as && `${copyWords(result.same_as)}: the score may be too low.`,
    eye && disc && eye !== disc && `Set as the ${eye} eye, but the optic disc lies as in a ${disc} one.`,
    `${capital(counted(findings.length, "finding"))}${doubtful ? `, ${doubtful} of them doubtful` : ""}.`,
    findings.some(({ resembles }) => resembles) && "Like: nearest to examples that readers have marked; a resemblance, no diagnosis.",
  ].filter(Boolean);
}

function findingsTable({ findings }) {
  if (!findings.length) return null;
  const heads = ["", "Place", "Peak", "p", "Area", "Nearest healthy patches (distance, reference photo)"];
  const row = ({ rank, place, x, y, peak, p_value: p, area_share: share, doubts, evidence, resembles }) =>
    element(
      "tr",
      {},
      ...[
        String(rank),
        [capital(place ?? `at ${x}, ${y} px`), doubts?.length && `doubtful: ${doubts.map(doubtWords).join(", ")}`, resembles && likeWords(resembles)].filter(Boolean).join("; "),
        four(peak), pValue(p), percent(share),
        evidence.slice(0, 2).map(({ distance, photo, label }) => `${four(distance)} ${photo}${label ? ` (marked ${labelWords(label)})` : ""}`).join(", ") || "–",
      ].map((text) => element("td", {}, text)),
    );
  return element(
    "table",
    { class: "report-findings" },
    element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...findings.slice(0, LISTED).map(row)),
    findings.length > LISTED && element("caption", {}, `The strongest ${LISTED} of ${findings.length}; the result's JSON file has all.`),
  );
}

/** The strongest findings enlarged, without the doubtful ones. */
function crops(result, picture, manifest) {
  const clear = result.findings.filter(({ doubts }) => !doubts?.length).slice(0, CROPS);
  return element(
    "div",
    { class: "report-crops" },
    ...clear.map((finding) => element("figure", {}, ownCrop(finding, result.photo, picture, manifest), element("figcaption", {}, String(finding.rank)))),
  );
}

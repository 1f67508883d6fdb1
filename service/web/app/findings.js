// The findings of a photograph; the chosen one unfolds its evidence.

import { element } from "./dom.js";
import { comparison } from "./evidence.js";
import { group } from "./facts.js";
import { markForm } from "./marking.js";
import { capital, counted, doubtWords, four, likeWords, pValue, percent } from "./text.js";

/** The list, strongest first; choosing a finding brings it out on the photograph, and the other way round. */
export function findingsList(photo, store, service, stage, marks) {
  const { result } = photo;
  const { findings } = result;
  const items = findings.map((finding) => item(finding, store, stage));
  const [clear, doubtful] = [items.filter(({ finding }) => !finding.doubts?.length), items.filter(({ finding }) => finding.doubts?.length)];
  const listOf = (some) => element("ol", { class: "findings" }, ...some.map(({ row }) => row));
  const list = element("div", { class: "finding-lists" }, clear.length > 0 && listOf(clear));
  if (doubtful.length) {
    list.append(
      element(
        "section",
        { class: "doubtful", "aria-label": "Doubtful findings" },
        element("h3", {}, `${counted(doubtful.length, "doubtful one")}`),
        element("p", { class: "quiet" }, "Along the edge of what is scored, or of very few pixels: often nothing. Outlined with dashes."),
        listOf(doubtful),
      ),
    );
  }

  const choose = () => {
    for (const { finding, row, button, place } of items) {
      const chosen = finding.rank === store.finding;
      row.classList.toggle("chosen", chosen);
      button.setAttribute("aria-expanded", String(chosen));
      if (!chosen) place.replaceChildren();
      else if (!place.children.length) {
        place.append(comparison(finding, result, service, stage), markForm(marks, photo, () => outlineOf(finding)));
        row.scrollIntoView({ block: "nearest" });
      }
    }
  };
  // The listener goes with the list it belongs to.
  const ended = new AbortController();
  const watch = () => (list.isConnected ? choose() : ended.abort());
  store.addEventListener("finding", watch, { signal: ended.signal });

  return group(
    headline(clear.length, doubtful.length),
    element("p", { class: "quiet level-meaning" }, levelMeaning(result)),
    findings.length > 0 && list,
  );
}

/** A region has at least three points; of a finding of one pixel or two it is the box. */
function outlineOf({ contour, box: [left, top, right, bottom] }) {
  return contour.length > 2 ? contour : [[left, top], [right, top], [right, bottom], [left, bottom]];
}

function headline(clear, doubtful) {
  if (!clear && !doubtful) return "Findings";
  return counted(clear, "finding") + (doubtful ? ` and ${doubtful} doubtful` : "");
}

/** What findings lie above, and how often healthy photographs do. */
function levelMeaning({ normals, findings, fpr }) {
  const { finding_level: level, false_regions: rate } = normals;
  if (level === null) {
    return "No level of findings at this rate: too few healthy photographs, or they never show so many regions.";
  }
  const above = findings.length ? `Above ${four(level)}.` : `Nothing lies above ${four(level)}.`;
  if (rate == null) return `${above} The highest point of a healthy photograph exceeds that at a rate of ${percent(fpr)}.`;
  const often = rate === 1 ? "one such region" : `${rate} such regions`;
  return `${above} A healthy photograph shows ${often} on average.`;
}

function item(finding, store, stage) {
  const { rank, peak, p_value: p, area_share: share, place: where } = finding;
  const place = element("div", { class: "evidence", id: `evidence-${rank}` });
  const button = element(
    "button",
    {
      type: "button", class: "finding", "aria-expanded": "false", "aria-controls": place.id,
      onclick: () => store.choose(store.finding === rank ? null : rank),
      onpointerenter: () => stage.bringOut(rank, "near"),
      onpointerleave: () => stage.bringOut(null, "near"),
    },
    element("span", { class: "rank" }, String(rank)),
    element("span", { class: "where" }, capital(where ?? `at ${finding.x}, ${finding.y} px`)),
    finding.doubts?.length > 0 && element("span", { class: "doubts" }, finding.doubts.map(doubtWords).join(", ")),
    finding.resembles && element("span", { class: "like" }, capital(likeWords(finding.resembles))),
    element("span", { class: "figures" }, `peak ${four(peak)}  p ${pValue(p)}  area ${percent(share)}`),
  );
  return { finding, button, place, row: element("li", {}, button, place) };
}

// The findings of a photograph; the chosen one unfolds its evidence.

import { element } from "./dom.js";
import { comparison } from "./evidence.js";
import { group } from "./facts.js";
import { capital, counted, four, pValue, percent } from "./text.js";

/** The list, strongest first; choosing a finding brings it out on the photograph, and the other way round. */
export function findingsList(photo, store, service, stage) {
  const { result } = photo;
  const { findings } = result;
  const list = element("ol", { class: "findings" });
  const items = findings.map((finding) => item(finding, store, stage));
  list.append(...items.map(({ row }) => row));

  const choose = () => {
    for (const { finding, row, button, place } of items) {
      const chosen = finding.rank === store.finding;
      row.classList.toggle("chosen", chosen);
      button.setAttribute("aria-expanded", String(chosen));
      if (!chosen) place.replaceChildren();
      else if (!place.children.length) {
        place.append(comparison(finding, result, service, stage));
        row.scrollIntoView({ block: "nearest" });
      }
    }
  };
  // The listener goes with the list it belongs to.
  const ended = new AbortController();
  const watch = () => (list.isConnected ? choose() : ended.abort());
  store.addEventListener("finding", watch, { signal: ended.signal });

  return group(
    findings.length ? counted(findings.length, "finding") : "Findings",
    element("p", { class: "quiet level-meaning" }, levelMeaning(result)),
    findings.length > 0 && list,
  );
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
    element("span", { class: "figures" }, `peak ${four(peak)}  p ${pValue(p)}  area ${percent(share)}`),
  );
  return { finding, button, place, row: element("li", {}, button, place) };
}

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

  const level = result.normals.finding_level;
  const none = level === null ? "Too few normals for a level of findings at this rate." : "Nothing lies above the level of findings.";
  const about = level !== null && element("p", { class: "quiet" }, `Above ${four(level)}, which healthy photographs exceed at a rate of ${percent(result.fpr)}.`);
  return group(
    findings.length ? counted(findings.length, "finding") : "Findings",
    ...(findings.length ? [about, list] : [element("p", { class: "quiet" }, none)]),
  );
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

// The list of photographs, as a listbox: what is chosen in it is open.

import { byId, element, save } from "./dom.js";
import { table } from "./exports.js";
import { showVerdict } from "./facts.js";
import { closeness } from "./judgement.js";
import { counted, doubt, fault, four, pValue } from "./text.js";
import { Thumbnails } from "./thumbnails.js";

const ORDERS = {
  added: () => 0,
  score: (one, other) => (other.result?.image_score ?? -1) - (one.result?.image_score ?? -1),
  name: (one, other) => one.name.localeCompare(other.name, "en", { numeric: true }),
};

/** Shows the store's photographs. */
export function showList(store) {
  const box = byId("photos");
  const rows = new Map();
  const thumbnails = new Thumbnails(box);
  let shown = [];
  let asked = 0;

  const arrange = () => {
    shown = [...store.photos].sort(ORDERS[byId("order").value]);
    const kept = new Set(shown);
    for (const [photo, row] of rows) {
      if (kept.has(photo)) continue;
      thumbnails.forget(row);
      rows.delete(photo);
    }
    const made = shown.map((photo) => {
      if (!rows.has(photo)) rows.set(photo, thumbnails.watch(newRow(photo, store), photo));
      return rows.get(photo);
    });
    if (made.length !== box.children.length || made.some((row, place) => row !== box.children[place])) {
      box.replaceChildren(...made);
    }
    byId("work").toggleAttribute("data-empty", !shown.length);
    byId("list-actions").hidden = !shown.length;
    count();
    mark();
  };

  const count = () => {
    const states = { waiting: 0, scoring: 0, busy: 0, done: 0, failed: 0 };
    for (const { state } of store.photos) states[state] += 1;
    const results = store.photos.map(({ result }) => result).filter(Boolean);
    const doubtful = results.filter(doubt).length;
    const close = results.filter((result) => closeness(result) && !doubt(result)).length;
    const outdated = store.photos.filter((photo) => photo.state === "done" && store.outdated(photo));
    const abnormal = results.filter((result) => result.abnormal && !doubt(result)).length;
    const [all, ended] = [store.photos.length, states.done + states.failed];
    const parts = [`${states.done} of ${counted(all, "photograph")} scored`, `${abnormal} abnormal`];
    if (close) parts[1] += `, ${close} close to the threshold`;
    if (doubtful) parts[1] += `, ${doubtful} doubtful`;
    if (states.failed) parts.push(`${states.failed} failed`);
    if (states.busy) parts.push(`waiting for the service: ${states.busy}`);
    byId("count").textContent = all ? parts.join(" · ") : "";
    Object.assign(byId("progress"), { max: Math.max(1, all), value: ended, hidden: ended === all });
    // Said aloud once, at the end.
    byId("announcement").textContent = all && ended === all ? byId("count").textContent : "";
    byId("retry").hidden = !states.failed;
    byId("rescore").hidden = !outdated.length;
    byId("rescore").textContent = `Score ${outdated.length} again`;
    byId("rescore").title = outdated.length ? `Their answers are ${store.outdated(outdated[0])}` : "";
    byId("table").disabled = !ended;
  };

  const mark = () => {
    for (const [photo, row] of rows) row.setAttribute("aria-selected", String(photo === store.opened));
    const row = rows.get(store.opened);
    if (!row) return box.removeAttribute("aria-activedescendant");
    return box.setAttribute("aria-activedescendant", row.id);
  };

  const changed = (photo) => {
    const row = rows.get(photo);
    if (row) fillRow(row, photo, store);
    // Many come in at once: the sums are made once a frame.
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(() => (byId("order").value === "score" ? arrange() : count()));
  };

  store.addEventListener("list", arrange);
  store.addEventListener("opened", () => {
    mark();
    rows.get(store.opened)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  store.addEventListener("photo", ({ detail }) => changed(detail));
  store.addEventListener("settings", () => {
    for (const [photo, row] of rows) fillRow(row, photo, store);
    count();
  });
  byId("order").addEventListener("change", arrange);
  byId("rescore").addEventListener("click", () => {
    store.again(store.photos.filter((photo) => photo.state === "done" && store.outdated(photo)));
  });
  byId("retry").addEventListener("click", () => store.again(store.photos.filter(({ state }) => state === "failed")));
  byId("clear").addEventListener("click", () => {
    const all = counted(store.photos.length, "photograph");
    if (confirm(`Remove ${all} and what was found in them from this page?`)) store.remove(store.photos);
  });
  byId("table").addEventListener("click", () => {
    save(new Blob([table(shown)], { type: "text/csv" }), "resad-scores.csv");
  });
  box.addEventListener("keydown", (event) => {
    const place = shown.indexOf(store.opened);
    const [next, before, end] = [place + 1, place - 1, shown.length - 1];
    // On a narrow screen the list lies on its side.
    const places = { ArrowDown: next, ArrowRight: next, ArrowUp: before, ArrowLeft: before, Home: 0, End: end };
    const to = places[event.key];
    if (to !== undefined) store.open(shown[Math.min(Math.max(to, 0), end)] ?? null);
    else if (event.key === "Enter") byId("stage").focus();
    else if (event.key === "Delete" && store.opened) store.remove([store.opened]);
    else return;
    event.preventDefault();
  });
}

function newRow(photo, store) {
  const row = element(
    "div",
    { class: "row", role: "option", id: photo.id, title: photo.name, onclick: () => store.open(photo) },
    element("span", { class: "thumbnail" }),
    element("span", { class: "name" }, photo.name.split("/").at(-1)),
    element("span", { class: "figures" }),
    element("span", { class: "badge" }),
  );
  fillRow(row, photo, store);
  return row;
}

function fillRow(row, photo, store) {
  const [, , figures, badge] = row.children;
  const { state, result } = photo;
  const outdated = store.outdated(photo);
  row.dataset.state = state;
  row.toggleAttribute("data-outdated", Boolean(outdated));
  if (result && state !== "failed") {
    const again = { waiting: "  again: waiting", scoring: "  again: scoring", busy: `  ${photo.note}`, done: "" }[state];
    figures.textContent = `${four(result.image_score)}  p ${pValue(result.p_value)}${again || (outdated && `  ${outdated}`)}`;
    showVerdict(badge, result);
  } else {
    figures.textContent = state === "failed" ? fault(photo.error) : photo.note;
    badge.textContent = { waiting: "waiting", scoring: "scoring", busy: "waiting", failed: "failed" }[state];
    badge.dataset.verdict = state;
    for (const name of ["data-doubtful", "data-close"]) badge.removeAttribute(name);
    badge.removeAttribute("title");
  }
}

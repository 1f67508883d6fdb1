// Marking: the choice of a label, and the marks of the open photograph in words.

import { element, save } from "./dom.js";
import { group } from "./facts.js";
import { HEALTHY, LABEL } from "./marks.js";
import { capital, fault, labelWords } from "./text.js";

const OTHER = "other";

/**
 * A form that marks what `contour` gives: a choice of labels and a button, then what has become of it.  It is hidden
 * where marking is not offered.
 *
 * @param done - called with what is said once it is marked.
 * @param more - further elements behind the button.
 */
export function markForm(marks, photo, contour, done = () => undefined, ...more) {
  const select = element("select", { required: true });
  const typed = element("input", {
    type: "text", "aria-label": "Other label", placeholder: "in a word or two", maxlength: 40, autocomplete: "off", hidden: true,
  });
  const remark = element("p", { class: "quiet", role: "status" });
  const form = element("form", { class: "mark-form" }, element("label", {}, "Mark as ", select), typed, element("button", { type: "submit" }, "Mark"), ...more, remark);

  select.addEventListener("change", () => {
    typed.hidden = !(typed.required = select.value === OTHER);
    typed.setCustomValidity("");
    remark.textContent = "";
    if (!typed.hidden) typed.focus();
  });
  typed.addEventListener("input", () => {
    const usable = !typed.value.trim() || LABEL.test(asLabel(typed.value));
    typed.setCustomValidity(usable ? "" : "At most 40 letters of a to z, digits and hyphens");
  });
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    const label = select.value === OTHER ? asLabel(typed.value) : select.value;
    busy = true;
    remark.textContent = "Marking";
    try {
      await marks.add(photo, label, contour());
      remark.textContent = `Marked ${labelWords(label)}. Nothing changes until the index is taught: resad-indexer teach`;
      done(remark.textContent);
    } catch (error) {
      remark.textContent = `Not marked. ${fault(error)}`;
    }
    busy = false;
  });

  const offer = () => {
    form.hidden = !marks.offered;
    const [kept, labels] = [select.value, marks.labels];
    if (labels.join() === select.dataset.labels) return;
    select.dataset.labels = labels.join();
    const options = (some) => some.map((label) => element("option", { value: label }, labelWords(label)));
    select.replaceChildren(
      element("option", { value: "" }, "choose ..."),
      element("optgroup", { label: "Healthy" }, ...options(labels.filter((label) => HEALTHY.includes(label)))),
      element("optgroup", { label: "Lesion" }, ...options(labels.filter((label) => !HEALTHY.includes(label)))),
      element("option", { value: OTHER }, "other ..."),
    );
    select.value = kept;
  };
  offer();
  whileShown(form, marks, offer);
  return form;
}

/** The marks on a photograph, who makes them, and all of the index's as a file. */
export function marksGroup(photo, marks, stage) {
  const list = element("ul", { class: "marks-list" });
  const none = element("p", { class: "quiet" }, "None on this photograph.");
  const remark = element("p", { class: "quiet", role: "status", tabindex: "-1" });
  const reader = element("input", { type: "text", id: "reader", maxlength: 80, autocomplete: "off", spellcheck: "false", value: marks.reader });
  reader.addEventListener("change", () => (marks.reader = reader.value.trim()));
  const all = element("button", { type: "button", class: "small", onclick: () => exportAll(marks) }, "Export all marks of the index (JSON)");
  const box = group(
    "Marks of readers",
    none, list, remark,
    element("label", { class: "reader" }, "Your name, optional ", reader),
    all,
    element("p", { class: "quiet" }, "The index keeps the region, its features, your name and the time; a picture only where it keeps those of its own photographs."),
  );

  const back = async (mark) => {
    try {
      await marks.withdraw(mark.id);
      remark.textContent = `Taken back: ${labelWords(mark.label)}. An index that has learned it forgets it when it is taught again.`;
    } catch (error) {
      remark.textContent = `Not taken back. ${fault(error)}`;
    }
    remark.focus();
  };
  let shown = "";
  const fill = () => {
    box.hidden = !marks.offered;
    const made = marks.of(photo);
    const ids = made.map(({ id }) => id).join();
    if (ids === shown) return; // a button that has the focus keeps it
    shown = ids;
    none.hidden = made.length > 0;
    list.replaceChildren(...made.map((mark) => item(mark, back, stage)));
  };
  fill();
  whileShown(box, marks, fill);
  return box;
}

function item(mark, back, stage) {
  const { id, label, reader, at, contour } = mark;
  const words = labelWords(label);
  const time = new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return element(
    "li",
    {
      "data-mark": id,
      onpointerenter: () => stage.bringOutMark(id), onpointerleave: () => stage.bringOutMark(null),
      onfocusin: () => stage.bringOutMark(id), onfocusout: () => stage.bringOutMark(null),
    },
    element("span", { class: "where" }, capital(words)),
    element("span", { class: "figures" }, `${reader}, `, element("time", { datetime: at }, time), !contour.length && ", by a mask: not outlined"),
    element("button", { type: "button", class: "small", "aria-label": `Take back: ${words}`, onclick: () => back(mark) }, "Take back"),
  );
}

/** What the service has, not what this page knows of it. */
async function exportAll(marks) {
  await marks.look();
  const name = `${marks.index}_marks.json`;
  save(new Blob([JSON.stringify(marks.journal, null, 2)], { type: "application/json" }), name);
}

/** A typed label as the service takes it: "Hard exudate" is hard-exudate. */
const asLabel = (text) => text.trim().toLowerCase().replace(/[\s_-]+/g, "-");

/** Calls `tell` with every change of the marks while `part` is on the page; the listener goes with it. */
function whileShown(part, marks, tell) {
  const ended = new AbortController();
  // Elements are made before they are shown.
  let shown = false;
  const watch = () => {
    shown ||= part.isConnected;
    if (part.isConnected || !shown) tell();
    else ended.abort();
  };
  marks.addEventListener("marks", watch, { signal: ended.signal });
}

// Drawing a region on the photograph, by pointer or by keys, to be marked.

import { byId, drawing, element, press } from "./dom.js";
import { markForm } from "./marking.js";

const NUDGE_PX = 10;
const SMALLEST_PX = 4; // on the screen
const SAMPLED_PX = 2;
const HINT = "Draw around a region. By keys: arrows and Enter set two corners of a box. Escape ends.";

/** While it is on, dragging draws a line around a region; then a form asks what it is. */
export class RegionTool {
  #stage;
  #store;
  #marks;
  #text = element("p", { class: "region-text", id: "region-text", role: "status" });
  #form = element("div", { id: "region-form", hidden: true });
  #box = element("div", { class: "region-box", id: "region-box", hidden: true }, this.#text, this.#form);
  #points = [];
  #drawing = false;
  /** By keys: where the cross is, and the first corner once it is set. */
  #at = null;
  #corner = null;

  constructor(stage, box, store, marks) {
    this.#stage = stage;
    this.#store = store;
    this.#marks = marks;
    byId("region").addEventListener("click", () => this.toggle());
    box.addEventListener("pointerdown", (event) => this.on && event.button === 0 && event.isPrimary && this.#start(event));
    box.addEventListener("pointermove", (event) => this.#drawing && event.isPrimary && this.#draw(event));
    box.addEventListener("pointerup", () => this.#drawing && this.#ask());
    box.addEventListener("pointercancel", () => this.#drawing && this.#clear());
    box.addEventListener("tool", () => this.on && stage.tool !== "region" && this.#turn(false));
    box.after(this.#box);
    this.#box.addEventListener("keydown", (event) => event.key === "Escape" && this.cancel());
    store.addEventListener("opened", () => this.on && this.#clear());
    marks.addEventListener("marks", () => {
      byId("region").hidden = !marks.offered;
      if (this.on && !marks.offered) this.toggle();
    });
  }

  /** Whether it draws. */
  get on() {
    return byId("region").getAttribute("aria-pressed") === "true";
  }

  toggle() {
    if (!this.on && !this.#marks.offered) return;
    this.#turn(!this.on);
    this.#stage.tool = this.on ? "region" : "";
  }

  /** Forgets the region that is drawn; without one the tool is laid aside. */
  cancel() {
    if (this.#points.length || this.#at) this.#clear();
    else this.toggle();
    byId("stage").focus();
  }

  /** By keys: moves the cross, and with it the corner that is not set yet. */
  nudge(right, down, fine) {
    if (!this.#form.hidden) this.#clear();
    const step = (fine ? 1 : NUDGE_PX) / this.#stage.motion.zoom;
    const { x, y } = this.#at ?? this.#stage.motion.middle;
    this.#at = this.#within({ x: x + right * step, y: y + down * step });
    if (this.#corner) this.#points = box(this.#corner, this.#at);
    this.#show();
  }

  /** By keys: sets a corner at the cross; with the second one the region is done. */
  mark() {
    this.#at ??= this.#stage.motion.middle;
    if (this.#corner) return this.#ask();
    this.#corner = this.#at;
    return this.#show();
  }

  #turn(on) {
    press(byId("region"), on);
    this.#box.hidden = !on;
    this.#clear();
  }

  #start(event) {
    this.#clear();
    this.#drawing = true;
    this.#points = [this.#within(this.#stage.motion.toPhoto(event))];
  }

  #draw(event) {
    const [point, last] = [this.#within(this.#stage.motion.toPhoto(event)), this.#points.at(-1)];
    if (Math.hypot(point.x - last.x, point.y - last.y) * this.#stage.motion.zoom < SAMPLED_PX) return;
    this.#points.push(point);
    this.#show();
  }

  /** The region is drawn; what is it? */
  #ask() {
    const [photo, points] = [this.#store.opened, this.#points];
    const sides = ["x", "y"].map((name) => points.map((point) => point[name])).map((all) => Math.max(...all) - Math.min(...all));
    if (points.length < 3 || Math.min(...sides) * this.#stage.motion.zoom < SMALLEST_PX) return this.#clear(`That is too small for a region. ${HINT}`);
    this.#drawing = false;
    // A pixel's index is that of its center.
    const contour = points.map(({ x, y }) => [x, y].map((value) => Math.round(10 * (value - 0.5)) / 10));
    const cancel = element("button", { type: "button", onclick: () => this.cancel() }, "Cancel");
    const marked = (words) => {
      this.#clear(`${words}. Draw the next region, or end with Escape.`);
      byId("stage").focus();
    };
    const form = markForm(this.#marks, photo, () => contour, marked, cancel);
    this.#form.replaceChildren(form);
    this.#form.hidden = false;
    this.#text.textContent = "";
    this.#show();
    return form.elements[0].focus();
  }

  #clear(words = HINT) {
    this.#points = [];
    this.#at = this.#corner = null;
    this.#drawing = false;
    this.#form.hidden = true;
    this.#form.replaceChildren();
    this.#text.textContent = this.on ? words : "";
    this.#show();
  }

  #show() {
    const line = this.#points.length > 1 ? `M${this.#points.map(({ x, y }) => `${x} ${y}`).join("L")}Z` : "";
    const cross = this.#at ? `M${this.#at.x - 0.001} ${this.#at.y}L${this.#at.x + 0.001} ${this.#at.y}` : "";
    this.#stage.draft(line || cross ? ["under", "over"].map((name) => drawing("path", { d: line + cross, class: name })) : []);
  }

  #within({ x, y }) {
    const { width, height } = this.#stage.extent;
    return { x: Math.min(Math.max(x, 0.5), width - 0.5), y: Math.min(Math.max(y, 0.5), height - 0.5) };
  }
}

const box = (from, to) => [from, { x: to.x, y: from.y }, to, { x: from.x, y: to.y }];

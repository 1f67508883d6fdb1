// Measuring on the photograph: lengths in px and in disc diameters, by pointer or by keys.

import { byId, drawing, press } from "./dom.js";

const NUDGE_PX = 10;

/** A line between two points; while measuring is on, dragging draws it instead of moving the photograph. */
export class Measure {
  #stage;
  #from = null;
  #to = null;
  #drawing = false;
  #photo = null;
  /** Diameters of the disc, px of the photograph: as the user measured it, and as the service found it; null without. */
  #measuredDisc = null;
  #foundDisc = null;

  constructor(stage, box) {
    this.#stage = stage;
    byId("measure").addEventListener("click", () => this.toggle());
    byId("measure-disc").addEventListener("click", () => this.#useAsDisc());
    box.addEventListener("pointerdown", (event) => this.on && event.button === 0 && this.#start(stage.motion.toPhoto(event)));
    box.addEventListener("pointermove", (event) => this.#drawing && this.#end(stage.motion.toPhoto(event)));
    box.addEventListener("tool", () => this.on && stage.tool !== "measure" && this.#turn(false));
    for (const name of ["pointerup", "pointercancel"]) box.addEventListener(name, () => (this.#drawing = false));
  }

  /** Whether measuring is on. */
  get on() {
    return byId("measure").getAttribute("aria-pressed") === "true";
  }

  toggle() {
    this.#turn(!this.on);
    this.#stage.tool = this.on ? "measure" : "";
  }

  /** Lays it aside. */
  cancel() {
    this.toggle();
  }

  /** Another photograph, or another answer for it; the disc that was found in it gives the unit. */
  show(photo) {
    const disc = photo?.result?.photo.optic_disc;
    this.#foundDisc = disc ? 2 * disc.radius : null;
    if (photo !== this.#photo) this.#from = this.#to = this.#measuredDisc = null;
    this.#photo = photo;
    this.#tell();
  }

  /** By keys: moves the end of the line, or before there is one its start. */
  nudge(right, down, fine) {
    const step = (fine ? 1 : NUDGE_PX) / this.#stage.motion.zoom;
    const at = this.#to ?? this.#from ?? this.#stage.motion.middle;
    const moved = { x: at.x + right * step, y: at.y + down * step };
    if (this.#to) this.#end(moved);
    else {
      this.#from = moved;
      this.#tell();
    }
  }

  /** By keys: the start is where it should be, or a new line begins at the end of this one. */
  mark() {
    const at = this.#to ?? this.#from ?? this.#stage.motion.middle;
    const begins = !this.#from || !this.#to;
    this.#from = at;
    this.#to = begins ? { ...at } : null;
    this.#tell();
  }

  #turn(on) {
    press(byId("measure"), on);
    this.#from = this.#to = null;
    this.#tell();
  }

  #start(point) {
    this.#drawing = true;
    this.#from = point;
    this.#end(point);
  }

  #end(point) {
    this.#to = point;
    this.#tell();
  }

  #useAsDisc() {
    this.#measuredDisc = this.#length;
    this.#tell();
  }

  get #length() {
    return this.#from && this.#to ? Math.hypot(this.#to.x - this.#from.x, this.#to.y - this.#from.y) : 0;
  }

  #tell() {
    const length = this.#length;
    const unit = this.#measuredDisc ?? this.#foundDisc;
    this.#stage.ruler(this.on ? line(this.#from, this.#to) : []);
    byId("measure-disc").hidden = !this.on || !length;
    if (!this.on) byId("measure-text").textContent = "";
    else if (!length) byId("measure-text").textContent = "Drag a line; by keys: arrows and Enter.";
    else if (!unit) byId("measure-text").textContent = `${length.toFixed(0)} px. The disc was not found: measure it, then use it as unit.`;
    else {
      const source = this.#measuredDisc ? "as you measured it" : "as found";
      byId("measure-text").textContent = `${length.toFixed(0)} px = ${(length / unit).toFixed(2)} disc diameters (${unit.toFixed(0)} px, ${source})`;
    }
  }
}

function line(from, to) {
  if (!from) return [];
  const end = to ?? from;
  const cross = ({ x, y }) => `M${x - 0.001} ${y}L${x + 0.001} ${y}`;
  const d = `M${from.x} ${from.y}L${end.x} ${end.y}${cross(from)}${cross(end)}`;
  return ["under", "over"].map((name) => drawing("path", { d, class: name }));
}

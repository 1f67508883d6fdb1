// The color bar, and the slider below it that says above which distance the map is shown.

import { COLOR_TABLE, distanceAt, positionOf } from "./colors.js";
import { byId } from "./dom.js";
import { regionsAbove } from "./regions.js";
import { counted, four, percent } from "./text.js";

/**
 * The slider, in even steps of color.  `draw` is called with the level, whether to draw the line around what is above
 * it, and the level of findings.
 */
export class LevelControl {
  #draw;
  #map = null;
  #result = null;
  #mark = null;
  #share = null;
  #level = null; // null: the whole scale
  #end = 0;
  #asked = 0;

  constructor(draw) {
    this.#draw = draw;
    byId("level").addEventListener("input", () => this.#soon());
    byId("level-all").addEventListener("click", () => this.#to(null));
    byId("level-reset").addEventListener("click", () => this.#to(this.#mark));
  }

  /** A map and the answer it belongs to; null for none. */
  show(map, result) {
    if (map && map === this.#map && result === this.#result) return;
    if (map !== this.#map) this.#level = null;
    this.#map = map;
    this.#result = result;
    this.#mark = result?.normals.finding_level ?? null;
    this.#share = map && scoredPixels(map, result);
    const slider = byId("level");
    for (const control of [slider, byId("level-all")]) control.disabled = !map;
    byId("level-reset").disabled = !map || this.#mark === null;
    byId("tick").hidden = !map || this.#mark === null;
    byId("regions").textContent = "";
    byId("level-text").textContent = "";
    if (!map) return;
    const { scale } = map;
    this.#end = map.values.reduce((most, value) => Math.max(most, value), scale.high);
    const last = positionOf(scale, this.#end);
    Object.assign(slider, { min: 0, max: last, step: "any" });
    if (this.#mark !== null) {
      byId("tick").style.left = `${100 * Math.min(positionOf(scale, this.#mark) / last, 1)}%`;
      byId("tick").title = `level of findings: ${four(this.#mark)}`;
    }
    paintBar(byId("bar"), 1 / last);
    this.#to(this.#level);
  }

  /** Draws the map at the level that is set. */
  draw() {
    if (!this.#map) return;
    const { low, stated } = this.#map.scale;
    const level = this.#level ?? low;
    this.#draw(level, this.#level !== null, this.#mark);
    byId("level-text").textContent = this.#level === null ? `${four(low)} (whole scale)` : four(level);
    byId("level").setAttribute("aria-valuetext", byId("level-text").textContent);
    const guessed = stated ? "" : "The index does not tell its scale: the colors' ends are a guess. ";
    if (this.#level === null) {
      const findings = this.#mark === null ? "" : `Findings lie above ${four(this.#mark)}.`;
      byId("regions").textContent = `${guessed}Transparent where healthy photographs are alike. ${findings}`;
      return;
    }
    const { count, pixels } = regionsAbove(this.#map, level);
    const area = percent(Math.min(1, pixels / this.#share));
    byId("regions").textContent = `${guessed}Above this level: ${counted(count, "region")}, ${area} of the field of view.`;
  }

  /** A level itself, so that the one of findings is met to the last digit. */
  #to(level) {
    this.#level = level;
    byId("level").value = String(level === null ? 0 : positionOf(this.#map.scale, level));
    this.draw();
  }

  /** The level of the slider, which rounds what it is given at both ends. */
  get #slid() {
    const [at, last] = [byId("level").value, byId("level").max].map(Number);
    if (at <= 1e-6 * last) return null;
    return last - at <= 1e-6 * last ? this.#end : distanceAt(this.#map.scale, at);
  }

  #soon() {
    cancelAnimationFrame(this.#asked);
    this.#asked = requestAnimationFrame(() => {
      if (!this.#map) return;
      this.#level = this.#slid;
      this.draw();
    });
  }
}

/** The pixels of the map inside the field of view, or of all of it where no disc was found. */
function scoredPixels({ width, height }, { photo }) {
  const disc = photo.field_of_view;
  if (!disc) return width * height;
  const shrink = width / photo.width;
  const root = Math.sqrt(disc.stretch ?? 1); // of an ellipse
  let pixels = 0;
  for (let y = 0; y < height; y += 1) {
    const up = ((y + 0.5) / shrink - disc.cy) / root;
    const half = Math.sqrt(Math.max(0, disc.radius ** 2 - up ** 2)) / root;
    pixels += Math.max(0, Math.min(photo.width, disc.cx + half) - Math.max(0, disc.cx - half)) * shrink;
  }
  return pixels;
}

/** The colors from the left in even steps; from `end` on the strongest. */
function paintBar(bar, end) {
  const { width, height } = bar;
  const paper = bar.getContext("2d");
  for (let x = 0; x < width; x += 1) {
    const color = 4 * Math.min(255, Math.round((255 * x) / (width * end)));
    paper.fillStyle = `rgb(${COLOR_TABLE.subarray(color, color + 3).join(", ")})`;
    paper.fillRect(x, 0, 1, height);
  }
}

// The color bar, and the slider below it that says above which distance the map is shown.

import { COLOR_TABLE } from "./colors.js";
import { byId } from "./dom.js";
import { regionsAbove } from "./regions.js";
import { counted, four, percent } from "./text.js";

/** The slider; `draw` is called with the level and whether to draw the line around what is above it. */
export class LevelControl {
  #draw;
  #map = null;
  #result = null;
  #mark = null;
  #share = null;
  #asked = 0;

  constructor(draw) {
    this.#draw = draw;
    byId("level").addEventListener("input", () => this.#soon());
    byId("level-all").addEventListener("click", () => this.#to(this.#map?.scale.low));
    byId("level-reset").addEventListener("click", () => this.#to(this.#mark));
  }

  /** A map and the answer it belongs to; null for none. */
  show(map, result) {
    if (map && map === this.#map && result === this.#result) return;
    const kept = map && map === this.#map ? Number(byId("level").value) : map?.scale.low;
    this.#map = map;
    this.#result = result;
    this.#mark = result?.normals.finding_level ?? null;
    this.#share = map && scoredPixels(map, result);
    const slider = byId("level");
    for (const one of [slider, byId("level-all")]) one.disabled = !map;
    byId("level-reset").disabled = !map || this.#mark === null;
    byId("tick").hidden = !map || this.#mark === null;
    byId("regions").textContent = "";
    byId("level-text").textContent = "";
    if (!map) return;
    const { low, high } = map.scale;
    const end = map.values.reduce((most, value) => Math.max(most, value), high);
    // Of any step, so that the level of findings itself can be reached.
    Object.assign(slider, { min: low, max: end, step: "any", value: kept });
    if (this.#mark !== null) {
      const at = Math.min(Math.max((this.#mark - low) / (end - low), 0), 1);
      byId("tick").style.left = `${100 * at}%`;
      byId("tick").title = `level of findings: ${four(this.#mark)}`;
    }
    paintBar(byId("bar"), (high - low) / (end - low));
    this.draw();
  }

  /** Draws the map at the level that the slider shows. */
  draw() {
    if (!this.#map) return;
    const { value, min, max } = byId("level");
    const { low, stated } = this.#map.scale;
    // The slider rounds what it is given, at both ends.
    const [at, least, most] = [value, min, max].map(Number);
    const rounded = 1e-6 * (most - least);
    const everything = at - least <= rounded;
    const level = everything ? low : most - at <= rounded ? most : at;
    this.#draw(level, !everything);
    byId("level-text").textContent = everything ? `${four(low)} (whole scale)` : four(level);
    byId("level").setAttribute("aria-valuetext", byId("level-text").textContent);
    const guessed = stated ? "" : "The index does not tell its scale: the colors' ends are a guess. ";
    if (everything) {
      const findings = this.#mark === null ? "" : `Findings lie above ${four(this.#mark)}.`;
      byId("regions").textContent = `${guessed}Transparent where healthy photographs are alike. ${findings}`;
      return;
    }
    const { count, pixels } = regionsAbove(this.#map, level);
    const area = percent(Math.min(1, pixels / this.#share));
    byId("regions").textContent = `${guessed}Above this level: ${counted(count, "region")}, ${area} of the field of view.`;
  }

  #to(level) {
    if (level == null) return;
    byId("level").value = String(level);
    this.draw();
  }

  #soon() {
    cancelAnimationFrame(this.#asked);
    this.#asked = requestAnimationFrame(() => this.draw());
  }
}

/** The pixels of the map inside the field of view, or of all of it where no disc was found. */
function scoredPixels({ width, height }, { photo }) {
  const disc = photo.field_of_view;
  if (!disc) return width * height;
  const shrink = width / photo.width;
  let pixels = 0;
  for (let y = 0; y < height; y += 1) {
    const up = (y + 0.5) / shrink - disc.cy;
    const half = Math.sqrt(Math.max(0, disc.radius ** 2 - up ** 2));
    pixels += Math.max(0, Math.min(photo.width, disc.cx + half) - Math.max(0, disc.cx - half)) * shrink;
  }
  return pixels;
}

/** The colors over a dark ground from the left; from `end` on the strongest. */
function paintBar(bar, end) {
  const { width, height } = bar;
  const paper = bar.getContext("2d");
  paper.fillStyle = "#3a1c12"; // a retina's own darkness, over which the colors lie
  paper.fillRect(0, 0, width, height);
  for (let x = 0; x < width; x += 1) {
    const color = 4 * Math.min(255, Math.round((255 * x) / (width * end)));
    const [red, green, blue, alpha] = COLOR_TABLE.subarray(color, color + 4);
    paper.fillStyle = `rgba(${red}, ${green}, ${blue}, ${alpha / 255})`;
    paper.fillRect(x, 0, 1, height);
  }
}

// The photograph under its map, its findings outlined: what is drawn, and where.

import { colorize } from "./colors.js";
import { drawing, element } from "./dom.js";
import { Motion } from "./motion.js";
import { outline } from "./regions.js";

const CLICK_PX = 4;

/** Two panes that move alike: the plain photograph, which is shown beside the other one only when asked for. */
export class Stage {
  #stage;
  #panes;
  #size = { width: 1, height: 1 };

  /**
   * @param stage - the element to fill.
   * @param moved - called with the zoom after every change of it.
   * @param picked - called with the rank of a finding whose outline is clicked, or null beside all of them.
   */
  constructor(stage, moved, picked) {
    this.#stage = stage;
    this.#panes = [pane("plain"), pane("mapped")];
    stage.prepend(...this.#panes.map(({ box }) => box));
    this.motion = new Motion(stage, ({ zoom, x, y }) => {
      for (const { sheet } of this.#panes) {
        sheet.style.width = `${this.#size.width * zoom}px`;
        sheet.style.height = `${this.#size.height * zoom}px`;
        sheet.style.transform = `translate(${x}px, ${y}px)`;
      }
      moved(zoom);
    });
    let pressed = null;
    stage.addEventListener("pointerdown", (event) => (pressed = event));
    stage.addEventListener("click", (event) => {
      const moved = pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY);
      if (moved > CLICK_PX) return;
      const under = document.elementsFromPoint(event.clientX, event.clientY);
      const rank = under.map(({ dataset }) => dataset?.rank).find((one) => one);
      picked(rank ? Number(rank) : null);
    });
  }

  /** The picture of this address; resolves with its size, or null where the browser cannot show it. */
  async picture(address) {
    const shown = await Promise.all(this.#panes.map(({ photo }) => loaded(photo, address)));
    return shown[0];
  }

  /** The photograph's size in px, at which everything is laid out. */
  size(width, height) {
    if (width === this.#size.width && height === this.#size.height) return this.motion.fit();
    this.#size = { width, height };
    for (const { outlines } of this.#panes) outlines.setAttribute("viewBox", `0 0 ${width} ${height}`);
    return this.motion.show(width, height);
  }

  /** The map above `level` in its colors, or none; `edge` draws the line around what is above. */
  map(map, level, edge) {
    const { canvas, edges } = this.#panes[1];
    canvas.hidden = !map;
    edges.replaceChildren();
    if (!map) return;
    const { width, height, values, scale } = map;
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(new ImageData(colorize(values, scale, level), width, height), 0, 0);
    if (!edge) return;
    edges.setAttribute("viewBox", `0 0 ${width} ${height}`);
    edges.append(drawing("path", { d: outline(map, level), class: "edge" }));
  }

  /** How opaque the map's own colors are, from 0 to 1. */
  opacity(share) {
    this.#panes[1].canvas.style.opacity = String(share);
  }

  /** The findings' outlines and numbers. */
  findings(findings) {
    const { width, height } = this.#size;
    for (const { outlines, marks } of this.#panes) {
      outlines.replaceChildren(...findings.map(contour));
      marks.replaceChildren(...findings.map((finding) => mark(finding, width, height)));
    }
  }

  /** Brings out one finding: `chosen` for good, `near` while a pointer is on it. */
  bringOut(rank, how) {
    for (const one of this.#stage.querySelectorAll("[data-rank]")) {
      one.classList.toggle(how, Number(one.dataset.rank) === rank);
    }
  }

  /** Both panes, or the mapped one alone. */
  sideBySide(both) {
    this.#stage.dataset.panes = both ? "2" : "1";
    this.motion.fit();
  }

  /** The picture itself, for crops of it; null where the browser cannot show it. */
  get image() {
    const { photo } = this.#panes[1];
    return photo.hidden || !photo.naturalWidth ? null : photo;
  }
}

function pane(name) {
  const photo = element("img", { alt: "", class: "photo", draggable: "false", hidden: true });
  const canvas = element("canvas", { class: "map", hidden: true });
  const edges = drawing("svg", { class: "edges", preserveAspectRatio: "none" });
  const outlines = drawing("svg", { class: "outlines" });
  const marks = element("div", { class: "marks" });
  const layers = name === "plain" ? [photo, outlines, marks] : [photo, canvas, edges, outlines, marks];
  const sheet = element("div", { class: "sheet" }, ...layers);
  return { box: element("div", { class: `pane ${name}`, "aria-hidden": "true" }, sheet), sheet, photo, canvas, edges, outlines, marks };
}

function contour(finding) {
  const d = `M${finding.contour.map(([x, y]) => `${x + 0.5} ${y + 0.5}`).join("L")}Z`;
  const paths = ["under", "over", "touch"].map((name) => drawing("path", { d, class: name, "data-rank": finding.rank }));
  return drawing("g", { "data-rank": finding.rank }, ...paths);
}

function mark({ rank, box }, width, height) {
  const made = element("span", { class: "mark", "data-rank": rank }, String(rank));
  const [left, top] = [(100 * box[0]) / width, (100 * box[1]) / height];
  made.style.left = `${left}%`;
  made.style.top = `${top}%`;
  return made;
}

function loaded(photo, address) {
  photo.hidden = true;
  return new Promise((resolve) => {
    photo.onload = () => {
      photo.hidden = false;
      resolve({ width: photo.naturalWidth, height: photo.naturalHeight });
    };
    photo.onerror = () => resolve(null);
    photo.src = address;
  });
}

// The photograph under its map, its findings outlined: what is drawn, and where.

import { colorOf, colorize } from "./colors.js";
import { drawing } from "./dom.js";
import { Motion } from "./motion.js";
import { contour, loaded, mark, pane, region, regionLabel } from "./panes.js";
import { outline } from "./regions.js";

const CLICK_PX = 4;
const NEAR = 1.6; // from so many times the fitting zoom on all have one

/**
 * Two panes that move alike: the plain photograph, or another one, which is shown beside the mapped one only when
 * asked for.
 */
export class Stage {
  #stage;
  #panes;
  #size = { width: 1, height: 1 };
  #address = "";
  #beside = null;

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
      stage.toggleAttribute("data-near", zoom > NEAR * this.motion?.fitting);
      moved(zoom);
    });
    let pressed = null;
    stage.addEventListener("pointerdown", (event) => (pressed = event));
    stage.addEventListener("click", (event) => {
      const moved = pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY);
      if (moved > CLICK_PX || this.tool) return;
      const under = document.elementsFromPoint(event.clientX, event.clientY);
      const rank = under.map(({ dataset }) => dataset?.rank).find((one) => one);
      picked(rank ? Number(rank) : null);
    });
  }

  /** The picture of this address; resolves with its size, or null where the browser cannot show it. */
  async picture(address) {
    this.#address = address;
    const [, shown] = await Promise.all(this.#panes.map(({ photo }, place) => loaded(photo, (!place && this.#beside?.address) || address)));
    return shown;
  }

  /** Another photograph beside the mapped one; null for the same one. */
  async beside(photo) {
    if (photo === this.#beside) return;
    this.#beside = photo;
    const { photo: image, outlines, marks, ruler, regions, labels, draft } = this.#panes[0];
    for (const layer of [outlines, marks, ruler, regions, labels, draft]) layer.replaceChildren();
    await loaded(image, photo?.address ?? this.#address);
  }

  /** The outlines of what was found in the photograph beside.  Without ranks: those are the open photograph's. */
  findingsBeside(findings, { width, height }) {
    const { outlines } = this.#panes[0];
    outlines.setAttribute("viewBox", `0 0 ${width} ${height}`);
    outlines.replaceChildren(...findings.map((finding) => contour({ ...finding, rank: null }, null)));
  }

  /** The photograph's size in px, at which everything is laid out. */
  size(width, height) {
    if (width === this.#size.width && height === this.#size.height) return this.motion.fit();
    this.#size = { width, height };
    for (const { ruler, regions, draft } of this.#panes) {
      for (const layer of [ruler, regions, draft]) layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    }
    return this.motion.show(width, height);
  }

  /**
   * The map's tint above `level`, or none; lines at the scale's fixed distances above `mark`, and with `edge` at the
   * level itself.
   */
  map(map, level, edge, mark) {
    const { canvas, edges } = this.#panes[1];
    canvas.hidden = !map;
    edges.replaceChildren();
    if (!map) return;
    const { width, height, values, scale } = map;
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(new ImageData(colorize(values, scale, level), width, height), 0, 0);
    edges.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const fixed = map.lines.filter(({ distance }) => distance >= Math.max(mark ?? scale.low, level));
    for (const { distance, d } of [...(edge ? [{ distance: level, d: outline(map, level) }] : []), ...fixed]) {
      edges.append(drawing("path", { d, class: "under" }), drawing("path", { d, class: "edge", stroke: colorOf(scale, distance) }));
    }
  }

  /** The CSS filter of the photographs. */
  filter(filter) {
    for (const { photo, enhanced } of this.#panes) photo.style.filter = enhanced.style.filter = filter;
  }

  /** A picture in the photograph's place in these panes, or none. */
  enhance(picture, panes = [0, 1]) {
    for (const { enhanced } of panes.map((place) => this.#panes[place])) {
      enhanced.hidden = !picture;
      if (!picture) continue;
      Object.assign(enhanced, { width: picture.width, height: picture.height });
      enhanced.getContext("2d").drawImage(picture, 0, 0);
    }
    picture?.close();
  }

  /** What a pointer does: "" moves the photograph.  The element tells of a change by the event `tool`. */
  set tool(tool) {
    this.#stage.dataset.tool = tool;
    this.#stage.dispatchEvent(new Event("tool"));
  }

  get tool() {
    return this.#stage.dataset.tool ?? "";
  }

  /** The line that is measured, as paths in px of the photograph. */
  ruler(paths) {
    for (const { ruler } of this.#openPanes) ruler.replaceChildren(...paths.map((path) => path.cloneNode()));
  }

  /** The line around a region that is being drawn, likewise. */
  draft(paths) {
    for (const { draft } of this.#openPanes) draft.replaceChildren(...paths.map((path) => path.cloneNode()));
  }

  /** The regions that readers have marked, with their labels. */
  marked(marks) {
    const { width, height } = this.#size;
    const outlined = marks.filter(({ contour: points }) => points.length);
    for (const { regions, labels } of this.#openPanes) {
      regions.replaceChildren(...outlined.map(region));
      labels.replaceChildren(...outlined.map((one) => regionLabel(one, width, height)));
    }
  }

  /** Brings out a marked region by its id, or none. */
  bringOutMark(id) {
    for (const one of this.#stage.querySelectorAll("[data-mark]")) one.classList.toggle("near", one.dataset.mark === id);
  }

  /** The photograph's size in px. */
  get extent() {
    return this.#size;
  }

  /** The panes that show the open photograph. */
  get #openPanes() {
    return this.#beside ? this.#panes.slice(1) : this.#panes;
  }

  /** How opaque the map's own colors are, from 0 to 1. */
  opacity(share) {
    this.#panes[1].canvas.style.opacity = String(share);
  }

  /** The findings' outlines, in the colors of their peaks once the scale is known, and numbers. */
  findings(findings, scale) {
    const { width, height } = this.#size;
    for (const { outlines, marks } of this.#openPanes) {
      outlines.setAttribute("viewBox", `0 0 ${width} ${height}`);
      outlines.replaceChildren(...findings.map((finding) => contour(finding, scale)));
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

// Zoom and pan of the stage by mouse, touch and keys; every pane moves alike.

const CLOSEST = 16;
const STEP = 1.25;
const PAN_PX = 60;

/** Where the photograph lies on a pane: screen px = photo px * zoom + offset. */
export class Motion {
  #stage;
  #moved;
  #size = { width: 1, height: 1 };
  #fitted = true;
  #fingers = new Map();

  /** @param moved - called with zoom, x and y after every change. */
  constructor(stage, moved) {
    this.#stage = stage;
    this.#moved = moved;
    this.zoom = 1;
    this.x = 0;
    this.y = 0;
    new ResizeObserver(() => (this.#fitted ? this.fit() : this.#settle())).observe(stage);
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => this.#fingers.delete(event.pointerId));
    }
    stage.addEventListener("dblclick", (event) => this.#zoomAt(2, this.#place(event)));
  }

  /** The photograph's size in px; it is fitted. */
  show(width, height) {
    this.#size = { width, height };
    this.fit();
  }

  /** The whole photograph. */
  fit() {
    this.#fitted = true;
    this.zoom = this.fitting;
    this.#settle();
  }

  /** Larger or smaller around the middle. */
  step(direction) {
    this.#zoomAt(direction > 0 ? STEP : 1 / STEP, { x: this.#pane.width / 2, y: this.#pane.height / 2 });
  }

  /** By an arrow key's direction. */
  pan(right, down) {
    this.x -= right * PAN_PX;
    this.y -= down * PAN_PX;
    this.#settle();
  }

  /** Brings a place of the photograph into view if it is not, as [left, top, right, bottom]. */
  reveal([left, top, right, bottom]) {
    const { width, height } = this.#pane;
    const at = (x, y) => [x * this.zoom + this.x, y * this.zoom + this.y];
    const [[x0, y0], [x1, y1]] = [at(left, top), at(right, bottom)];
    if (x0 >= 0 && y0 >= 0 && x1 <= width && y1 <= height) return;
    this.x += width / 2 - (x0 + x1) / 2;
    this.y += height / 2 - (y0 + y1) / 2;
    this.#settle();
  }

  /** Where a pointer is on the photograph, px. */
  toPhoto(event) {
    const { x, y } = this.#place(event);
    return { x: (x - this.x) / this.zoom, y: (y - this.y) / this.zoom };
  }

  /** The middle of what is seen, px of the photograph. */
  get middle() {
    return { x: (this.#pane.width / 2 - this.x) / this.zoom, y: (this.#pane.height / 2 - this.y) / this.zoom };
  }

  get #pane() {
    const panes = this.#stage.dataset.panes === "2" ? 2 : 1;
    return { width: Math.max(1, this.#stage.clientWidth / panes), height: Math.max(1, this.#stage.clientHeight) };
  }

  /** The zoom at which the whole photograph is seen. */
  get fitting() {
    return Math.min(this.#pane.width / this.#size.width, this.#pane.height / this.#size.height);
  }

  #place(event) {
    const box = this.#stage.getBoundingClientRect();
    return { x: (event.clientX - box.left) % this.#pane.width, y: event.clientY - box.top };
  }

  #zoomAt(factor, { x, y }) {
    const zoom = Math.min(Math.max(this.zoom * factor, this.fitting), CLOSEST * Math.max(1, this.fitting));
    this.x = x - (x - this.x) * (zoom / this.zoom);
    this.y = y - (y - this.y) * (zoom / this.zoom);
    this.zoom = zoom;
    this.#fitted = zoom === this.fitting;
    this.#settle();
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.#zoomAt(2 ** (-(event.deltaY * lines) / 300), this.#place(event));
  }

  #down(event) {
    if (event.button !== 0) return;
    this.#stage.setPointerCapture(event.pointerId);
    if (this.#stage.dataset.tool) return; // the pointer draws
    this.#fingers.set(event.pointerId, this.#place(event));
  }

  #move(event) {
    const before = this.#fingers.get(event.pointerId);
    if (!before) return;
    const now = this.#place(event);
    const other = [...this.#fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.#fingers.set(event.pointerId, now);
    if (other) {
      const distance = (finger) => Math.hypot(finger.x - other.x, finger.y - other.y);
      this.#zoomAt(distance(now) / Math.max(1, distance(before)), other);
      return;
    }
    this.x += now.x - before.x;
    this.y += now.y - before.y;
    this.#settle();
  }

  /** Keeps the photograph on the pane: centered where it is smaller, without gaps where it is larger. */
  #settle() {
    const kept = (offset, size, room) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, offset)));
    this.x = kept(this.x, this.#size.width * this.zoom, this.#pane.width);
    this.y = kept(this.y, this.#size.height * this.zoom, this.#pane.height);
    this.#moved(this);
  }
}

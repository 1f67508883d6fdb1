// The open photograph: its picture, its map, and what is said while there is none.

import { byId, element, press } from "./dom.js";
import { LevelControl } from "./level.js";
import { Look } from "./look.js";
import { Measure } from "./measure.js";
import { RegionTool } from "./region.js";
import { Stage } from "./stage.js";
import { capital, fault } from "./text.js";

/** Keeps the stage as the store has it; `controls.js` is what its users touch. */
export class Viewer {
  #store;
  #service;
  #maps;
  #marks;
  #level;
  #map = null;
  #turn = 0;
  /** Another photograph in the plain pane; null for the open one. */
  #beside = null;
  #shown = { map: true, outlines: true };

  constructor(store, service, maps, marks) {
    this.#store = store;
    this.#service = service;
    this.#maps = maps;
    this.#marks = marks;
    this.stage = new Stage(
      byId("stage"),
      (zoom) => (byId("zoom-text").textContent = `${Math.round(100 * zoom)} %`),
      (rank) => store.choose(rank),
    );
    this.look = new Look(this.stage);
    this.measure = new Measure(this.stage, byId("stage"));
    this.region = new RegionTool(this.stage, byId("stage"), store, marks);
    this.#level = new LevelControl((value, edge, mark) => this.stage.map(this.#shown.map ? this.#map : null, value, edge, mark));
    store.addEventListener("opened", () => this.#open());
    store.addEventListener("list", () => this.offerBeside());
    byId("beside").addEventListener("change", () => this.offerBeside());
    store.addEventListener("finding", () => this.#bringOut());
    store.addEventListener("photo", ({ detail }) => {
      if (detail === store.opened) this.#update();
      else if (detail === this.#beside) this.#outline();
    });
    marks.addEventListener("marks", () => this.#outlineMarks());
    service.addEventListener("state", () => !this.#map && this.#update());
  }

  /** Shows or hides the `map` or the `outlines`. */
  toggle(what) {
    this.#shown[what] = !this.#shown[what];
    press(byId(`${what}-shown`), this.#shown[what]);
    this.#outline();
    this.#level.draw();
  }

  /** The plain photograph beside the one with its map, or that one alone. */
  toggleSides() {
    const both = byId("side").getAttribute("aria-pressed") !== "true";
    press(byId("side"), both);
    this.stage.sideBySide(both);
    byId("beside").parentElement.hidden = !both;
    this.offerBeside();
  }

  /** What may be shown beside the open photograph: itself, or another one. */
  offerBeside() {
    const select = byId("beside");
    const others = this.#store.photos.filter((photo) => photo !== this.#store.opened);
    const kept = others.some(({ id }) => id === select.value) ? select.value : "";
    select.replaceChildren(
      element("option", { value: "" }, "itself, without map"),
      ...others.map(({ id, name }) => element("option", { value: id }, name.split("/").at(-1))),
    );
    select.value = kept;
    const shown = byId("side").getAttribute("aria-pressed") === "true";
    this.#beside = others.find(({ id }) => shown && id === kept) ?? null;
    const { opened } = this.#store;
    this.look.show(opened ? [(this.#beside ?? opened).file, opened.file] : []);
    this.stage.beside(this.#beside);
    this.#outline();
  }

  /** The next finding, or with -1 the one before, around the end. */
  stepFinding(by) {
    const count = this.#result?.findings.length ?? 0;
    const from = this.#store.finding ?? (by > 0 ? 0 : 1);
    if (count) this.#store.choose(((from - 1 + by + count) % count) + 1);
  }

  get #result() {
    return this.#store.opened?.result ?? null;
  }

  async #open() {
    const photo = this.#store.opened;
    const turn = (this.#turn += 1);
    byId("empty").hidden = Boolean(photo);
    byId("open").hidden = !photo;
    this.#map = null;
    this.#level.show(null, null);
    this.stage.map(null);
    if (byId("side").getAttribute("aria-pressed") === "true") this.offerBeside();
    else this.look.show(photo ? [photo.file, photo.file] : []);
    this.stage.findings([], null); // until the photograph is there that they lie on
    this.stage.marked([]);
    this.measure.show(photo);
    if (!photo) return;
    Object.assign(byId("open-name"), { textContent: photo.name, title: photo.name });
    const size = await this.stage.picture(photo.address);
    if (turn !== this.#turn) return;
    if (size) this.stage.size(size.width, size.height);
    await this.#update();
  }

  async #update() {
    const [photo, turn, result] = [this.#store.opened, this.#turn, this.#result];
    const { answer = null } = photo ?? {};
    if (!photo) return;
    for (const button of byId("open-eye").children) press(button, button.dataset.eye === photo.eye);
    this.measure.show(photo);
    if (result && !this.stage.image) this.stage.size(result.photo.width, result.photo.height);
    this.#outline();
    if (!result) {
      this.#note(waitingText(photo, this.#service));
    } else if (this.#map?.photo === photo && this.#map.version === result.index.version) {
      this.#note(photo.state === "done" ? this.#pictureNote : waitingText(photo, this.#service));
      this.#level.show(this.#map, result);
    } else {
      await this.#fetchMap(photo, turn, answer);
    }
  }

  async #fetchMap(photo, turn, answer) {
    this.#note("Fetching the map");
    try {
      const map = await this.#maps.get(photo);
      if (turn !== this.#turn || photo.answer !== answer) return;
      this.#map = { ...map, photo, version: answer.index.version };
      this.#note(this.#pictureNote);
      this.#level.show(this.#map, photo.result);
      this.#outline();
    } catch (error) {
      if (turn === this.#turn && !this.#service.met(error)) this.#note(`No map. ${fault(error)}`);
    }
  }

  #outline() {
    const scale = this.#map?.photo === this.#store.opened ? this.#map?.scale : null;
    const findingsOf = (result) => (this.#shown.outlines ? (result?.findings ?? []) : []);
    this.stage.findings(findingsOf(this.#result), scale);
    const beside = this.#beside?.result;
    if (beside) this.stage.findingsBeside(findingsOf(beside), beside.photo);
    this.stage.bringOut(this.#store.finding, "chosen");
    this.#outlineMarks();
  }

  #outlineMarks() {
    const { opened } = this.#store;
    this.stage.marked(opened && this.#shown.outlines ? this.#marks.of(opened) : []);
  }

  #bringOut() {
    this.stage.bringOut(this.#store.finding, "chosen");
    const finding = this.#result?.findings.find(({ rank }) => rank === this.#store.finding);
    if (finding) this.stage.motion.reveal(finding.box);
  }

  #note(text) {
    byId("stage-note").textContent = text;
  }

  get #pictureNote() {
    return this.stage.image ? "" : "This browser cannot show the photograph's format; its map is shown alone.";
  }
}

function waitingText(photo, service) {
  if (photo.state === "failed") return "Not scored";
  if (photo.state === "busy") return capital(photo.note);
  if (photo.state === "scoring") return "Scoring";
  return service.state === "ready" ? "Waiting for its turn" : "Waiting for the service";
}

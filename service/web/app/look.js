// How the photograph itself looks: red-free, equalized (CLAHE), brighter or darker, more or less contrast.

import { byId, press } from "./dom.js";

const PLAIN = { redFree: false, clahe: false, brightness: 100, contrast: 100 };
const STEP = 10;

/** The switches of a look, and what they do to a stage. */
export class Look {
  #stage;
  #look = { ...PLAIN };
  #files = [];
  #turn = 0;
  #worker = null;

  constructor(stage) {
    this.#stage = stage;
    // On a small screen the photograph needs the room; the keys work all the same.
    byId("look").open = innerHeight >= 850 && innerWidth > 1100;
    byId("red-free").addEventListener("click", () => this.toggle("redFree"));
    byId("clahe").addEventListener("click", () => this.toggle("clahe"));
    for (const name of ["brightness", "contrast"]) {
      byId(name).addEventListener("input", ({ target }) => this.#set({ [name]: Number(target.value) }));
    }
    byId("look-reset").addEventListener("click", () => this.#set(PLAIN));
    this.#set({});
  }

  /** The photographs of the two panes, from the left; none, or the same one twice. */
  show(files) {
    if (files.length === this.#files.length && files.every((file, place) => file === this.#files[place])) return;
    this.#files = files;
    this.#equalize();
  }

  /** `redFree` or `clahe`, on and off. */
  toggle(name) {
    this.#set({ [name]: !this.#look[name] });
  }

  /** `brightness` or `contrast`, by steps. */
  step(name, by) {
    const { min, max } = byId(name);
    this.#set({ [name]: Math.min(Math.max(this.#look[name] + by * STEP, Number(min)), Number(max)) });
  }

  #set(values) {
    const before = this.#look;
    this.#look = { ...before, ...values };
    const { redFree, clahe, brightness, contrast } = this.#look;
    press(byId("red-free"), redFree);
    press(byId("clahe"), clahe);
    Object.assign(byId("brightness"), { value: String(brightness) });
    Object.assign(byId("contrast"), { value: String(contrast) });
    const plain = Object.entries(PLAIN).every(([name, value]) => this.#look[name] === value);
    byId("look-reset").disabled = plain;
    this.#stage.filter(`${redFree ? "url(#red-free-filter) " : ""}brightness(${brightness}%) contrast(${contrast}%)`);
    if (before.clahe !== clahe || (clahe && before.redFree !== redFree)) this.#equalize();
  }

  /** The equalized picture is made once it is wanted, of the whole photograph at its own size. */
  async #equalize() {
    const turn = (this.#turn += 1);
    const { clahe, redFree } = this.#look;
    this.#stage.enhance(null);
    if (!clahe || !this.#files.length) return;
    this.#worker ??= new Worker(new URL("./enhance-worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data: { id, picture, panes: shown } }) => id === this.#turn && this.#stage.enhance(picture, shown);
    for (const file of new Set(this.#files)) {
      const panes = [0, 1].filter((pane) => this.#files[pane] === file);
      try {
        const picture = await createImageBitmap(file);
        if (turn !== this.#turn) return;
        this.#worker.postMessage({ id: turn, panes, picture, redFree }, [picture]);
      } catch {
        // The browser cannot decode the photograph, and says so where it is shown.
      }
    }
  }
}

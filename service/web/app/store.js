// What the page knows: photographs, which of them is open, and how they are scored.

import { USUAL_FALSE_REGIONS, judged } from "./judgement.js";
import { placed } from "./places.js";

/**
 * A photograph and what became of it.
 *
 * state: waiting, scoring, busy (the queue was full, it is asked again), done or failed.  answer: the service's last;
 * it stays while another is asked for.  index: by which name its index was asked for.  calibration: of the index that answered; null where it is not told.
 * result: the answer at the rate and for the eye that are set.
 */
class Photo {
  static #last = 0;

  constructor(file, name, eye) {
    this.id = `photo-${(Photo.#last += 1)}`;
    this.file = file;
    this.name = name;
    this.eye = eye;
    this.state = "waiting";
    this.note = "";
    this.answer = null;
    this.index = null;
    this.calibration = null;
    this.result = null;
    this.error = null;
    this.ended = new AbortController();
    this.address = URL.createObjectURL(file);
  }
}

/** Tells by events what has changed: `list`, `photo` (one, in `detail`), `opened`, `finding`, `settings`. */
export class Store extends EventTarget {
  photos = [];
  opened = null;
  finding = null;
  /** version: of the index, as served.  falseRegions: the rate of findings; null for the service's own choice. */
  settings = { index: null, version: null, fpr: 0.05, falseRegions: null, eye: "" };

  /** Photographs to score; `files` are `{file, name}`. */
  add(files) {
    const made = files.map(({ file, name }) => new Photo(file, name, this.settings.eye));
    this.photos.push(...made);
    this.#tell("list");
    if (!this.opened && made.length) this.open(made[0]);
  }

  /** Forgets photographs, and what is under way for them. */
  remove(photos) {
    const gone = new Set(photos);
    const place = this.photos.indexOf(this.opened);
    for (const photo of gone) {
      photo.ended.abort(new DOMException("removed", "AbortError"));
      URL.revokeObjectURL(photo.address);
    }
    this.photos = this.photos.filter((photo) => !gone.has(photo));
    if (gone.has(this.opened)) this.open(this.photos[Math.min(place, this.photos.length - 1)] ?? null);
    this.#tell("list");
  }

  /** Shows a photograph, or none. */
  open(photo) {
    if (photo === this.opened) return;
    this.opened = photo;
    this.finding = null;
    this.#tell("opened");
  }

  /** Brings out a finding by its rank, or none. */
  choose(rank) {
    this.finding = rank;
    this.#tell("finding");
  }

  /** Something about a photograph is new. */
  change(photo, values) {
    Object.assign(photo, values);
    this.#tell("photo", photo);
  }

  /** The service's answer for a photograph; `index` is the name by which its index was asked for. */
  answered(photo, answer, index, calibration) {
    const error = null;
    this.change(photo, { state: "done", note: "", error, answer, index, calibration, result: this.#read(photo, answer, calibration) });
  }

  /** Score these anew: they are sent again.  Their old answers stay until the new ones are there. */
  again(photos) {
    for (const photo of photos) {
      photo.ended.abort(new DOMException("asked anew", "AbortError"));
      photo.ended = new AbortController();
      this.change(photo, { state: "waiting", note: "", error: null });
    }
    this.#tell("list");
  }

  /** Other settings.  Nothing is sent: rates are arithmetic; for an index or a level of findings `again` is asked for. */
  set(values) {
    Object.assign(this.settings, values);
    if ("fpr" in values) for (const photo of this.photos) this.#reread(photo);
    this.#tell("settings");
  }

  /** Which eye a photograph shows, "" for unknown; its findings' places follow. */
  setEye(photo, eye) {
    photo.eye = eye;
    this.#reread(photo);
    this.change(photo, {});
  }

  /** What of a photograph's answer is not as set, in words; empty where all is. */
  outdated({ answer, result, index: asked }) {
    const { index, version, fpr, falseRegions } = this.settings;
    if (!answer) return "";
    if (index !== null && asked !== index) return `of index ${asked}`;
    if (version !== null && answer.index.version !== version) return `of an earlier version of the index`;
    if (result.fpr !== fpr) return `at a rate of ${result.fpr}`;
    const { false_regions: rate, finding_level: level } = answer.normals;
    if (rate === null) return answer.fpr === fpr || level === null ? "" : `with findings at a rate of ${answer.fpr}`;
    return rate === (falseRegions ?? USUAL_FALSE_REGIONS) ? "" : `with findings at ${rate} false regions per photo`;
  }

  #read(photo, answer, calibration) {
    return placed(judged(answer, this.settings.fpr, calibration), photo.eye);
  }

  #reread(photo) {
    if (!photo.answer) return;
    this.change(photo, { result: this.#read(photo, photo.answer, photo.calibration) });
  }

  #tell(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

// What the page knows: photographs, which of them is open, and how they are scored.

/**
 * A photograph and what became of it.
 *
 * state: waiting, scoring, busy (the queue was full, it is asked again), done or failed.
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
  /** falseRegions: the rate of findings; null for the service's own choice. */
  settings = { index: null, fpr: 0.05, falseRegions: null, eye: "" };

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

  /** Score these anew. */
  again(photos) {
    for (const photo of photos) {
      photo.ended.abort(new DOMException("asked anew", "AbortError"));
      photo.ended = new AbortController();
      this.change(photo, { state: "waiting", note: "", result: null, error: null });
    }
    this.choose(null);
    this.#tell("list");
  }

  /** Other settings; what was scored under the old ones is scored anew. */
  set(values) {
    Object.assign(this.settings, values);
    this.#tell("settings");
    if ("index" in values || "fpr" in values || "falseRegions" in values) this.again(this.photos);
  }

  #tell(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

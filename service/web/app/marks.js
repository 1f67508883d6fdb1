// Readers' marks: the journal of the index that the open photograph was scored with, and what readers add to it.

import { NotAllowed } from "../client/index.js";

const READER = "resad-reader";
const MOST_POINTS = 1000;

/** Labels of regions that a reader calls healthy; all others are kinds of lesions. */
export const HEALTHY = ["normal-variant", "artifact"];

/** What the service takes as a label. */
export const LABEL = /^[a-z0-9][a-z0-9-]{0,39}$/;

/** Tells by the event `marks` that the journal is another one, or that marks were made or taken back. */
export class Marks extends EventTarget {
  #store;
  #service;
  #turn = 0;
  #index = null;
  #journal = null;
  /** Of each photograph the hash of its file, once it is known. */
  #hashes = new WeakMap();

  constructor(store, service) {
    super();
    this.#store = store;
    this.#service = service;
    // Whenever a photograph is opened: its marks may have been made elsewhere, and in the meantime.
    store.addEventListener("opened", () => this.look());
    const follow = () => this.index !== this.#index && this.look();
    store.addEventListener("settings", follow);
    store.addEventListener("photo", ({ detail }) => detail === store.opened && follow());
    service.addEventListener("state", () => service.state === "ready" && this.look());
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  }

  /** Whether this service lets this page mark. */
  get offered() {
    return this.#journal !== null;
  }

  /** The labels to choose from, healthy ones first. */
  get labels() {
    return this.#journal?.labels ?? [];
  }

  /** The index that the marks are of. */
  get index() {
    return this.#store.opened?.index ?? this.#store.settings.index;
  }

  /** The journal as the service has it. */
  get journal() {
    return this.#journal;
  }

  /** Who marks; kept for this tab. */
  get reader() {
    return sessionStorage.getItem(READER) ?? "";
  }

  set reader(name) {
    if (name) sessionStorage.setItem(READER, name);
    else sessionStorage.removeItem(READER);
  }

  /** The marks on a photograph, oldest first, each with its `reader`, when it was made, and the photograph's size. */
  of(photo) {
    const hash = this.#hashes.get(photo);
    if (!hash || !this.#journal) return [];
    return this.#journal.photos
      .filter(({ content_sha256: its }) => its === hash)
      .flatMap(({ marks, reader, at, width, height }) => marks.map((mark) => ({ ...mark, reader, at, width, height })));
  }

  /** Asks for the journal.  Where the key does not suffice for it, there is no marking, and nothing is said of it. */
  async look() {
    const [{ index }, turn] = [this, (this.#turn += 1)];
    if (index === null || this.#service.state !== "ready") return;
    if (index !== this.#index) this.#journal = null;
    this.#index = index;
    // Any other trouble goes by: what is known stays until the next look.
    const kept = (error) => (error instanceof NotAllowed ? null : this.#journal);
    const journal = await this.#service.client.marks({ index }).catch(kept);
    if (turn === this.#turn) this.#show(journal);
  }

  /** Marks a region of a photograph; rejects with the client's errors. */
  async add(photo, label, contour) {
    const index = photo.index ?? this.index;
    const options = { index, reader: this.reader || undefined };
    const marked = await this.#service.client.mark(photo.file, [{ label, contour: fewer(contour) }], options);
    // The hash is stated in the answer: without a secure context the page cannot find it itself.
    this.#hashes.set(photo, marked.content_sha256);
    if (index === this.#index && this.#journal) {
      this.#show({ ...this.#journal, photos: [...this.#journal.photos, marked] });
    }
    await this.look();
  }

  /** Takes a mark back; rejects with the client's errors. */
  async withdraw(id) {
    try {
      await this.#service.client.withdrawMark(id, { index: this.#index });
    } finally {
      await this.look();
    }
  }

  async #hash(photo) {
    if (this.#hashes.has(photo) || !globalThis.crypto?.subtle) return;
    this.#hashes.set(photo, null);
    try {
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await photo.file.arrayBuffer()));
      this.#hashes.set(photo, Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""));
      this.dispatchEvent(new Event("marks"));
    } catch {
      // A file that has gone since; scoring it says so.
    }
  }

  #show(journal) {
    this.#journal = journal;
    if (journal && this.#store.opened) this.#hash(this.#store.opened);
    this.dispatchEvent(new Event("marks"));
  }
}

/** Every second, third ... point of a contour that has too many. */
function fewer(contour) {
  const step = Math.ceil(contour.length / MOST_POINTS);
  return contour.filter((_, place) => place % step === 0);
}

// The service behind the page: whether it answers, whether it can score, what it serves, and the key it asks for.

import { Busy, Client, ConnectionFailed, DeadlinePassed, NotAllowed, NotReady, TimedOut } from "../client/index.js";

const KEY = "resad-key";
const POLL_MS = 20_000;
const POLL_DOWN_MS = 2_000;

/** Whether an index can be asked: one that rests is loaded by the first photograph. */
export const answers = ({ state }) => state === "serving" || state === "resting";

/** Tells by events: `state`, and `indexes` when the list is new.  state: checking, ready, starting, gone or key. */
export class Service extends EventTarget {
  state = "checking";
  reason = "";
  indexes = [];
  #details = new Map();
  #timer = 0;
  #onWait = new WeakMap();

  constructor() {
    super();
    this.client = new Client(new URL(".", document.baseURI), {
      key: sessionStorage.getItem(KEY),
      // A full queue is waited out however long it takes, and so is a service that ran out of time; for all else the
      // page itself waits, and says so.
      retries: Infinity,
      maxWaitS: Infinity,
      retryWhen: (error) => error instanceof Busy || error instanceof DeadlinePassed,
      onWait: ({ seconds, error }, signal) => this.#onWait.get(signal)?.(seconds, error instanceof DeadlinePassed),
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  }

  /** Whether a key is kept. */
  get hasKey() {
    return sessionStorage.getItem(KEY) !== null;
  }

  /**
   * Calls `told` whenever a call with this signal waits, with the seconds, and whether the service ran out of time
   * (or had no place in its queue).
   */
  whenBusy(signal, told) {
    this.#onWait.set(signal, told);
  }

  /** Uses a key from now on, or none; throws `SettingError` for one that cannot be. */
  useKey(key) {
    this.client.setKey(key);
    if (key === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, key);
    this.#details.clear();
    return this.look();
  }

  /** Asks how the service is, and goes on asking. */
  async look() {
    clearTimeout(this.#timer);
    try {
      const { ready, reason } = await this.client.ready();
      const indexes = await this.client.indexes();
      if (JSON.stringify(indexes) !== JSON.stringify(this.indexes)) {
        this.indexes = indexes;
        this.dispatchEvent(new Event("indexes"));
      }
      // One index that does not answer keeps the service from being ready, and the others from nothing.
      const serving = indexes.some(answers);
      this.#become(serving ? "ready" : "starting", ready ? "" : reason);
    } catch (error) {
      if (!this.met(error)) this.#become("gone", error.message);
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // While all is well a tab that nobody sees need not ask; one with photographs that wait must.
      if (this.state !== "ready" || !document.hidden) this.look();
    }, this.state === "ready" && !this.reason ? POLL_MS : POLL_DOWN_MS);
  }

  /** Takes note of an error that says how the service is; false for any other. */
  met(error) {
    if (error instanceof NotAllowed && error.status === 401) this.#become("key", error.detail);
    // A photograph that memory has no room for does not mean that the service is not ready.
    else if (error instanceof NotReady && !error.type.endsWith(":out-of-memory")) this.#become("starting", error.detail);
    else if (error instanceof ConnectionFailed && !(error instanceof TimedOut)) this.#become("gone", error.message);
    else return false;
    return true;
  }

  /** An index with its manifest, asked for once per version. */
  detail(name) {
    const version = this.indexes.find((index) => index.name === name)?.version ?? "";
    const place = `${name}/${version}`;
    if (!this.#details.has(place)) {
      const asked = this.client.index(name);
      asked.catch(() => this.#details.delete(place));
      this.#details.set(place, asked);
    }
    return this.#details.get(place);
  }

  /** The calibration of the version that gave an answer; null where the service does not tell it, or not any more. */
  async calibration(name, version) {
    try {
      const { manifest } = await this.detail(name);
      return manifest?.version === version ? manifest.calibration : null;
    } catch {
      return null;
    }
  }

  #become(state, reason) {
    if (state !== "ready" && state !== "key") {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.look(), POLL_DOWN_MS);
    }
    if (state === this.state && reason === this.reason) return;
    Object.assign(this, { state, reason: reason ?? "" });
    this.dispatchEvent(new Event("state"));
  }
}

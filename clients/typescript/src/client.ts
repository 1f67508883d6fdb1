/** The client. */

import { NotReady, ProtocolError, type ServerProblem, SettingError, problemError } from "./errors.js";
import { type Call, type Port, type Refused, type Wait, answer, baseUrl, checkedKey, json, once } from "./exchange.js";
import { type AnomalyMap, MAP_TYPES, type MapFile, type MapFormat, PICTURE_TYPES, type PictureKind, readNpy } from "./maps.js";
import type {
  CallOptions, Evidence, IndexDetail, IndexSummary, MapOptions, MarkList, MarkOptions, MarkedPhoto, MarksOptions, NewMark,
  Photo, Problem, Readiness, Result, ScoreOptions,
} from "./models.js";
import { attachment } from "./photos.js";
import { isRecord, listOf, markedPhoto, result } from "./reading.js";
import { checkedPolicy } from "./retries.js";

/** How a client behaves; everything may be left out. */
export interface ClientOptions {
  /** API key, sent as a bearer token. */
  readonly key?: string | null;
  /** Seconds for one attempt; longer than the service's own deadline, so that its word for it arrives first. */
  readonly timeoutS?: number;
  /** Repeats after 429, 503 and, at most twelve times, 504, at most five times, lost connections. */
  readonly retries?: number;
  /** Seconds of all waits of a call together; a longer Retry-After is not waited for. */
  readonly maxWaitS?: number;
  /** Which of those are waited out at all; all of them unless given. */
  readonly retryWhen?: (error: Refused) => boolean;
  /** Told before every wait, with the signal of the call that waits. */
  readonly onWait?: (wait: Wait, signal: AbortSignal | undefined) => void;
  /** In place of the platform's own. */
  readonly fetch?: typeof fetch;
  /** Of the waits' random part: from 0 to 1. */
  readonly random?: () => number;
}

type AnsweredBy = Pick<Result["index"], "name"> & Partial<Result["index"]>;
type Patch = Pick<Evidence, "photo" | "y" | "x">;

const JSON_TYPE = "application/json";

/** A ReSAD service.  Every call rejects with the errors of `errors.ts`, or with the reason of its signal. */
export class Client {
  readonly #base: URL;
  readonly #port: Port;
  #key: string | null;

  /**
   * @param url - http or https, with host and, behind a proxy, a path.
   * @throws SettingError - for an address, key or policy that cannot be used.
   */
  constructor(url: string | URL = "http://127.0.0.1:8000", options: ClientOptions = {}) {
    this.#base = baseUrl(url);
    this.#key = options.key == null ? null : checkedKey(options.key);
    const { timeoutS = 120, retries = 5, maxWaitS = 60 } = options;
    if (!(timeoutS > 0 && timeoutS < 2_000_000)) {
      throw new SettingError(`timeoutS ${timeoutS}: must be above 0 and below 2000000`);
    }
    this.#port = {
      fetch: options.fetch ?? globalThis.fetch,
      key: () => this.#key,
      timeoutS,
      policy: checkedPolicy({ retries, maxWaitS }),
      random: options.random ?? Math.random,
      retryWhen: options.retryWhen ?? (() => true),
      onWait: options.onWait ?? (() => undefined),
    };
  }

  /** The key of the calls that follow; null for none. */
  setKey(key: string | null): void {
    this.#key = key === null ? null : checkedKey(key);
  }

  /** Score a photograph. */
  async score(photo: Photo, options: ScoreOptions = {}): Promise<Result> {
    const body = await attachment(photo);
    const value = await this.#ask("POST", this.#url("v1/score", options), JSON_TYPE, options, body, json);
    return result(value, "the answer");
  }

  /**
   * Score photographs in one request: for each, in order, its result or what is wrong with it.
   *
   * Rejects with what concerns the request as a whole, and with `PhotoUnusable` before anything is sent.
   */
  async scoreMany(photos: readonly Photo[], options: ScoreOptions = {}): Promise<(Result | ServerProblem)[]> {
    if (photos.length === 0) return [];
    const form = new FormData();
    for (const [number, photo] of photos.entries()) {
      form.append("photo", await attachment(photo), `photo-${number + 1}`);
    }
    const value = await this.#ask("POST", this.#url("v1/score", options), JSON_TYPE, options, form, json);
    const answers = listOf(value, "results");
    if (answers.length !== photos.length) {
      throw new ProtocolError(`the answer has ${answers.length} results, sent were ${photos.length}`);
    }
    return answers.map((one, place) =>
      isRecord(one) && "status" in one ? problemError(one as Problem) : result(one, `results[${place}]`),
    );
  }

  /** A photograph's map, at the photograph's own size, or smaller: `size` px on the longer side. */
  anomalyMap(photo: Photo, options?: MapOptions & { readonly format?: "npy" }): Promise<AnomalyMap>;
  anomalyMap(photo: Photo, options: MapOptions & { readonly format: MapFormat }): Promise<MapFile>;
  async anomalyMap(photo: Photo, options: MapOptions & { readonly format?: MapFormat } = {}): Promise<MapFile> {
    const { format = "npy", ...query } = options;
    const file = await this.#map(photo, query, MAP_TYPES[format]);
    return format === "npy" ? { ...file, ...readNpy(file.bytes) } : file;
  }

  /** The photograph under its map, with a color bar and the findings outlined, as PNG or JPEG. */
  overlay(photo: Photo, options: MapOptions & { readonly kind?: PictureKind } = {}): Promise<MapFile> {
    const { kind = "png", ...query } = options;
    return this.#map(photo, { ...query, style: "overlay" }, PICTURE_TYPES[kind]);
  }

  /** What is served. */
  async indexes(options: CallOptions = {}): Promise<readonly IndexSummary[]> {
    const value = await this.#ask("GET", this.#url("v1/indexes"), JSON_TYPE, options, undefined, json);
    return listOf(value, "indexes") as IndexSummary[];
  }

  /** One index, with its manifest. */
  async index(name: string, options: CallOptions = {}): Promise<IndexDetail> {
    const url = this.#url(`v1/indexes/${encodeURIComponent(name)}`);
    const value = await this.#ask("GET", url, JSON_TYPE, options, undefined, json);
    if (!isRecord(value) || typeof value["name"] !== "string") throw new ProtocolError("the answer is no index");
    return value as unknown as IndexDetail;
  }

  /**
   * Where the crop of a healthy patch lies; it needs the key as every call does.
   *
   * @param index - the `index` of the result: an id means another photograph in another version.
   */
  evidenceUrl(index: AnsweredBy, { photo, y, x }: Patch): string {
    const path = [index.name, "evidence", photo, y, x].map(encodeURIComponent).join("/");
    return this.#url(`v1/indexes/${path}`, { version: index.version }).href;
  }

  /**
   * The crop of a healthy patch, a JPEG, as the reference photo is: where the patch is `mirrored`, turn it left to
   * right to see what was compared.  Rejects with `NotFound` where the index keeps none.
   */
  evidenceCrop(index: AnsweredBy, patch: Patch, options: CallOptions = {}): Promise<Blob> {
    const url = new URL(this.evidenceUrl(index, patch));
    return this.#ask("GET", url, "image/*", options, undefined, (response) => response.blob());
  }

  /**
   * Mark regions of a photograph as normal variants, artifacts or known lesions, for `resad-indexer teach`.
   *
   * Nothing changes at once, and the photograph is not kept.  Takes a key with the scope `teach`.
   */
  async mark(photo: Photo, marks: readonly NewMark[], options: MarkOptions = {}): Promise<MarkedPhoto> {
    const { reader, ...query } = options;
    const form = new FormData();
    form.append("photo", await attachment(photo), "photo");
    form.append("marks", new Blob([JSON.stringify({ marks, ...(reader && { reader }) })], { type: JSON_TYPE }), "marks");
    const value = await this.#ask("POST", this.#url("v1/marks", query), JSON_TYPE, options, form, json, true);
    return markedPhoto(value, "the answer");
  }

  /** The journal of marks, and the labels that marks may have. */
  async marks(options: MarksOptions = {}): Promise<MarkList> {
    const value = await this.#ask("GET", this.#url("v1/marks", options), JSON_TYPE, options, undefined, json);
    listOf(value, "labels");
    for (const [place, photo] of listOf(value, "photos").entries()) markedPhoto(photo, `photos[${place}]`);
    return value as MarkList;
  }

  /** Take a mark back; rejects with `NotFound` where there is none of this id. */
  async withdrawMark(id: string, options: MarksOptions = {}): Promise<void> {
    const url = this.#url(`v1/marks/${encodeURIComponent(id)}`, options);
    await this.#ask("DELETE", url, "*/*", options, undefined, (response) => response.arrayBuffer(), true);
  }

  /** Whether the service works; asked once.  Rejects with `ConnectionFailed` if nobody answers. */
  live(options: CallOptions = {}): Promise<Readiness> {
    return this.#health("livez", options);
  }

  /** Whether every index answers, and if not, why; asked once. */
  ready(options: CallOptions = {}): Promise<Readiness> {
    return this.#health("readyz", options);
  }

  async #health(path: string, options: CallOptions): Promise<Readiness> {
    const call: Call = { method: "GET", url: this.#url(path), accept: JSON_TYPE, signal: options.signal };
    try {
      await once(this.#port, call, (response) => response.arrayBuffer());
    } catch (error) {
      if (error instanceof NotReady) return { ready: false, reason: error.detail || error.title };
      throw error;
    }
    return { ready: true, reason: null };
  }

  async #map(photo: Photo, options: MapOptions & { readonly style?: "overlay" }, type: string): Promise<MapFile> {
    const body = await attachment(photo);
    return this.#ask("POST", this.#url("v1/anomaly-map", options), type, options, body, async (response) => ({
      bytes: new Uint8Array(await response.arrayBuffer()),
      mediaType: response.headers.get("Content-Type") ?? type,
      index: response.headers.get("Resad-Index") ?? "",
      fullScale: Number(response.headers.get("Resad-Full-Scale") ?? NaN),
    }));
  }

  #ask<Body>(
    method: Call["method"], url: URL, accept: string, options: CallOptions, body: Blob | FormData | undefined,
    read: (response: Response) => Promise<Body>, changes = false,
  ): Promise<Body> {
    return answer(this.#port, { method, url, accept, signal: options.signal, changes, ...(body && { body }) }, read);
  }

  #url(path: string, options: object = {}): URL {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(options)) {
      if (name !== "signal" && value != null) url.searchParams.set(name, String(value));
    }
    return url;
  }
}

/** The client. */
import { NotReady, ProtocolError, SettingError, problemError } from "./errors.js";
import { answer, baseUrl, checkedKey, json, once } from "./exchange.js";
import { MAP_TYPES, PICTURE_TYPES, readNpy } from "./maps.js";
import { attachment } from "./photos.js";
import { isRecord, listOf, markedPhoto, result } from "./reading.js";
import { checkedPolicy } from "./retries.js";
const JSON_TYPE = "application/json";
/** A ReSAD service.  Every call rejects with the errors of `errors.ts`, or with the reason of its signal. */
export class Client {
    #base;
    #port;
    #key;
    /**
     * @param url - http or https, with host and, behind a proxy, a path.
     * @throws SettingError - for an address, key or policy that cannot be used.
     */
    constructor(url = "http://127.0.0.1:8000", options = {}) {
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
    setKey(key) {
        this.#key = key === null ? null : checkedKey(key);
    }
    /** Score a photograph. */
    async score(photo, options = {}) {
        const body = await attachment(photo);
        const value = await this.#ask("POST", this.#url("v1/score", options), JSON_TYPE, options, body, json);
        return result(value, "the answer");
    }
    /**
     * Score photographs in one request: for each, in order, its result or what is wrong with it.
     *
     * Rejects with what concerns the request as a whole, and with `PhotoUnusable` before anything is sent.
     */
    async scoreMany(photos, options = {}) {
        if (photos.length === 0)
            return [];
        const form = new FormData();
        for (const [number, photo] of photos.entries()) {
            form.append("photo", await attachment(photo), `photo-${number + 1}`);
        }
        const value = await this.#ask("POST", this.#url("v1/score", options), JSON_TYPE, options, form, json);
        const answers = listOf(value, "results");
        if (answers.length !== photos.length) {
            throw new ProtocolError(`the answer has ${answers.length} results, sent were ${photos.length}`);
        }
        return answers.map((one, place) => isRecord(one) && "status" in one ? problemError(one) : result(one, `results[${place}]`));
    }
    async anomalyMap(photo, options = {}) {
        const { format = "npy", ...query } = options;
        const file = await this.#map(photo, query, MAP_TYPES[format]);
        return format === "npy" ? { ...file, ...readNpy(file.bytes) } : file;
    }
    /** The photograph under its map, with a color bar and the findings outlined, as PNG or JPEG. */
    overlay(photo, options = {}) {
        const { kind = "png", ...query } = options;
        return this.#map(photo, { ...query, style: "overlay" }, PICTURE_TYPES[kind]);
    }
    /** What is served. */
    async indexes(options = {}) {
        const value = await this.#ask("GET", this.#url("v1/indexes"), JSON_TYPE, options, undefined, json);
        return listOf(value, "indexes");
    }
    /** One index, with its manifest. */
    async index(name, options = {}) {
        const url = this.#url(`v1/indexes/${encodeURIComponent(name)}`);
        const value = await this.#ask("GET", url, JSON_TYPE, options, undefined, json);
        if (!isRecord(value) || typeof value["name"] !== "string")
            throw new ProtocolError("the answer is no index");
        return value;
    }
    /**
     * Where the crop of a healthy patch lies; it needs the key as every call does.
     *
     * @param index - the `index` of the result: an id means another photograph in another version.
     */
    evidenceUrl(index, { photo, y, x }) {
        const path = [index.name, "evidence", photo, y, x].map(encodeURIComponent).join("/");
        return this.#url(`v1/indexes/${path}`, { version: index.version }).href;
    }
    /**
     * The crop of a healthy patch, a JPEG, as the reference photo is: where the patch is `mirrored`, turn it left to
     * right to see what was compared.  Rejects with `NotFound` where the index keeps none.
     */
    evidenceCrop(index, patch, options = {}) {
        const url = new URL(this.evidenceUrl(index, patch));
        return this.#ask("GET", url, "image/*", options, undefined, (response) => response.blob());
    }
    /**
     * Mark regions of a photograph as normal variants, artifacts or known lesions, for `resad-indexer teach`.
     *
     * Nothing changes at once, and the photograph is not kept.  Takes a key with the scope `teach`.
     */
    async mark(photo, marks, options = {}) {
        const { reader, ...query } = options;
        const form = new FormData();
        form.append("photo", await attachment(photo), "photo");
        form.append("marks", new Blob([JSON.stringify({ marks, ...(reader && { reader }) })], { type: JSON_TYPE }), "marks");
        const value = await this.#ask("POST", this.#url("v1/marks", query), JSON_TYPE, options, form, json, true);
        return markedPhoto(value, "the answer");
    }
    /** The journal of marks, and the labels that marks may have. */
    async marks(options = {}) {
        const value = await this.#ask("GET", this.#url("v1/marks", options), JSON_TYPE, options, undefined, json);
        listOf(value, "labels");
        for (const [place, photo] of listOf(value, "photos").entries())
            markedPhoto(photo, `photos[${place}]`);
        return value;
    }
    /** Take a mark back; rejects with `NotFound` where there is none of this id. */
    async withdrawMark(id, options = {}) {
        const url = this.#url(`v1/marks/${encodeURIComponent(id)}`, options);
        await this.#ask("DELETE", url, "*/*", options, undefined, (response) => response.arrayBuffer(), true);
    }
    /** Whether the service works; asked once.  Rejects with `ConnectionFailed` if nobody answers. */
    live(options = {}) {
        return this.#health("livez", options);
    }
    /** Whether every index answers, and if not, why; asked once. */
    ready(options = {}) {
        return this.#health("readyz", options);
    }
    async #health(path, options) {
        const call = { method: "GET", url: this.#url(path), accept: JSON_TYPE, signal: options.signal };
        try {
            await once(this.#port, call, (response) => response.arrayBuffer());
        }
        catch (error) {
            if (error instanceof NotReady)
                return { ready: false, reason: error.detail || error.title };
            throw error;
        }
        return { ready: true, reason: null };
    }
    async #map(photo, options, type) {
        const body = await attachment(photo);
        return this.#ask("POST", this.#url("v1/anomaly-map", options), type, options, body, async (response) => ({
            bytes: new Uint8Array(await response.arrayBuffer()),
            mediaType: response.headers.get("Content-Type") ?? type,
            index: response.headers.get("Resad-Index") ?? "",
            fullScale: Number(response.headers.get("Resad-Full-Scale") ?? NaN),
        }));
    }
    #ask(method, url, accept, options, body, read, changes = false) {
        return answer(this.#port, { method, url, accept, signal: options.signal, changes, ...(body && { body }) }, read);
    }
    #url(path, options = {}) {
        const url = new URL(path, this.#base);
        for (const [name, value] of Object.entries(options)) {
            if (name !== "signal" && value != null)
                url.searchParams.set(name, String(value));
        }
        return url;
    }
}

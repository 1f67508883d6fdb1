/** Requests out, answers in: everything about HTTP. */
import { Busy, ConnectionFailed, DeadlinePassed, NotReady, ProtocolError, ServerProblem, SettingError, TimedOut, problemError } from "./errors.js";
import { pause, retryAfter, wait } from "./retries.js";
/** However many refusals are waited out, after so many lost connections, or proxies' words of one, nobody is there. */
const LOST_RETRIES = 5;
/** And after so many times in which the service ran out of time, it never has enough. */
const LATE_RETRIES = 12;
/** The service's address, ending in a slash; `SettingError` unless it is http or https. */
export function baseUrl(text) {
    let url;
    try {
        url = new URL(text);
    }
    catch (error) {
        throw new SettingError(`${JSON.stringify(String(text))} is no address`, { cause: error });
    }
    if (!/^https?:$/.test(url.protocol)) {
        throw new SettingError(`${JSON.stringify(url.href)} is no address of a service: expected http or https`);
    }
    url.search = url.hash = "";
    if (!url.pathname.endsWith("/"))
        url.pathname += "/";
    return url;
}
/** `key`, or a `SettingError`, without the key in it, if it cannot stand in a header. */
export function checkedKey(key) {
    if (!/^[!-~]+$/.test(key))
        throw new SettingError("the key is empty or holds something else than visible ASCII");
    return key;
}
/**
 * The body of the answer to `call`, a success, asked for again as the port's policy allows.
 *
 * A call may be repeated without harm, even one that was carried out while its answer got lost, unless it `changes`
 * something at the service: that is asked again only where the service refused it before it began.  A proxy's word that the service is gone counts as a lost connection; what the
 * service itself says of a fault of its own would be the same again.  Where it, or a proxy, ran out of time (504),
 * others were before this call: it is asked again, after longer waits.  What took too long by this side's clock is
 * not asked for again.
 */
export async function answer(port, call, read) {
    let waited = 0;
    let lost = 0;
    let late = 0;
    for (let repeat = 0;; repeat += 1) {
        try {
            return await once(port, call, read);
        }
        catch (error) {
            if (!(error instanceof ServerProblem || error instanceof ConnectionFailed))
                throw error;
            const gone = error instanceof ConnectionFailed || error.standsIn;
            const passed = error instanceof DeadlinePassed;
            if (!gone && !passed && !(error instanceof Busy || error instanceof NotReady))
                throw error;
            if (call.changes && (gone || passed))
                throw error;
            // Asking again what took too long would only double the load.
            if (error instanceof TimedOut || !port.retryWhen(error))
                throw error;
            if (gone)
                lost += 1;
            if (passed)
                late += 1;
            const asked = error instanceof ServerProblem ? error.retryAfter : null;
            const turn = passed ? late - 1 : repeat;
            const seconds = repeat < port.policy.retries ? wait(port.policy, turn, asked, waited, port.random, passed) : null;
            if (seconds === null || lost > LOST_RETRIES || late > LATE_RETRIES)
                throw error;
            port.onWait({ seconds, error }, call.signal);
            await pause(seconds, call.signal);
            waited += seconds;
        }
    }
}
/** As `answer`, asked a single time. */
export async function once(port, call, read) {
    call.signal?.throwIfAborted();
    const ended = new AbortController();
    const stop = () => ended.abort(call.signal?.reason);
    call.signal?.addEventListener("abort", stop, { once: true });
    const late = new TimedOut(`no answer from ${call.url.origin} within ${port.timeoutS} s`);
    const timer = setTimeout(() => ended.abort(late), 1000 * port.timeoutS);
    try {
        const response = await send(port, call, ended.signal);
        if (!response.ok)
            throw problemError(await problemOf(response), retryAfter(response.headers));
        return await read(response);
    }
    catch (error) {
        if (ended.signal.aborted)
            throw ended.signal.reason;
        // `fetch` and the reading of a body raise a TypeError for whatever happens to a connection.
        if (error instanceof TypeError)
            throw new ConnectionFailed(`no answer from ${call.url.origin}`, { cause: error });
        throw error;
    }
    finally {
        clearTimeout(timer);
        call.signal?.removeEventListener("abort", stop);
    }
}
/** The answer's JSON; `ProtocolError` where it has none. */
export async function json(response) {
    const text = await response.text();
    try {
        return JSON.parse(text);
    }
    catch (error) {
        throw new ProtocolError(`the answer from ${new URL(response.url).origin} is no JSON`, { cause: error });
    }
}
function send(port, call, signal) {
    const headers = { Accept: call.accept };
    if (call.body instanceof Blob)
        headers["Content-Type"] = call.body.type;
    const key = port.key();
    if (key !== null)
        headers["Authorization"] = `Bearer ${key}`;
    const { fetch } = port; // called without a `this`, as browsers demand
    return fetch(call.url, { method: call.method, headers, body: call.body ?? null, signal, cache: "no-store" });
}
/** What the answer says is wrong; where it is a proxy's and not the service's, what its status says. */
async function problemOf(response) {
    const value = await json(response).catch(() => null);
    const said = (value !== null && typeof value === "object" ? value : {});
    return {
        type: typeof said.type === "string" ? said.type : "about:blank",
        title: said.title ?? (response.statusText || "Refused"),
        status: response.status,
        detail: said.detail ?? "",
        request_id: said.request_id ?? null,
    };
}

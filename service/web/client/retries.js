/** When to ask again: the service's own Retry-After, and beyond that longer and longer waits that differ. */
import { SettingError } from "./errors.js";
const FIRST_S = 0.25;
const LONGEST_S = 8;
/** After a 504, which cost the service its whole deadline. */
const FIRST_AFTER_LATE_S = 4;
const LONGEST_AFTER_LATE_S = 60;
/** `policy`, or a `SettingError` for values below 0. */
export function checkedPolicy(policy) {
    for (const [name, value] of Object.entries(policy)) {
        if (!(value >= 0))
            throw new SettingError(`${name} ${value}: must be at least 0`);
    }
    return policy;
}
/**
 * Seconds to wait before repeat number `repeat` (from 0), or null to give up.
 *
 * @param asked - what the service asked for, never undercut.
 * @param waited - seconds waited so far.
 * @param random - from 0 to 1.
 * @param late - whether the service ran out of time (504): the waits are longer.
 */
export function wait(policy, repeat, asked, waited, random, late = false) {
    const room = policy.maxWaitS - waited;
    const least = asked ?? 0;
    if (repeat >= policy.retries || room <= 0 || least > room)
        return null;
    // Clients that were all sent away with "1 second" must not all come back at once, and where many wait for few
    // places, repeats at that pace would be used up before a place falls free: so the spread doubles.
    const [first, longest] = late ? [FIRST_AFTER_LATE_S, LONGEST_AFTER_LATE_S] : [FIRST_S, LONGEST_S];
    const spread = Math.min(Math.max(least, first) * 2 ** Math.min(repeat, 16), longest);
    const share = least ? random() : 0.5 + 0.5 * random();
    return Math.min(least + spread * share, room);
}
/**
 * Seconds that a Retry-After header asks for (RFC 9110: a number, or a date), at least 0; null without one.
 *
 * A date is read against the answer's own Date where it has one, so that the two machines' clocks may differ.
 * What cannot be read counts as absent.
 */
export function retryAfter(headers, now = Date.now) {
    const text = (headers.get("Retry-After") ?? "").trim();
    if (/^\d+$/.test(text))
        return Number(text);
    const until = Date.parse(text);
    if (Number.isNaN(until))
        return null;
    const asOf = Date.parse(headers.get("Date") ?? "");
    return Math.max(0, (until - (Number.isNaN(asOf) ? now() : asOf)) / 1000);
}
/** Resolves after `seconds`, or rejects with the signal's reason. */
export function pause(seconds, signal) {
    return new Promise((resolve, reject) => {
        if (signal?.aborted)
            return reject(signal.reason);
        const stop = () => {
            clearTimeout(timer);
            reject(signal?.reason);
        };
        const timer = setTimeout(() => {
            signal?.removeEventListener("abort", stop);
            resolve();
        }, 1000 * seconds);
        signal?.addEventListener("abort", stop, { once: true });
    });
}

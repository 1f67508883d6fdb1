/** JSON that came from outside, looked at before it is believed. */
import { ProtocolError } from "./errors.js";
/** Whether `value` is an object. */
export function isRecord(value) {
    return typeof value === "object" && value !== null;
}
/** The list `name` of `value`; `ProtocolError` where there is none. */
export function listOf(value, name) {
    const list = isRecord(value) ? value[name] : undefined;
    if (!Array.isArray(list))
        throw new ProtocolError(`the answer has no list ${name}`);
    return list;
}
/** `value` as a result; `ProtocolError` where it is none. */
export function result(value, where) {
    if (!isRecord(value) || typeof value["image_score"] !== "number" || !Array.isArray(value["findings"])) {
        throw new ProtocolError(`${where} is no result`);
    }
    return value;
}
/** `value` as a marked photograph; `ProtocolError` where it is none. */
export function markedPhoto(value, where) {
    if (!isRecord(value) || typeof value["content_sha256"] !== "string" || !Array.isArray(value["marks"])) {
        throw new ProtocolError(`${where} is no marked photograph`);
    }
    return value;
}

/** JSON that came from outside, looked at before it is believed. */

import { ProtocolError } from "./errors.js";
import type { MarkedPhoto, Result } from "./models.js";

/** Whether `value` is an object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** The list `name` of `value`; `ProtocolError` where there is none. */
export function listOf(value: unknown, name: string): unknown[] {
  const list = isRecord(value) ? value[name] : undefined;
  if (!Array.isArray(list)) throw new ProtocolError(`the answer has no list ${name}`);
  return list;
}

/** `value` as a result; `ProtocolError` where it is none. */
export function result(value: unknown, where: string): Result {
  if (!isRecord(value) || typeof value["image_score"] !== "number" || !Array.isArray(value["findings"])) {
    throw new ProtocolError(`${where} is no result`);
  }
  return value as unknown as Result;
}

/** `value` as a marked photograph; `ProtocolError` where it is none. */
export function markedPhoto(value: unknown, where: string): MarkedPhoto {
  if (!isRecord(value) || typeof value["content_sha256"] !== "string" || !Array.isArray(value["marks"])) {
    throw new ProtocolError(`${where} is no marked photograph`);
  }
  return value as unknown as MarkedPhoto;
}

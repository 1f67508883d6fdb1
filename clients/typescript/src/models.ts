/** What the service takes and answers, named; every type comes from its OpenAPI document. */

import type { components, operations } from "./openapi.js";

type Schemas = components["schemas"];

/** One photograph's answer. */
export type Result = Schemas["Result"];
/** A region of the map above the level of findings; coordinates are px of the photograph. */
export type Finding = Schemas["Finding"];
/** A healthy patch near to a finding's peak; `y` and `x` are its cell in the reference photo. */
export type Evidence = Schemas["Evidence"];
/** What went wrong (RFC 9457). */
export type Problem = Schemas["Problem"];
/** An index that is served. */
export type IndexSummary = Schemas["IndexSummary"];
/** An index with its versions and its manifest. */
export type IndexDetail = Schemas["IndexDetail"];
/** How an index was made, its calibration included. */
export type Manifest = Schemas["Manifest"];

type Given<Query> = { readonly [Name in keyof Query]?: Exclude<Query[Name], null> | undefined };

/** What every call takes. */
export interface CallOptions {
  /** Ends the call; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Query of `POST /v1/score`; what is left out is the service's choice. */
export interface ScoreOptions
  extends CallOptions, Given<NonNullable<operations["score"]["parameters"]["query"]>> {}

/** Query of `POST /v1/anomaly-map`. */
export interface MapOptions
  extends CallOptions, Given<Omit<NonNullable<operations["anomaly_map"]["parameters"]["query"]>, "style">> {}

/** A photograph: its file, or the bytes of it. */
export type Photo = Blob | ArrayBuffer | Uint8Array;

/** Whether the service can score now, and if not, why. */
export interface Readiness {
  readonly ready: boolean;
  readonly reason: string | null;
}

export const INTENDED_USE = "Research use only. Not for diagnosis.";

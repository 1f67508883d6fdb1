/** What the service takes and answers, named; every type comes from its OpenAPI document. */

import type { components, operations } from "./openapi.js";

type Schemas = components["schemas"];

/** One photograph's answer. */
export type Result = Schemas["Result"];
/** A region of the map above the level of findings; coordinates are px of the photograph. */
export type Finding = Schemas["Finding"];
/** A healthy patch near to a finding's peak, or an example of a lesion; `y` and `x` are its cell in that photo. */
export type Evidence = Schemas["Evidence"];
/** The kind of lesion that a finding resembles most, by what readers have marked; no diagnosis. */
export type Resemblance = Schemas["Resemblance"];
/** A region that a reader has marked; `contour` is empty where a mask was read. */
export type Mark = Schemas["Mark"];
/** A reader's marks on one photograph. */
export type MarkedPhoto = Schemas["MarkedPhoto"];
/** The journal of marks of an index, and the labels that marks may have. */
export type MarkList = Schemas["MarkList"];
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

/** A region to be marked: its label, and its outline in pixel indexes of the photograph, at least three points. */
export type NewMark = Pick<Mark, "label" | "contour">;

/** Of which index the marks are; not needed where the service has one, or a default. */
export interface MarksOptions
  extends CallOptions, Given<NonNullable<operations["marks"]["parameters"]["query"]>> {}

/** Query of `POST /v1/marks`, and who marks, beside the owner of the key. */
export interface MarkOptions extends MarksOptions {
  readonly reader?: string | undefined;
}

/** A photograph: its file, or the bytes of it. */
export type Photo = Blob | ArrayBuffer | Uint8Array;

/** Whether the service can score now, and if not, why. */
export interface Readiness {
  readonly ready: boolean;
  readonly reason: string | null;
}

export const INTENDED_USE = "Research use only. Not for diagnosis.";

/** Client of a ReSAD service.  Research use only, not for diagnosis. */

export * from "./client.js";
export * from "./errors.js";
export type { Refused, Wait } from "./exchange.js";
export { type AnomalyMap, type MapFile, type MapFormat, type PictureKind, readNpy } from "./maps.js";
export * from "./models.js";
export type { components, operations } from "./openapi.js";
export { PHOTO_SUFFIXES, mediaType } from "./photos.js";

/** Client of a ReSAD service.  Research use only, not for diagnosis. */
export * from "./client.js";
export * from "./errors.js";
export { readNpy } from "./maps.js";
export * from "./models.js";
export { PHOTO_SUFFIXES, mediaType } from "./photos.js";

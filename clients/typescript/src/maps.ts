/** Anomaly maps as they come. */

import { ProtocolError } from "./errors.js";

/** The formats of maps: 16-bit PNG on the absolute scale, float32 TIFF, or NumPy's own float32. */
export type MapFormat = "png" | "tiff" | "npy";

export const MAP_TYPES: Readonly<Record<MapFormat, string>> = {
  png: "image/png",
  tiff: "image/tiff",
  npy: "application/x-npy",
};

/** Of an overlay: to the last pixel, or much faster and smaller. */
export type PictureKind = "png" | "jpeg";

export const PICTURE_TYPES: Readonly<Record<PictureKind, string>> = { png: "image/png", jpeg: "image/jpeg" };

/** A map as a file. */
export interface MapFile {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly mediaType: string;
  /** NAME/VERSION of the index that answered. */
  readonly index: string;
  /** The distance that becomes 65535 in a PNG, and at which a viewer's scale should end. */
  readonly fullScale: number;
}

/** A map as numbers, in the photograph's frame. */
export interface AnomalyMap extends MapFile {
  readonly width: number;
  readonly height: number;
  /** Feature distances, row by row. */
  readonly values: Float32Array<ArrayBuffer>;
}

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // \x93NUMPY

/**
 * A float32 array of two dimensions from NumPy's file format (versions 1 to 3).
 *
 * @throws ProtocolError - for any other file.
 */
export function readNpy(bytes: Uint8Array<ArrayBuffer>): { width: number; height: number; values: Float32Array<ArrayBuffer> } {
  if (bytes.length < 12 || MAGIC.some((value, place) => bytes[place] !== value)) {
    throw new ProtocolError("not an NPY file");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const long = (bytes[6] ?? 1) > 1;
  const start = long ? 12 : 10;
  const end = start + (long ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder().decode(bytes.subarray(start, end));
  const shape = /'shape': \((\d+), (\d+)\)/.exec(header);
  if (!shape || !header.includes("'descr': '<f4'") || !header.includes("'fortran_order': False")) {
    throw new ProtocolError(`not a float32 map: ${header.trim()}`);
  }
  const [height, width] = [Number(shape[1]), Number(shape[2])];
  if (bytes.length !== end + 4 * width * height) throw new ProtocolError(`a map of ${height} x ${width} cut short`);
  // A copy, because a view needs a place in memory that is a multiple of 4.
  return { width, height, values: new Float32Array(bytes.slice(end).buffer) };
}

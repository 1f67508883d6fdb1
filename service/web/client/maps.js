/** Anomaly maps as they come. */
import { ProtocolError } from "./errors.js";
export const MAP_TYPES = {
    png: "image/png",
    tiff: "image/tiff",
    npy: "application/x-npy",
};
export const PICTURE_TYPES = { png: "image/png", jpeg: "image/jpeg" };
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // \x93NUMPY
/**
 * A float32 array of two dimensions from NumPy's file format (versions 1 to 3).
 *
 * @throws ProtocolError - for any other file.
 */
export function readNpy(bytes) {
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
    if (bytes.length !== end + 4 * width * height)
        throw new ProtocolError(`a map of ${height} x ${width} cut short`);
    // A copy, because a view needs a place in memory that is a multiple of 4.
    return { width, height, values: new Float32Array(bytes.slice(end).buffer) };
}

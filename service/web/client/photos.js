/** Which bytes are a photograph that the service takes. */
import { PhotoUnusable } from "./errors.js";
/** What is looked for in a folder, in lower case; any case is supported. */
export const PHOTO_SUFFIXES = [
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".jp2", ".j2k", ".ppm", ".pgm",
    ".pnm", ".dcm", ".dicom",
];
const SIGNATURES = [
    [[0xff, 0xd8, 0xff], "image/jpeg"],
    [[0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a], "image/png"],
    [[0x49, 0x49, 0x2a, 0], "image/tiff"],
    [[0x4d, 0x4d, 0, 0x2a], "image/tiff"],
    [[0x49, 0x49, 0x2b, 0], "image/tiff"], // BigTIFF
    [[0x4d, 0x4d, 0, 0x2b], "image/tiff"],
    [[0x42, 0x4d], "image/bmp"],
    [[0, 0, 0, 0x0c, 0x6a, 0x50, 0x20, 0x20, 0x0d, 0x0a, 0x87, 0x0a], "image/jp2"],
    [[0xff, 0x4f, 0xff, 0x51], "image/jp2"],
];
const PNM = /^P[1-6][ \t\r\n#]/;
const RIFF = [0x52, 0x49, 0x46, 0x46];
const WEBP = [0x57, 0x45, 0x42, 0x50];
const DICM = [0x44, 0x49, 0x43, 0x4d];
const DICM_PLACE = 128;
/** The media type that the first bytes of a file tell; null if it is none that the service takes. */
export function mediaType(head) {
    if (starts(head, RIFF) && starts(head.subarray(8), WEBP))
        return "image/webp";
    if (starts(head.subarray(DICM_PLACE), DICM))
        return "application/dicom";
    if (PNM.test(String.fromCharCode(...head.subarray(0, 3))))
        return "image/x-portable-anymap";
    return SIGNATURES.find(([signature]) => starts(head, signature))?.[1] ?? null;
}
/**
 * The photograph with its type, ready to be sent; a file's own name stays behind, as it may be a patient's.
 *
 * @throws PhotoUnusable - of a type that is not supported, or no longer there.
 */
export async function attachment(photo) {
    const file = photo instanceof Blob ? photo : new Blob([photo]);
    const type = mediaType(await headOf(file));
    if (type === null) {
        const what = file.size === 0 ? "the file is empty" : "file type not supported (supported are JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, PNM, DICOM)";
        throw new PhotoUnusable(what);
    }
    return file.slice(0, file.size, type);
}
async function headOf(file) {
    try {
        return new Uint8Array(await file.slice(0, DICM_PLACE + DICM.length).arrayBuffer());
    }
    catch (error) {
        throw new PhotoUnusable("the file cannot be read; was it moved or changed?", { cause: error });
    }
}
function starts(bytes, signature) {
    return signature.every((value, place) => bytes[place] === value);
}

// Answers as files of other programs, in the forms of `resad-client`; pure functions.

const COLUMNS = [
  "photo", "image_score", "p_value", "fpr", "threshold", "abnormal", "reason", "findings", "acceptable", "quality",
  "width", "height", "camera", "index", "version", "index_warnings", "same_as", "error",
];
const FORMULA = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
const NUMBER = /^[+-]?\d+(\.\d+)?([eE][+-]?\d+)?$/;
const FRAME = "px of the photo, x to the right, y down";

/**
 * One photograph's findings as a GeoJSON FeatureCollection (RFC 7946 but for the frame, which is no map's).
 *
 * Pixel (0, 0) covers [0, 1) x [0, 1): a contour goes through its pixels' centers, and a box ends where its last
 * pixel does.  Rings are counterclockwise in the numbers as they stand; with y down they look clockwise.
 */
export function geojson(photo, result) {
  const features = result.findings.map((finding) => feature(photo, finding));
  const { name, version, warnings = [] } = result.index;
  const index = { name, version, warnings: warnings.map(({ text }) => text) };
  return { type: "FeatureCollection", frame: FRAME, intended_use: result.intended_use, index, features };
}

function feature(photo, finding) {
  const ring = finding.contour.map(([x, y]) => [x + 0.5, y + 0.5]);
  const doubled = ring.reduce((sum, [x, y], place) => {
    const [u, v] = ring[(place + 1) % ring.length];
    return sum + x * v - u * y;
  }, 0);
  if (doubled < 0) ring.reverse();
  const { rank, peak, p_value, place, x, y, box, area_px, area_share } = finding;
  return {
    type: "Feature",
    id: rank,
    bbox: [box[0], box[1], box[2] + 1, box[3] + 1],
    geometry: { type: "Polygon", coordinates: [[...ring, ring[0]]] },
    properties: { photo, rank, peak, p_value, place, peak_at: [x + 0.5, y + 0.5], area_px, area_share },
  };
}

/** A row for each photograph that is done or failed, as CSV (RFC 4180 but for a line's end, a line feed). */
export function table(photos) {
  const rows = photos.filter(({ state }) => state === "done" || state === "failed").map(row);
  return [COLUMNS, ...rows].map((cells) => `${cells.map(cell).join(",")}\n`).join("");
}

function row({ name, result, error }) {
  if (!result) return [name, ...COLUMNS.slice(2).map(() => null), error.message];
  const { quality, photo, index } = result;
  return [
    name, result.image_score, result.p_value, result.fpr, result.threshold, result.abnormal, result.reason,
    result.findings.length, quality.acceptable, quality.reasons.join(";"), photo.width, photo.height,
    result.normals.camera, index.name, index.version,
    (index.warnings ?? []).map(({ code }) => code).join(";"), result.same_as?.photo ?? null, null,
  ];
}

/** A value as `csv_row` of `resad-client` writes it: text that a spreadsheet would take for a formula is quoted. */
function cell(value) {
  const plain = value == null ? "" : String(value);
  const formula = typeof value === "string" && FORMULA.test(plain) && !NUMBER.test(plain);
  const text = formula ? `'${plain}` : plain;
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, start) => {
  let value = start;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** A PNG with a text (Latin-1) after its header, by which `resad-client watch` knows an overlay; `bytes` is the file. */
export function withText(bytes, key, text) {
  const data = Uint8Array.from(`tEXt${key}\0${text}`, (letter) => letter.charCodeAt(0));
  const chunk = new Uint8Array(data.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length - 4);
  chunk.set(data, 4);
  view.setUint32(data.length + 4, crc(data));
  const header = 33; // signature and IHDR
  return new Blob([bytes.subarray(0, header), chunk, bytes.subarray(header)], { type: "image/png" });
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC_TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

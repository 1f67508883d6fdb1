// Answers as files of other programs; pure functions.

const COLUMNS = [
  "photo", "image_score", "p_value", "fpr", "threshold", "abnormal", "findings", "eye", "quality", "index", "version",
  "error",
];

/**
 * A GeoJSON FeatureCollection of a result's findings: polygons in px of the photograph, x to the right, y down.
 */
export function geojson(result, name) {
  const { photo, index } = result;
  return {
    type: "FeatureCollection",
    coordinates: "pixels of the photograph, x to the right, y down",
    photo: { name, width: photo.width, height: photo.height },
    index: { name: index.name, version: index.version, fingerprint: index.fingerprint },
    image_score: result.image_score,
    fpr: result.fpr,
    intended_use: result.intended_use,
    features: result.findings.map(({ contour, box, ...properties }) => ({
      type: "Feature",
      id: properties.rank,
      bbox: box,
      geometry: { type: "Polygon", coordinates: [[...contour, contour[0]]] },
      properties,
    })),
  };
}

/** The list as a table (RFC 4180), one line per photograph that is done or failed. */
export function table(photos) {
  const lines = photos.filter(({ state }) => state === "done" || state === "failed").map(line);
  return [COLUMNS.join(","), ...lines].map((one) => `${one}\r\n`).join("");
}

function line({ name, eye, result, error }) {
  const values = result
    ? [
        name, result.image_score, result.p_value, result.fpr, result.threshold, result.abnormal,
        result.findings.length, eye, result.quality.acceptable ? "acceptable" : result.quality.reasons.join(" "),
        result.index.name, result.index.version, null,
      ]
    : [name, null, null, null, null, null, null, eye, null, null, null, error.message];
  return values.map(cell).join(",");
}

function cell(value) {
  const text = value == null ? "" : String(value);
  // A spreadsheet would take a name that begins so for a formula.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

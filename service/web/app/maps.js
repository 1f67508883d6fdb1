// Anomaly maps of opened photographs, fetched once each.

import { guessedScale, lineDistances, scaleOf } from "./colors.js";
import { outline } from "./regions.js";

const LONGEST = 1024;
const DECODED = 8;

/** The maps of a service. */
export class Maps {
  #service;
  /** Of each photograph the last one; as a Blob, which a browser may keep on disk. */
  #kept = new WeakMap();
  #decoded = new Map();

  constructor(service) {
    this.#service = service;
  }

  /**
   * The map of a scored photograph, its numbers with the scale of its colors and the lines at fixed distances.
   *
   * `lines` are `{distance, d}`, as `outline` draws them: followed once, because no level moves them.  `scale.stated` is false where the index does not tell its calibration.  The map is at most 1024 px wide or
   * high: a patch of the grid is larger than its pixels.
   */
  get(photo) {
    const place = `${photo.id} ${photo.index} ${photo.answer.index.version}`;
    const map = this.#decoded.get(place) ?? this.#read(photo, photo.index, place);
    map.catch(() => this.#decoded.delete(place));
    this.#decoded.delete(place);
    this.#decoded.set(place, map);
    if (this.#decoded.size > DECODED) this.#decoded.delete(this.#decoded.keys().next().value);
    return map;
  }

  async #read(photo, index, place) {
    const kept = this.#kept.get(photo);
    if (kept?.place === place) return withLines({ ...kept.map, values: new Float32Array(await kept.blob.arrayBuffer()) });
    const { width, height, values, fullScale } = await this.#service.client.anomalyMap(photo.file, { index, size: LONGEST });
    const scale = photo.calibration
      ? { ...scaleOf(photo.calibration), stated: true }
      : { ...guessedScale(fullScale), stated: false };
    const map = { width, height, scale };
    this.#kept.set(photo, { place, map, blob: new Blob([values]) });
    return withLines({ ...map, values });
  }
}

const withLines = (map) => ({ ...map, lines: lineDistances(map.scale).map((distance) => ({ distance, d: outline(map, distance) })) });

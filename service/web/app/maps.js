// Anomaly maps of opened photographs, fetched once each; the last few are kept.

import { guessedScale, scaleOf } from "./colors.js";

const LONGEST = 1024;
const KEPT = 8;

/** The maps of a service. */
export class Maps {
  #service;
  #kept = new Map();

  constructor(service) {
    this.#service = service;
  }

  /**
   * The map of a scored photograph, its numbers with the scale of its colors.
   *
   * `scale.stated` is false where the index does not tell its calibration.  The map is at most 1024 px wide or
   * high: a patch of the grid is larger than its pixels.
   */
  get(photo) {
    const { name, version } = photo.result.index;
    const place = `${photo.id} ${name} ${version}`;
    const found = this.#kept.get(place) ?? this.#fetched(photo, name);
    found.catch(() => this.#kept.delete(place));
    this.#kept.delete(place);
    this.#kept.set(place, found);
    if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
    return found;
  }

  async #fetched(photo, index) {
    const map = await this.#service.client.anomalyMap(photo.file, { index, size: LONGEST });
    return { ...map, scale: await this.#scale(index, map.fullScale) };
  }

  async #scale(index, fullScale) {
    try {
      const { manifest } = await this.#service.detail(index);
      return { ...scaleOf(manifest.calibration), stated: true };
    } catch {
      return { ...guessedScale(fullScale), stated: false };
    }
  }
}

// The colors of anomaly maps on the index's absolute scale, as resad/pictures/overlay.py has them.

// Indigo to cyan: a retina has no blue, and every kind of color blindness leaves it.
const ANCHORS = [0x2c1fb0, 0x2e3df0, 0x2f6eff, 0x2f9cff, 0x46c6ff, 0x90eaff];
const COLORS = 256;
const LINES_AT = [0.5, 0.75];

/** (256, 4) RGBA from low to high, straight alpha: transparent at the low end, opaque at the high one. */
export const COLOR_TABLE = colorTable();

/**
 * float32 distances -> RGBA of the same raster; nothing up to `level` is shown.
 *
 * @param {{low: number, high: number}} scale - transparent from low down, strongest from high up.
 */
export function colorize(values, scale, level) {
  const pixels = new Uint8ClampedArray(4 * values.length);
  const [whole, table] = [new Uint32Array(pixels.buffer), new Uint32Array(COLOR_TABLE.buffer)];
  // Rounded to float32 after every step, as NumPy computes, so that the colors are the same to the bit.
  const { fround } = Math;
  const [low, range] = [fround(scale.low), fround(scale.high - scale.low)];
  for (let place = 0; place < values.length; place += 1) {
    const value = values[place];
    const share = value > level ? fround(fround(value - low) / range) : 0;
    const position = share <= 0 ? 0 : share >= 1 ? 1 : fround(Math.sqrt(share));
    const color = position <= 0 ? 0 : position >= 1 ? COLORS - 1 : evenlyRounded(fround(position * (COLORS - 1)));
    whole[place] = table[color];
  }
  return pixels;
}

/** Where a distance lies on the colors, from 0 on; the strongest is at 1. */
export const positionOf = ({ low, high }, distance) => Math.sqrt(Math.max(0, distance - low) / (high - low));

/** The distance at a position of the colors. */
export const distanceAt = ({ low, high }, position) => low + (high - low) * position ** 2;

/** The color of a distance as CSS. */
export function colorOf(scale, distance) {
  const color = 4 * Math.round((COLORS - 1) * Math.min(1, positionOf(scale, distance)));
  return `rgb(${COLOR_TABLE.slice(color, color + 3).join(", ")})`;
}

/** The distances along which lines are drawn, however the level is set. */
export const lineDistances = (scale) => LINES_AT.map((at) => distanceAt(scale, at));

/** The distances between which colors go from transparent to strongest, from an index's calibration. */
export function scaleOf(calibration) {
  const low = calibration.patches.find(({ at }) => at === 0.75);
  return { low: low.value, high: 2 * calibration.patches.at(-1).value };
}

/** Where an index does not tell its calibration: the file's scale ends where the colors do. */
export const guessedScale = (fullScale) => ({ low: fullScale / 8, high: fullScale });

function colorTable() {
  const table = new Uint8Array(4 * COLORS);
  for (let color = 0; color < COLORS; color += 1) {
    const position = color / (COLORS - 1);
    const at = position * (ANCHORS.length - 1);
    const anchor = Math.min(Math.floor(at), ANCHORS.length - 2);
    for (const [channel, shift] of [16, 8, 0].entries()) {
      const from = (ANCHORS[anchor] >> shift) & 255;
      const to = (ANCHORS[anchor + 1] >> shift) & 255;
      table[4 * color + channel] = evenlyRounded(from + (to - from) * (at - anchor));
    }
    table[4 * color + 3] = evenlyRounded(255 * position);
  }
  return table;
}

/** A half goes to the even neighbor, as in NumPy. */
function evenlyRounded(value) {
  const floor = Math.floor(value);
  const half = value - floor === 0.5;
  return half ? floor + (floor & 1) : Math.round(value);
}

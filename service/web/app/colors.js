// The colors of anomaly maps on the index's absolute scale, as resad/pictures/overlay.py has them.

// The upper two thirds of viridis (S. van der Walt and N. Smith, 2015, CC0) at equal steps.
const VIRIDIS = [0x31688e, 0x26828e, 0x1f9e89, 0x35b779, 0x6dcd59, 0xb4de2c, 0xfde725];
const COLORS = 256;

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
    const position = value > level ? fround(fround(value - low) / range) : 0;
    const color = position <= 0 ? 0 : position >= 1 ? COLORS - 1 : evenlyRounded(fround(position * (COLORS - 1)));
    whole[place] = table[color];
  }
  return pixels;
}

/** The distances between which colors go from transparent to strongest, from an index's calibration. */
export function scaleOf(calibration) {
  const low = calibration.patches.find(({ at }) => at === 0.75);
  return { low: low.value, high: calibration.patches.at(-1).value };
}

/** Where an index does not tell its calibration: the file's scale ends at twice the highest normal patch. */
export const guessedScale = (fullScale) => ({ low: fullScale / 4, high: fullScale / 2 });

function colorTable() {
  const table = new Uint8Array(4 * COLORS);
  for (let color = 0; color < COLORS; color += 1) {
    const position = color / (COLORS - 1);
    const at = position * (VIRIDIS.length - 1);
    const anchor = Math.min(Math.floor(at), VIRIDIS.length - 2);
    for (const [channel, shift] of [16, 8, 0].entries()) {
      const from = (VIRIDIS[anchor] >> shift) & 255;
      const to = (VIRIDIS[anchor + 1] >> shift) & 255;
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

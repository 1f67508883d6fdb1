// Contrast-limited adaptive histogram equalization (Zuiderveld 1994) of a photograph; pure functions.

const TILES = 8; // across and down
const CLIP = 2.5; // so many times the mean count of a bin are kept of each
const BINS = 256;

/**
 * RGBA of `width` x `height` with its lightness equalized, or with `redFree` its green channel alone, as gray.
 *
 * Colors keep their ratios: each channel is scaled as the lightness is.
 */
export function enhanced(pixels, width, height, redFree) {
  const count = width * height;
  const gray = new Uint8Array(count);
  for (let place = 0; place < count; place += 1) {
    const [red, green, blue] = [pixels[4 * place], pixels[4 * place + 1], pixels[4 * place + 2]];
    gray[place] = redFree ? green : Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  }
  const equal = equalized(gray, width, height);
  const made = new Uint8ClampedArray(4 * count);
  for (let place = 0; place < count; place += 1) {
    const factor = equal[place] / Math.max(1, gray[place]);
    for (let channel = 0; channel < 3; channel += 1) {
      made[4 * place + channel] = redFree ? equal[place] : pixels[4 * place + channel] * factor;
    }
    made[4 * place + 3] = 255;
  }
  return made;
}

/** uint8 of `width` x `height` -> the same, each pixel mapped between the four nearest tiles' equalizations. */
export function equalized(gray, width, height) {
  const maps = tileMaps(gray, width, height);
  const made = new Uint8Array(gray.length);
  const columns = places(width);
  const rows = places(height);
  for (let y = 0; y < height; y += 1) {
    const [top, bottom, down] = rows[y];
    for (let x = 0; x < width; x += 1) {
      const [left, right, across] = columns[x];
      const value = gray[y * width + x];
      const at = (row, column) => maps[(row * TILES + column) * BINS + value];
      const above = at(top, left) * (1 - across) + at(top, right) * across;
      const below = at(bottom, left) * (1 - across) + at(bottom, right) * across;
      made[y * width + x] = Math.round(above * (1 - down) + below * down);
    }
  }
  return made;
}

/** For each of `length` places the tiles before and after it, and how far it is from the first to the second center. */
function places(length) {
  return Array.from({ length }, (_, place) => {
    const at = Math.min(Math.max(((place + 0.5) * TILES) / length - 0.5, 0), TILES - 1);
    const first = Math.min(Math.floor(at), TILES - 2);
    return [first, first + 1, at - first];
  });
}

/** The equalization of each tile, 256 values each: its clipped histogram's running sum. */
function tileMaps(gray, width, height) {
  const maps = new Float32Array(TILES * TILES * BINS);
  for (let row = 0; row < TILES; row += 1) {
    const [top, bottom] = [Math.floor((row * height) / TILES), Math.floor(((row + 1) * height) / TILES)];
    for (let column = 0; column < TILES; column += 1) {
      const [left, right] = [Math.floor((column * width) / TILES), Math.floor(((column + 1) * width) / TILES)];
      const counts = new Float64Array(BINS);
      for (let y = top; y < bottom; y += 1) for (let x = left; x < right; x += 1) counts[gray[y * width + x]] += 1;
      const area = Math.max(1, (bottom - top) * (right - left));
      const limit = Math.max(1, (CLIP * area) / BINS);
      const excess = counts.reduce((sum, count) => sum + Math.max(0, count - limit), 0) / BINS;
      let sum = 0;
      for (let bin = 0; bin < BINS; bin += 1) {
        sum += Math.min(counts[bin], limit) + excess;
        maps[(row * TILES + column) * BINS + bin] = (255 * sum) / area;
      }
    }
  }
  return maps;
}

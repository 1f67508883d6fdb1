// What of a map lies above a level.

/**
 * The 8-connected regions strictly above `level`: how many, and their pixels altogether.
 *
 * @param {{values: Float32Array, width: number, height: number}} map
 */
export function regionsAbove({ values, width, height }, level) {
  const seen = new Uint8Array(values.length);
  const stack = new Int32Array(values.length);
  let [count, pixels] = [0, 0];
  for (let start = 0; start < values.length; start += 1) {
    if (values[start] <= level || seen[start]) continue;
    count += 1;
    seen[start] = 1;
    stack[0] = start;
    for (let top = 1; top > 0; ) {
      top -= 1;
      const place = stack[top];
      pixels += 1;
      const x = place % width;
      const y = (place - x) / width;
      const [right, bottom] = [Math.min(width - 1, x + 1), Math.min(height - 1, y + 1)];
      for (let row = Math.max(0, y - 1); row <= bottom; row += 1) {
        for (let near = row * width + Math.max(0, x - 1); near <= row * width + right; near += 1) {
          if (values[near] <= level || seen[near]) continue;
          seen[near] = 1;
          stack[top] = near;
          top += 1;
        }
      }
    }
  }
  return { count, pixels };
}

/**
 * The line around everything above `level`, as the `d` of an SVG path in the map's own pixels: marching squares
 * between pixels' centers, crossings found by linear interpolation.
 */
export function outline({ values, width, height }, level) {
  const parts = [];
  for (let y = 0; y + 1 < height; y += 1) {
    for (let x = 0; x + 1 < width; x += 1) {
      const place = y * width + x;
      const [a, b] = [values[place] > level, values[place + 1] > level];
      const [d, c] = [values[place + width] > level, values[place + width + 1] > level];
      if (a === b && b === c && c === d) continue;
      const corners = [values[place], values[place + 1], values[place + width + 1], values[place + width]];
      parts.push(...segments(x + 0.5, y + 0.5, corners, level));
    }
  }
  return parts.join("");
}

/** The one or two pieces of the line between four pixels' centers, whose first lies at x, y. */
function segments(x, y, [a, b, c, d], level) {
  const cut = (from, to) => (level - from) / (to - from);
  const points = [];
  if (a > level !== b > level) points.push(`${near(x + cut(a, b))} ${y}`);
  if (b > level !== c > level) points.push(`${x + 1} ${near(y + cut(b, c))}`);
  if (d > level !== c > level) points.push(`${near(x + cut(d, c))} ${y + 1}`);
  if (a > level !== d > level) points.push(`${x} ${near(y + cut(a, d))}`);
  // Of a saddle's four crossings those are joined that keep the two high corners in one region.
  if (points.length === 4 && b > level) points.push(points.shift());
  const pieces = [`M${points[0]}L${points[1]}`];
  return points.length === 4 ? [...pieces, `M${points[2]}L${points[3]}`] : pieces;
}

const near = (value) => Math.round(100 * value) / 100;

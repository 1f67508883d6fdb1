// What of a map lies above a level.

/**
 * The 8-connected regions strictly above `level`: how many, and their pixels altogether.
 *
 * @param {{values: Float32Array, width: number, height: number}} map
 */
export function regionsAbove({ values, width, height }, level) {
  const seen = new Uint8Array(values.length);
  const stack = [];
  let [count, pixels] = [0, 0];
  for (let start = 0; start < values.length; start += 1) {
    if (seen[start] || values[start] <= level) continue;
    count += 1;
    seen[start] = 1;
    stack.push(start);
    while (stack.length) {
      const place = stack.pop();
      pixels += 1;
      const [x, y] = [place % width, Math.floor(place / width)];
      for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row += 1) {
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column += 1) {
          const near = row * width + column;
          if (!seen[near] && values[near] > level) {
            seen[near] = 1;
            stack.push(near);
          }
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
  const cut = (low, high) => (level - low) / (high - low);
  for (let y = 0; y + 1 < height; y += 1) {
    for (let x = 0; x + 1 < width; x += 1) {
      const place = y * width + x;
      const [a, b, c, d] = [values[place], values[place + 1], values[place + width + 1], values[place + width]];
      const corners = (a > level) + 2 * (b > level) + 4 * (c > level) + 8 * (d > level);
      if (corners === 0 || corners === 15) continue;
      const points = [];
      if (a > level !== b > level) points.push([x + cut(a, b), y]);
      if (b > level !== c > level) points.push([x + 1, y + cut(b, c)]);
      if (d > level !== c > level) points.push([x + cut(d, c), y + 1]);
      if (a > level !== d > level) points.push([x, y + cut(a, d)]);
      // Of a saddle's four crossings neighbors are joined so that the two high corners stay one region.
      if (corners === 10) points.push(points.shift());
      for (let end = 0; end + 1 < points.length; end += 2) parts.push(segment(points[end], points[end + 1]));
    }
  }
  return parts.join("");
}

const near = (value) => (value + 0.5).toFixed(2);

const segment = ([x, y], [toX, toY]) => `M${near(x)} ${near(y)}L${near(toX)} ${near(toY)}`;

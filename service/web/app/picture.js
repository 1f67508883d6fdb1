// A picture that stands alone: the photograph, its map, and in words what it shows, with the research notice.

import { COLOR_TABLE, colorOf, colorize, distanceAt, positionOf } from "./colors.js";
import { counted, doubt, four, pValue, verdict } from "./text.js";

const [SMALLEST, LARGEST] = [1024, 2048]; // longer side of the photograph, px
const GROUND = "#111111";
const WORDS = "#f0f0f0";
const QUIET = "#a6a6a6";
const TINT = 0.25;

/** What a picture says of a photograph, line by line: what resad/pictures/overlay.py writes, and the rate, which can be set here. */
export function caption(name, result) {
  const { image_score: score, p_value: p, normals, index, findings } = result;
  const why = doubt(result);
  const doubtful = findings.filter(({ doubts }) => doubts?.length).length;
  const how = [
    `${verdict(result)}${why && ` (doubtful: ${why})`}, image score ${four(score)}${p === null ? "" : `, p ${pValue(p)}`}`,
    `, compared with ${counted(normals.photos, "healthy photograph")} at a rate of ${result.fpr}`,
    `; ${counted(findings.length, "finding")}${doubtful ? `, ${doubtful} of them doubtful (dashed)` : ""}`,
  ];
  const warnings = (index.warnings ?? []).map(({ text }) => `index: ${text}`);
  return [name, how.join(""), `index ${index.name}, version ${index.version}`, ...warnings];
}

/**
 * A canvas with the picture.
 *
 * @param picture - the photograph, as an image or a bitmap.
 * @param map - its map; null for the photograph alone, without colors.
 * @param words - whether the caption and the notice are written around it.
 */
export function standAlone({ name, result }, picture, map, words = true) {
  const { width, height } = result.photo;
  const longest = Math.min(Math.max(width, height, SMALLEST), LARGEST);
  const scale = longest / Math.max(width, height);
  const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
  const text = Math.round(longest / 60);
  const canvas = document.createElement("canvas");
  const paper = canvas.getContext("2d");
  const font = `${text}px sans-serif`;
  const bar = map ? 7 * text : 0;
  paper.font = font;
  const room = wide + bar - 2 * text;
  const above = words ? caption(name, result).flatMap((line) => wrapped(paper, line, room)) : [];
  const below = words ? wrapped(paper, result.intended_use, room) : [];
  const [top, pitch] = [above.length * 1.5 * text + (words ? text : 0), 1.5 * text];
  Object.assign(canvas, { width: wide + bar, height: Math.ceil(top + high + below.length * pitch + (words ? text : 0)) });
  paper.fillStyle = GROUND;
  paper.fillRect(0, 0, canvas.width, canvas.height);
  paper.imageSmoothingQuality = "high";
  paper.drawImage(picture, 0, top, wide, high);
  paper.font = font;
  paper.textBaseline = "middle";
  paper.fillStyle = WORDS;
  above.forEach((line, row) => paper.fillText(line, text / 2, (row + 0.5) * pitch + text / 2));
  below.forEach((line, row) => paper.fillText(line, text / 2, top + high + (row + 0.5) * pitch + text / 2));
  if (!map) return canvas;
  paper.save();
  paper.translate(0, top);
  drawMap(paper, map, result, wide, high);
  paper.restore();
  drawBar(paper, map.scale, result.normals.finding_level, { left: wide + text, top, high, text });
  return canvas;
}

/** Tint, lines inside findings, and the findings' outlines. */
function drawMap(paper, map, result, wide, high) {
  const { width, height, values, scale, lines } = map;
  const tint = new OffscreenCanvas(width, height);
  tint.getContext("2d").putImageData(new ImageData(colorize(values, scale, scale.low), width, height), 0, 0);
  paper.globalAlpha = TINT;
  paper.drawImage(tint, 0, 0, wide, high);
  paper.globalAlpha = 1;
  const thickness = Math.max(wide, high) / 600;
  const across = wide / result.photo.width;
  paper.lineJoin = "round";
  const least = result.normals.finding_level ?? scale.low;
  for (const { distance, d } of lines.filter((line) => line.distance >= least)) {
    const path = new Path2D();
    path.addPath(new Path2D(d), new DOMMatrix([wide / width, 0, 0, high / height, 0, 0]));
    stroke(paper, path, colorOf(scale, distance), 0.7 * thickness);
  }
  for (const { contour, peak, doubts } of result.findings) {
    const path = new Path2D();
    contour.forEach(([x, y], place) => path[place ? "lineTo" : "moveTo"]((x + 0.5) * across, (y + 0.5) * across));
    path.closePath();
    paper.setLineDash(doubts?.length ? [3 * thickness, 3 * thickness] : []);
    stroke(paper, path, colorOf(scale, peak), thickness);
  }
  paper.setLineDash([]);
}

function stroke(paper, path, color, width) {
  for (const [style, wider] of [["#000000", 2.4], [color, 1]]) {
    paper.strokeStyle = style;
    paper.lineWidth = wider * width;
    paper.stroke(path);
  }
}

/** The colors from the highest distance down, with numbers and the level of findings. */
function drawBar(paper, scale, level, { left, top, high, text }) {
  const [start, length] = [top + 2.4 * text, high - 3.4 * text];
  for (let row = 0; row < length; row += 1) {
    const color = 4 * Math.round(255 * (1 - row / length));
    paper.fillStyle = `rgb(${COLOR_TABLE.slice(color, color + 3).join(", ")})`;
    paper.fillRect(left, start + row, text, 1.5);
  }
  paper.fillStyle = QUIET;
  paper.fillText("distance", left, top + text);
  const marks = [1, 0, 0.5, 0.75, 0.25].map((at) => ({ at, words: four(distanceAt(scale, at)) }));
  if (level !== null) marks.unshift({ at: Math.min(1, positionOf(scale, level)), words: `${four(level)} findings` });
  const shown = [];
  for (const mark of marks) {
    if (shown.some(({ at }) => Math.abs(at - mark.at) * length < 1.5 * text)) continue;
    shown.push(mark);
    const y = start + (1 - mark.at) * length;
    paper.fillStyle = mark.words.endsWith("findings") ? WORDS : QUIET;
    paper.fillRect(left, y - 1, 1.4 * text, 2);
    mark.words.split(" ").forEach((word, row) => paper.fillText(word, left + 1.7 * text, y + 1.2 * row * text));
  }
}

/** The lines of a text that is no wider than `room`; words that are wider are broken. */
function wrapped(paper, text, room) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const longer = lines.at(-1) && `${lines.at(-1)} ${word}`;
    if (longer && paper.measureText(longer).width <= room) {
      lines[lines.length - 1] = longer;
      continue;
    }
    if (lines.at(-1)) lines.push("");
    for (const letter of word) {
      if (lines.at(-1) && paper.measureText(lines.at(-1) + letter).width > room) lines.push("");
      lines[lines.length - 1] += letter;
    }
  }
  return lines.filter(Boolean);
}

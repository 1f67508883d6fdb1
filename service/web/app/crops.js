// What a photograph shows around a finding, cut as the service cuts its crops of healthy patches.

import { element } from "./dom.js";

const CONTEXT = 96; // side of a crop, px of the prepared square
const MARGIN = 4; // between the patch and the frame that marks it, px of the prepared square
const SIDE = 192;

/**
 * A canvas with the surroundings of the patch under a finding's peak, the patch framed; empty where the browser
 * cannot show the photograph.
 *
 * @param manifest - of the index, for the sizes of its square and grid; null where it is not told.
 */
export function ownCrop(finding, photo, image, manifest) {
  const canvas = element("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": "The finding in this photograph" });
  if (!image) return canvas;
  const { left, top, across, down } = prepared(photo, manifest);
  const side = manifest?.config.preparation.size ?? 512;
  const [rows, columns] = manifest?.counts.grid ?? [side / 16, side / 16];
  const cell = (at, start, length, count) =>
    Math.min(Math.max(Math.floor(((at + 0.5 - start) * count) / length), 0), count - 1);
  const [row, column] = [cell(finding.y, top, down, rows), cell(finding.x, left, across, columns)];
  const [wide, high] = [(CONTEXT * across) / side, (CONTEXT * down) / side];
  const [x, y] = [left + ((column + 0.5) * across) / columns, top + ((row + 0.5) * down) / rows];

  const paper = canvas.getContext("2d");
  paper.imageSmoothingQuality = "high";
  paper.drawImage(image, x - wide / 2, y - high / 2, wide, high, 0, 0, SIDE, SIDE);
  if (manifest) frame(paper, side / columns, side / rows);
  return canvas;
}

/** What the prepared square covers of the photograph, px of the photograph. */
export function prepared({ width, height, field_of_view: disc, square }, manifest) {
  if (square) {
    const [left, top, right, bottom] = square;
    return { left, top, across: right - left, down: bottom - top };
  }
  if (manifest?.config.preparation.crop === "none") return { left: 0, top: 0, across: width, down: height };
  const across = disc ? 2 * disc.radius : Math.max(width, height);
  const [x, y] = disc ? [disc.cx, disc.cy] : [width / 2, height / 2];
  return { left: x - across / 2, top: y - across / 2, across, down: across };
}

/** A bright line around the patch, with dark ones beside it. */
function frame(paper, width, height) {
  const scale = SIDE / CONTEXT;
  const [wide, high] = [(width + 2 * MARGIN) * scale, (height + 2 * MARGIN) * scale];
  for (const [line, color] of [[3, "#000000"], [1, "#ffffff"]]) {
    paper.lineWidth = line;
    paper.strokeStyle = color;
    paper.strokeRect((SIDE - wide) / 2, (SIDE - high) / 2, wide, high);
  }
}

// Equalizes photographs beside the page, which stays at hand meanwhile.

import { enhanced } from "./enhance.js";

addEventListener("message", ({ data: { id, panes, picture, redFree } }) => {
  const { width, height } = picture;
  const canvas = new OffscreenCanvas(width, height);
  const paper = canvas.getContext("2d");
  paper.drawImage(picture, 0, 0);
  picture.close();
  const pixels = enhanced(paper.getImageData(0, 0, width, height).data, width, height, redFree);
  paper.putImageData(new ImageData(pixels, width, height), 0, 0);
  const made = canvas.transferToImageBitmap();
  postMessage({ id, panes, picture: made }, { transfer: [made] });
});

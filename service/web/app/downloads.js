// Files of the open photograph's answer.

import { element, save } from "./dom.js";
import { geojson, withText } from "./exports.js";
import { group } from "./facts.js";
import { standAlone } from "./picture.js";
import { printReport } from "./report.js";
import { fault } from "./text.js";

/** The buttons.  The page draws overlays itself; only the map at the photograph's own size is asked of the service. */
export function downloads(photo, store, service, maps) {
  const { result, file, name } = photo;
  const stem = name.split("/").at(-1).replace(/\.[^.]*$/, "");
  const remark = element("p", { class: "quiet", role: "status" });
  const { index } = photo;
  const json = (value, type) => new Blob([JSON.stringify(value, null, 2)], { type });
  const bytes = ({ bytes: data, mediaType }) => new Blob([data], { type: mediaType });

  const files = [
    ["Report (print or PDF)", "", () => printReport(photo, store.photos, maps, service)],
    ["Result (JSON)", ".json", () => json(result, "application/json")],
    ["Findings (GeoJSON)", ".geojson", () => json(geojson(name, result), "application/geo+json")],
    ["Overlay (PNG)", "_overlay.png", () => overlay(photo, service, maps)],
    ["Map (TIFF)", "_map.tiff", async () => bytes(await service.client.anomalyMap(file, { index, format: "tiff" }))],
  ];
  const buttons = files.map(([text, ending, made]) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", async () => {
      button.disabled = true;
      remark.textContent = "";
      try {
        const blob = await made();
        if (blob) save(blob, stem + ending);
      } catch (error) {
        if (!service.met(error)) remark.textContent = `${text}: ${fault(error)}`;
        else remark.textContent = `${text}: the service does not answer now.`;
      }
      button.disabled = false;
    });
    return button;
  });
  return group("Download", element("div", { class: "downloads" }, ...buttons), remark);
}

/** Drawn from what the page has; a format that the browser cannot show is drawn by the service. */
async function overlay(photo, service, maps) {
  const { result, file, index } = photo;
  const picture = await createImageBitmap(file).catch(() => null);
  if (!picture) {
    const asScored = { index, fpr: result.fpr, false_regions: result.normals.false_regions ?? undefined };
    const { bytes, mediaType } = await service.client.overlay(file, asScored);
    return new Blob([bytes], { type: mediaType });
  }
  const canvas = standAlone(photo, picture, await maps.get(photo));
  picture.close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return withText(new Uint8Array(await blob.arrayBuffer()), "resad:intended_use", result.intended_use);
}

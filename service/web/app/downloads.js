// Files of the open photograph's answer.

import { element, save } from "./dom.js";
import { geojson } from "./exports.js";
import { group } from "./facts.js";
import { fault } from "./text.js";

/** The buttons; pictures and maps are asked of the service when they are wanted. */
export function downloads(photo, service) {
  const { result, file, name } = photo;
  const stem = name.split("/").at(-1).replace(/\.[^.]*$/, "");
  const remark = element("p", { class: "quiet", role: "status" });
  const index = result.index.name;
  const asScored = { index, fpr: result.fpr, false_regions: result.normals.false_regions ?? undefined };
  const json = (value, type) => new Blob([JSON.stringify(value, null, 2)], { type });
  const bytes = ({ bytes: data, mediaType }) => new Blob([data], { type: mediaType });

  const files = [
    ["Result (JSON)", ".json", () => json(result, "application/json")],
    ["Findings (GeoJSON)", ".geojson", () => json(geojson(name, result), "application/geo+json")],
    ["Overlay (PNG)", "_overlay.png", async () => bytes(await service.client.overlay(file, asScored))],
    ["Map (TIFF)", "_map.tiff", async () => bytes(await service.client.anomalyMap(file, { index, format: "tiff" }))],
  ];
  const buttons = files.map(([text, ending, made]) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", async () => {
      button.disabled = true;
      remark.textContent = "";
      try {
        save(await made(), stem + ending);
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

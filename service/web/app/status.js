// How the service is, in the header and in a banner, and which indexes may be chosen.

import { byId, element } from "./dom.js";
import { answers } from "./service.js";

const USUAL_FALSE_REGIONS = 0.25; // the service's own choice
const WORDS = {
  checking: "Connecting",
  ready: "Ready",
  starting: "Not ready",
  gone: "No answer",
  key: "Key needed",
};

/** Shows the service's state; `askForKey` opens the dialog again. */
export function showStatus(store, service, askForKey) {
  const tell = () => {
    const chip = byId("service");
    chip.dataset.state = service.state;
    chip.textContent = WORDS[service.state];
    const banner = byId("banner");
    const text = bannerText(service);
    banner.hidden = !text;
    banner.dataset.state = service.state;
    const again = service.state === "key" && element("button", { type: "button", onclick: askForKey }, "Enter a key");
    banner.replaceChildren(...[text, again].filter(Boolean));
  };

  const offer = () => {
    const select = byId("index");
    const { indexes } = service;
    select.replaceChildren(
      ...indexes.map(({ name, state, photos }) => {
        const about = answers({ state }) ? (photos === null ? "" : ` (${photos} photos)`) : `, ${state}`;
        return element("option", { value: name, disabled: !answers({ state }) }, `${name}${about}`);
      }),
    );
    const serving = indexes.filter(answers);
    const kept = serving.find(({ name }) => name === store.settings.index);
    const first = kept ?? serving.find((index) => index.default) ?? serving[0];
    if (first) select.value = first.name;
    if (first && first.name !== store.settings.index) store.set({ index: first.name });
  };

  service.addEventListener("state", tell);
  service.addEventListener("indexes", offer);
  service.addEventListener("indexes", () => offerRates(store, service));
  byId("false-regions").addEventListener("change", ({ target }) => store.set({ falseRegions: Number(target.value) }));
  byId("index").addEventListener("change", ({ target }) => {
    store.set({ index: target.value });
    offerRates(store, service);
  });
  byId("fpr").addEventListener("change", ({ target }) => store.set({ fpr: Number(target.value) }));
  byId("eye").addEventListener("change", ({ target }) => store.set({ eye: target.value }));
  tell();
}

/** The rates of findings that the chosen index states levels for; hidden where it states none. */
async function offerRates(store, service) {
  const { index } = store.settings;
  if (index === null) return;
  const manifest = await service.detail(index).then((detail) => detail.manifest, () => null);
  if (index !== store.settings.index) return;
  const levels = manifest?.calibration.finding_levels ?? [];
  const select = byId("false-regions");
  select.parentElement.hidden = levels.length === 0;
  select.replaceChildren(
    ...levels.map(({ rate, value }) => {
      const about = value === null ? ": no level" : "";
      return element("option", { value: rate, disabled: value === null }, `${rate}${about}`);
    }),
  );
  const kept = levels.some(({ rate, value }) => rate === store.settings.falseRegions && value !== null);
  select.value = String(kept ? store.settings.falseRegions : USUAL_FALSE_REGIONS);
  if (manifest && !kept && store.settings.falseRegions !== null) store.set({ falseRegions: null });
}

function bannerText({ state, reason }) {
  if (state === "gone") return "The service does not answer. Photographs wait here; it is asked again every two seconds.";
  if (state === "starting") return `The service is not ready yet${reason ? ` (${reason})` : ""}. Photographs wait until it is.`;
  if (state === "key") return "The service asks for a key before it scores photographs.";
  if (state === "ready" && reason) return `Not every index answers: ${reason}`;
  return "";
}

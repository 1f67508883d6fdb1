// How the service is, in the header and in a banner, and which indexes may be chosen.

import { byId, element } from "./dom.js";
import { USUAL_FALSE_REGIONS, normalsNeeded, ratesFor } from "./judgement.js";
import { answers } from "./service.js";
import { percent } from "./text.js";

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
        const about = answers({ state }) ? (photos === null ? "" : ` (${photos} ${photos === 1 ? "photo" : "photos"})`) : `, ${state}`;
        return element("option", { value: name, disabled: !answers({ state }) }, `${name}${about}`);
      }),
    );
    const serving = indexes.filter(answers);
    const kept = serving.find(({ name }) => name === store.settings.index);
    const first = kept ?? serving.find((index) => index.default) ?? serving[0];
    if (first) select.value = first.name;
    const { index, version } = store.settings;
    if (first && (first.name !== index || first.version !== version)) store.set({ index: first.name, version: first.version });
  };

  service.addEventListener("state", tell);
  service.addEventListener("indexes", offer);
  service.addEventListener("indexes", () => offerRates(store, service));
  byId("false-regions").addEventListener("change", ({ target }) => store.set({ falseRegions: Number(target.value) }));
  byId("index").addEventListener("change", ({ target }) => {
    const { version } = service.indexes.find(({ name }) => name === target.value);
    store.set({ index: target.value, version });
    offerRates(store, service);
  });
  byId("fpr").addEventListener("change", ({ target }) => store.set({ fpr: Number(target.value) }));
  byId("eye").addEventListener("change", ({ target }) => store.set({ eye: target.value }));
  tell();
}

/** The rates of verdicts that the chosen index has photographs for, and those of findings that it states levels for. */
async function offerRates(store, service) {
  const { index } = store.settings;
  if (index === null) return;
  const manifest = await service.detail(index).then((detail) => detail.manifest, () => null);
  if (index !== store.settings.index) return;
  offerVerdictRates(store, manifest?.calibration.scores.length ?? null);
  tellWarnings(index, service);
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

/** normals: how many healthy photographs the index has scores of; null where it is not told. */
function offerVerdictRates(store, normals) {
  const select = byId("fpr");
  const rates = normals === null ? [0.05] : ratesFor(normals);
  const { fpr } = store.settings;
  select.replaceChildren(...rates.map((rate) => element("option", { value: rate }, percent(rate))));
  if (!rates.length) select.append(element("option", { value: fpr }, "none: too few healthy photographs"));
  select.disabled = !rates.length;
  const lower = normals !== null && [0.01, 0.02, 0.05].find((rate) => normalsNeeded(rate) > normals);
  select.title = lower ? `${percent(lower)} would need ${normalsNeeded(lower)} healthy photographs; the index has ${normals}` : "";
  const kept = rates.includes(fpr) || !rates.length ? fpr : (rates.find((rate) => rate >= fpr) ?? rates.at(-1));
  select.value = String(kept);
  if (kept !== fpr) store.set({ fpr: kept });
}

/** What makes the chosen index's verdicts doubtful. */
function tellWarnings(name, service) {
  const warnings = service.indexes.find((index) => index.name === name)?.warnings ?? [];
  const box = byId("index-warnings");
  box.hidden = !warnings.length;
  box.replaceChildren(...warnings.map(({ text }) => element("p", {}, element("strong", {}, `Index ${name}: `), text)));
}

function bannerText({ state, reason }) {
  if (state === "gone") return "The service does not answer. Photographs wait here; it is asked again every two seconds.";
  if (state === "starting") return `The service is not ready yet${reason ? ` (${reason})` : ""}. Photographs wait until it is.`;
  if (state === "key") return "The service asks for a key before it scores photographs.";
  if (state === "ready" && reason) return `Not every index answers: ${reason}`;
  return "";
}

// What is said of the open photograph, beside it.

import { byId, element } from "./dom.js";
import { downloads } from "./downloads.js";
import { indexFacts, qualityFacts, verdictCard } from "./facts.js";
import { findingsList } from "./findings.js";
import { fault } from "./text.js";

/** Shows the open photograph's answer, or why there is none. */
export function showDetails(store, service, stage) {
  const box = byId("details");
  let shown = null;

  const fill = () => {
    const photo = store.opened;
    box.hidden = !photo;
    const state = photo && [photo, photo.state, photo.result, photo.error];
    if (shown && state && state.every((part, place) => part === shown[place])) return;
    shown = state;
    if (!photo) return;
    box.setAttribute("aria-busy", String(photo.state !== "done" && photo.state !== "failed"));
    if (photo.result) {
      box.replaceChildren(
        verdictCard(photo.result, service),
        findingsList(photo, store, service, stage),
        qualityFacts(photo.result),
        indexFacts(photo.result, service),
        downloads(photo, service),
      );
    } else if (photo.state === "failed") {
      box.replaceChildren(failure(photo, store));
    } else {
      box.replaceChildren(element("p", { class: "quiet pending" }, pending(photo)));
    }
  };

  store.addEventListener("opened", fill);
  store.addEventListener("photo", ({ detail }) => detail === store.opened && fill());
}

function pending({ state }) {
  return { waiting: "Not scored yet.", scoring: "Scoring.", busy: "The service's queue is full. It is asked again." }[state];
}

function failure(photo, store) {
  const { error } = photo;
  return element(
    "section",
    { class: "card failure", role: "alert" },
    element("h2", {}, "This photograph was not scored"),
    element("p", {}, fault(error)),
    error.requestId && element("p", { class: "quiet" }, `For the operator: request ${error.requestId}`),
    element(
      "p",
      { class: "choose" },
      element("button", { type: "button", onclick: () => store.again([photo]) }, "Try again"),
      element("button", { type: "button", onclick: () => store.remove([photo]) }, "Remove"),
    ),
  );
}

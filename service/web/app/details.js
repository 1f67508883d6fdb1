// What is said of the open photograph, beside it.

import { byId, element } from "./dom.js";
import { downloads } from "./downloads.js";
import { indexFacts, qualityFacts, verdictCard } from "./facts.js";
import { findingsList } from "./findings.js";
import { marksGroup } from "./marking.js";
import { eyeByDisc } from "./places.js";
import { copyWords, fault } from "./text.js";

/** Shows the open photograph's answer, or why there is none. */
export function showDetails(store, service, stage, maps, marks) {
  const box = byId("details");
  let shown = null;

  const fill = () => {
    const photo = store.opened;
    box.hidden = !photo;
    const outdated = photo && store.outdated(photo);
    const state = photo && [photo, photo.state, photo.result, photo.error, photo.eye, outdated];
    if (shown && state && state.every((part, place) => part === shown[place])) return;
    shown = state;
    if (!photo) return;
    box.setAttribute("aria-busy", String(photo.state !== "done" && photo.state !== "failed"));
    if (photo.result && photo.state !== "failed") {
      box.replaceChildren(
        ...remarks(photo, store, outdated),
        verdictCard(photo.result, service),
        findingsList(photo, store, service, stage, marks),
        marksGroup(photo, marks, stage),
        qualityFacts(photo.result),
        indexFacts(photo.result, service),
        downloads(photo, store, service, maps),
      );
    } else if (photo.state === "failed") {
      box.replaceChildren(failure(photo, store));
    } else {
      box.replaceChildren(element("p", { class: "quiet pending" }, pending(photo)));
    }
  };

  store.addEventListener("opened", fill);
  store.addEventListener("photo", ({ detail }) => detail === store.opened && fill());
  store.addEventListener("settings", fill);
}

/** What must be known before the answer is read. */
function remarks(photo, store, outdated) {
  const eye = eyeByDisc(photo.result.photo);
  const made = [];
  if (photo.state !== "done") made.push(element("p", { class: "card pending-again", role: "status" }, `${pending(photo)} Below is the answer before.`));
  else if (outdated) {
    made.push(
      element(
        "section",
        { class: "card outdated", role: "status" },
        element("p", {}, `This answer is ${outdated}, not as set above. It stays until the photograph is scored again, for which it is sent again.`),
        element("button", { type: "button", id: "rescore-one", onclick: () => store.again([photo]) }, "Score again"),
      ),
    );
  }
  if (photo.result.same_as) {
    made.push(element("p", { class: "card questioned", role: "status" }, `${copyWords(photo.result.same_as)}: compared with itself, its score may be too low.`));
  }
  if (photo.eye && eye && eye !== photo.eye) {
    made.push(element("p", { class: "card questioned", role: "status" }, `Set as the ${photo.eye} eye, but its optic disc lies as in a ${eye} one. Nasal and temporal are wrong if the setting is.`));
  }
  return made;
}

function pending({ state }) {
  return { waiting: "Waiting to be scored.", scoring: "Scoring.", busy: "The service has no place or no time now. It is asked again." }[state];
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

// Scores the photographs that wait, a few at a time, the open one first.

const AT_ONCE = 4;
const EVIDENCE = 5; // with the finding itself two rows of three

/** Begins; needs nothing more than the store's and the service's events. */
export function startQueue(store, service) {
  const running = new Set();
  // Where the service runs out of time, fewer are sent at once; with every answer one more.
  let atOnce = AT_ONCE;

  const next = () => {
    if (service.state !== "ready") return null;
    if (store.opened?.state === "waiting") return store.opened;
    return store.photos.find((photo) => photo.state === "waiting") ?? null;
  };

  const fill = () => {
    for (let photo = next(); photo && running.size < atOnce; photo = next()) {
      const { signal } = photo.ended;
      let ended = false;
      // While one that took too long waits, another may have its place.
      const late = (seconds) => {
        atOnce = Math.max(1, Math.floor(atOnce / 2));
        running.delete(signal);
        setTimeout(() => ended || running.add(signal), 1000 * seconds);
        setTimeout(fill);
      };
      running.add(signal);
      scored(photo, store, service, late).then((answered) => {
        ended = true;
        running.delete(signal);
        if (answered) atOnce = Math.min(AT_ONCE, atOnce + 1);
        fill();
      });
    }
  };

  store.addEventListener("list", fill);
  service.addEventListener("state", fill);
}

/** Whether the service answered. */
async function scored(photo, store, service, late) {
  const { signal } = photo.ended;
  const { index, fpr, falseRegions } = store.settings;
  service.whenBusy(signal, (seconds, passed) => {
    const why = passed ? "the service ran out of time" : "queue full";
    store.change(photo, { state: "busy", note: `${why}, asking again in ${Math.max(1, Math.round(seconds))} s` });
    if (passed) late(seconds);
  });
  store.change(photo, { state: "scoring", note: "" });
  try {
    // Without the eye: what it changes are words, which the page finds itself.
    const options = {
      index: index ?? undefined, fpr, false_regions: falseRegions ?? undefined, evidence: EVIDENCE, signal,
    };
    const answer = await service.client.score(photo.file, options);
    const asked = index ?? answer.index.name;
    const calibration = await service.calibration(asked, answer.index.version);
    if (!signal.aborted) store.answered(photo, answer, asked, calibration);
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    // Nothing is wrong with the photograph: it waits until the service is back.
    if (service.met(error)) store.change(photo, { state: "waiting", note: "" });
    else store.change(photo, { state: "failed", note: "", error });
    return false;
  }
}

// Scores the photographs that wait, a few at a time, the open one first.

const AT_ONCE = 4;
const EVIDENCE = 5; // with the finding itself two rows of three

/** Begins; needs nothing more than the store's and the service's events. */
export function startQueue(store, service) {
  let running = 0;

  const next = () => {
    if (service.state !== "ready") return null;
    if (store.opened?.state === "waiting") return store.opened;
    return store.photos.find((photo) => photo.state === "waiting") ?? null;
  };

  const fill = () => {
    for (let photo = next(); photo && running < AT_ONCE; photo = next()) {
      running += 1;
      scored(photo, store, service).finally(() => {
        running -= 1;
        fill();
      });
    }
  };

  store.addEventListener("list", fill);
  service.addEventListener("state", fill);
}

async function scored(photo, store, service) {
  const { signal } = photo.ended;
  const { index, fpr, falseRegions } = store.settings;
  service.whenBusy(signal, (seconds) => {
    store.change(photo, { state: "busy", note: `queue full, asking again in ${Math.max(1, Math.round(seconds))} s` });
  });
  store.change(photo, { state: "scoring", note: "" });
  try {
    const options = {
      index: index ?? undefined,
      fpr,
      false_regions: falseRegions ?? undefined,
      eye: photo.eye || undefined,
      evidence: EVIDENCE,
      signal,
    };
    const result = await service.client.score(photo.file, options);
    if (!signal.aborted) store.change(photo, { state: "done", note: "", result });
  } catch (error) {
    if (signal.aborted) return;
    // Nothing is wrong with the photograph: it waits until the service is back.
    if (service.met(error)) store.change(photo, { state: "waiting", note: "" });
    else store.change(photo, { state: "failed", note: "", error });
  }
}

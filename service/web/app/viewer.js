// The open photograph: its states, its map, and the controls below it.

import { byId, press } from "./dom.js";
import { LevelControl } from "./level.js";
import { Stage } from "./stage.js";
import { capital, fault } from "./text.js";

/** Connects the viewer's elements; gives back its stage. */
export function showOpened(store, service, maps) {
  const stageElement = byId("stage");
  const stage = new Stage(
    stageElement,
    (zoom) => (byId("zoom-text").textContent = `${Math.round(100 * zoom)} %`),
    (rank) => store.choose(rank),
  );
  const shown = { map: true, outlines: true };
  let [token, map] = [0, null];
  const level = new LevelControl((value, edge) => stage.map(shown.map ? map : null, value, edge));

  const note = (text) => (byId("stage-note").textContent = text);

  const open = async () => {
    const [photo, mine] = [store.opened, (token += 1)];
    byId("empty").hidden = Boolean(photo);
    byId("open").hidden = !photo;
    map = null;
    level.show(null, null);
    stage.map(null);
    stage.findings([]);
    if (!photo) return;
    byId("open-name").textContent = photo.name;
    byId("open-name").title = photo.name;
    const size = await stage.picture(photo.address);
    if (mine !== token) return;
    if (size) stage.size(size.width, size.height);
    await update();
  };

  const update = async () => {
    const [photo, mine] = [store.opened, token];
    if (!photo) return;
    for (const button of byId("open-eye").children) press(button, button.dataset.eye === photo.eye);
    const { result } = photo;
    stage.findings(result && shown.outlines ? result.findings : []);
    if (!result) {
      note(waitingText(photo, service));
      return;
    }
    if (!stage.image) stage.size(result.photo.width, result.photo.height);
    stage.findings(shown.outlines ? result.findings : []);
    stage.bringOut(store.finding, "chosen");
    if (map?.of === result.index.version && map.photo === photo) {
      level.show(map, result);
      return;
    }
    note("Fetching the map");
    try {
      const found = await maps.get(photo, {});
      if (mine !== token || photo.result !== result) return;
      map = { ...found, of: result.index.version, photo };
      note(stage.image ? "" : "This browser cannot show the photograph's format; its map is shown alone.");
      level.show(map, result);
    } catch (error) {
      if (mine === token && !service.met(error)) note(`No map. ${fault(error)}`);
    }
  };

  const redraw = () => {
    press(byId("map-shown"), shown.map);
    press(byId("outlines-shown"), shown.outlines);
    stage.findings(shown.outlines ? (store.opened?.result?.findings ?? []) : []);
    stage.bringOut(store.finding, "chosen");
    level.draw();
  };
  const toggle = (name) => {
    shown[name] = !shown[name];
    redraw();
  };
  const sideBySide = () => {
    const both = byId("side").getAttribute("aria-pressed") !== "true";
    press(byId("side"), both);
    stage.sideBySide(both);
  };
  const chosen = () => {
    stage.bringOut(store.finding, "chosen");
    const finding = store.opened?.result?.findings.find(({ rank }) => rank === store.finding);
    if (finding) stage.motion.reveal(finding.box);
  };
  const step = (by) => {
    const count = store.opened?.result?.findings.length ?? 0;
    if (count) store.choose(((store.finding ?? (by > 0 ? 0 : 1)) - 1 + by + count) % count + 1);
  };

  store.addEventListener("opened", open);
  store.addEventListener("finding", chosen);
  store.addEventListener("photo", ({ detail }) => detail === store.opened && update());
  service.addEventListener("state", () => store.opened && !store.opened.result && update());
  service.addEventListener("state", () => service.state === "ready" && store.opened?.result && !map && update());
  byId("map-shown").addEventListener("click", () => toggle("map"));
  byId("outlines-shown").addEventListener("click", () => toggle("outlines"));
  byId("side").addEventListener("click", sideBySide);
  byId("opacity").addEventListener("input", ({ target }) => stage.opacity(target.value / 100));
  byId("zoom-in").addEventListener("click", () => stage.motion.step(1));
  byId("zoom-out").addEventListener("click", () => stage.motion.step(-1));
  byId("zoom-fit").addEventListener("click", () => stage.motion.fit());
  for (const button of byId("open-eye").children) {
    button.addEventListener("click", () => {
      const photo = store.opened;
      photo.eye = photo.eye === button.dataset.eye ? "" : button.dataset.eye;
      store.again([photo]);
    });
  }
  stage.opacity(byId("opacity").value / 100);

  const keys = {
    "+": () => stage.motion.step(1), "=": () => stage.motion.step(1), "-": () => stage.motion.step(-1),
    "0": () => stage.motion.fit(), m: () => toggle("map"), o: () => toggle("outlines"), s: sideBySide,
    n: () => step(1), p: () => step(-1), Escape: () => byId("photos").focus(),
    ArrowLeft: () => stage.motion.pan(-1, 0), ArrowRight: () => stage.motion.pan(1, 0),
    ArrowUp: () => stage.motion.pan(0, -1), ArrowDown: () => stage.motion.pan(0, 1),
  };
  stageElement.addEventListener("keydown", (event) => {
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  return stage;
}

function waitingText(photo, service) {
  if (photo.state === "failed") return "Not scored";
  if (photo.state === "busy") return capital(photo.note);
  if (photo.state === "scoring") return "Scoring";
  return service.state === "ready" ? "Waiting for its turn" : "Waiting for the service";
}

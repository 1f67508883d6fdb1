// Buttons, sliders and keys of the open photograph.

import { byId } from "./dom.js";

/** Connects them to the viewer. */
export function connectControls(viewer, store) {
  const { stage } = viewer;
  const { motion } = stage;
  const clicks = {
    "map-shown": () => viewer.toggle("map"),
    "outlines-shown": () => viewer.toggle("outlines"),
    "side": () => viewer.toggleSides(),
    "zoom-in": () => motion.step(1),
    "zoom-out": () => motion.step(-1),
    "zoom-fit": () => motion.fit(),
  };
  for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);

  const fade = () => stage.opacity(byId("opacity").value / 100);
  byId("opacity").addEventListener("input", fade);
  fade();

  for (const button of byId("open-eye").children) {
    button.addEventListener("click", () => {
      const photo = store.opened;
      photo.eye = photo.eye === button.dataset.eye ? "" : button.dataset.eye;
      store.again([photo]);
    });
  }
  connectKeys(viewer, clicks);
}

/** Single letters act on the photograph alone, while it has the focus, so that they are in nobody's way. */
function connectKeys(viewer, clicks) {
  const { motion } = viewer.stage;
  const keys = {
    "+": clicks["zoom-in"],
    "=": clicks["zoom-in"],
    "-": clicks["zoom-out"],
    "0": clicks["zoom-fit"],
    m: clicks["map-shown"],
    o: clicks["outlines-shown"],
    s: clicks.side,
    n: () => viewer.stepFinding(1),
    p: () => viewer.stepFinding(-1),
    Escape: () => byId("photos").focus(),
    ArrowLeft: () => motion.pan(-1, 0),
    ArrowRight: () => motion.pan(1, 0),
    ArrowUp: () => motion.pan(0, -1),
    ArrowDown: () => motion.pan(0, 1),
  };
  byId("stage").addEventListener("keydown", (event) => {
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
}

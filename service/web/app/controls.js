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
      store.setEye(photo, photo.eye === button.dataset.eye ? "" : button.dataset.eye);
    });
  }
  connectKeys(viewer, clicks);
}

/** Single letters act on the photograph alone, while it has the focus, so that they are in nobody's way. */
function connectKeys(viewer, clicks) {
  const { look, measure, region, stage: { motion } } = viewer;
  const tool = () => [measure, region].find(({ on }) => on);
  const arrow = (right, down) => (event) => {
    if (tool()) tool().nudge(right, down, event.shiftKey);
    else motion.pan(right, down);
  };
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
    r: () => look.toggle("redFree"),
    c: () => look.toggle("clahe"),
    "[": () => look.step("brightness", -1),
    "]": () => look.step("brightness", 1),
    "{": () => look.step("contrast", -1),
    "}": () => look.step("contrast", 1),
    d: () => measure.toggle(),
    a: () => region.toggle(),
    Enter: () => tool()?.mark(),
    Escape: () => (tool() ? tool().cancel() : byId("photos").focus()),
    ArrowLeft: arrow(-1, 0),
    ArrowRight: arrow(1, 0),
    ArrowUp: arrow(0, -1),
    ArrowDown: arrow(0, 1),
  };
  byId("stage").addEventListener("keydown", (event) => {
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(event);
  });
}

// The verdict on a photograph, and the doubt about it beside it: by words, a mark and an edge, not by color alone.

import { element } from "./dom.js";
import { closeness } from "./judgement.js";
import { doubt, verdict } from "./text.js";

/** Shows in `badge` what the answer says, whether that is close to the threshold, and whether it may be trusted. */
export function showVerdict(badge, result) {
  const [word, why, close] = [verdict(result), doubt(result), closeness(result)];
  badge.dataset.verdict = word;
  badge.toggleAttribute("data-doubtful", Boolean(why));
  badge.toggleAttribute("data-close", Boolean(close));
  badge.title = [why && `Doubtful: ${why}`, close].filter(Boolean).join("; ");
  const parts = [why ? `${word}?` : word];
  if (close) parts.push(", close", element("span", { class: "unseen" }, ` (${close})`));
  if (why) parts.push(element("span", { class: "unseen" }, ` doubtful: ${why}`));
  badge.replaceChildren(...parts);
}

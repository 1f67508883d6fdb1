// The verdict on a photograph, and the doubt about it beside it: by a mark, a dashed edge and words, not by color alone.

import { element } from "./dom.js";
import { doubt, verdict } from "./text.js";

/** Shows in `badge` what the answer says, and whether that may be trusted. */
export function showVerdict(badge, result) {
  const [word, why] = [verdict(result), doubt(result)];
  badge.dataset.verdict = word;
  badge.toggleAttribute("data-doubtful", Boolean(why));
  badge.title = why && `Doubtful: ${why}`;
  badge.replaceChildren(...(why ? [`${word}?`, element("span", { class: "unseen" }, ` doubtful: ${why}`)] : [word]));
}

// Which photographs belong together, by their names: the eyes and visits of one patient, as `resad-client report` has it.

const EYES = { od: "right", os: "left", r: "right", l: "left", re: "right", le: "left", right: "right", left: "left" };
const TIME = "(?:[-_T ]?(?:[01]\\d|2[0-3])[-_.:]?[0-5]\\d[-_.:]?[0-5]\\d)?(?!\\d)";
const [MONTH, DAY] = ["(0[1-9]|1[0-2])", "(0[1-9]|[12]\\d|3[01])"];
const YEAR_FIRST = new RegExp(`(?<!\\d)((?:19|20)\\d\\d)([-_.]?)${MONTH}\\2${DAY}${TIME}`);
const DAY_FIRST = new RegExp(`(?<!\\d)${DAY}([-_.])${MONTH}\\2((?:19|20)\\d\\d)${TIME}`);
const VISIT = /(?<![\p{L}\p{N}])(?:(?:visit|v)[-_ .]?(\d{1,3})|(baseline)|follow[-_ ]?up[-_ .]?(\d{0,3}))(?![\p{L}\p{N}])/iu;

/** What a path says: `eye` and `visit`, "" where nothing, and `rest`, its words without these. */
export function nameParts(path) {
  let [text, visit] = [path.replace(/\.[^./]*$/, ""), ""];
  const [year, day] = [YEAR_FIRST.exec(text), DAY_FIRST.exec(text)];
  if (year) [visit, text] = [`${year[1]}-${year[3]}-${year[4]}`, text.replace(year[0], " ")];
  else if (day) [visit, text] = [`${day[4]}-${day[3]}-${day[1]}`, text.replace(day[0], " ")];
  const words = text.match(/[\p{L}\p{N}]+/gu) ?? [];
  const eyes = new Set(words.map((word) => EYES[word.toLowerCase()]).filter(Boolean));
  let rest = words.filter((word) => !EYES[word.toLowerCase()]).join(" ");
  const match = visit ? null : VISIT.exec(rest);
  if (match) {
    visit = match[1] ? `visit ${Number(match[1])}` : match[2] ? "baseline" : `follow-up ${match[3]}`.trim();
    rest = rest.replace(match[0], " ").split(/\s+/).filter(Boolean).join(" ");
  }
  // Two words for different eyes say nothing.
  return { rest, visit, eye: eyes.size === 1 ? [...eyes][0] : "" };
}

/** The photographs of the same patient as `photo`, itself among them, by visit, right eyes first. */
export function together(photo, photos) {
  const parts = nameParts(photo.name);
  const belongs = (name) => {
    const { rest, eye, visit } = nameParts(name);
    return (parts.eye || parts.visit) && (eye || visit) && rest.toLowerCase() === parts.rest.toLowerCase();
  };
  const order = ({ name, eye: stated }) => {
    const { visit, eye } = nameParts(name);
    return `${visit} ${{ right: 0, left: 1 }[stated || eye] ?? 2} ${name}`;
  };
  return photos
    .filter(({ name, id }) => id === photo.id || belongs(name))
    .sort((one, another) => order(one).localeCompare(order(another), "en", { numeric: true }));
}

// Which photographs belong together, by their names: the eyes and visits of one patient.

const WORD = /[\s_\-.()[\]]+/;
const EYES = { od: "right", os: "left", r: "right", l: "left", re: "right", le: "left", right: "right", left: "left" };
const FULL_DATE = /((?:19|20)\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)/;

/** Patient, eye and date of a file name, "" for what it does not say; words that tell eye or date are not the patient. */
export function told(name) {
  const path = name.replace(/\.[^./]*$/, "");
  const date = FULL_DATE.exec(path);
  const words = path.replace(FULL_DATE, " ").split("/").map((part) => part.split(WORD).filter(Boolean));
  const last = words.at(-1);
  const eyes = last.map((word) => EYES[word.toLowerCase()]).filter(Boolean);
  const visit = last.find((word) => /^(?:visit|v|baseline|followup|fu)\d*$/i.test(word)) ?? "";
  const rest = last.filter((word) => !EYES[word.toLowerCase()] && word !== visit);
  const folder = words.slice(0, -1).map((part) => part.join(" ")).filter(Boolean).join("/");
  const sure = eyes.length > 0 || Boolean(date) || Boolean(visit);
  return {
    // A name that tells neither eye nor date is a patient's own, whatever it looks like.
    patient: sure ? [folder, rest.join(" ")].filter(Boolean).join("/") : path,
    eye: eyes.length === 1 ? eyes[0] : "",
    date: date ? date.slice(1).join("-") : visit,
  };
}

/** The photographs of the same patient as `photo`, itself among them, right eyes first and then by date. */
export function together(photo, photos) {
  const { patient } = told(photo.name);
  const order = ({ name, eye }) => `${{ right: 0, left: 1 }[eye || told(name).eye] ?? 2} ${told(name).date} ${name}`;
  return photos
    .filter(({ name, id }) => id === photo.id || (patient && told(name).patient === patient))
    .sort((one, another) => order(one).localeCompare(order(another), "en", { numeric: true }));
}

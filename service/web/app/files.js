// Files and folders from the pickers and from drops.

import { PHOTO_SUFFIXES } from "../client/index.js";
import { byId } from "./dom.js";

/** Connects the pickers and the whole window to `take`, which gets `{file, name}` in order of their names. */
export function takeFiles(take) {
  const [files, folder] = [byId("files"), byId("folder")];
  for (const [button, input] of [
    ["add-files", files], ["choose-files", files], ["add-folder", folder], ["choose-folder", folder],
  ]) {
    byId(button).addEventListener("click", () => input.click());
  }
  files.addEventListener("change", () => {
    take([...files.files].map((file) => ({ file, name: file.name })));
    files.value = "";
  });
  folder.addEventListener("change", () => {
    const found = [...folder.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
    take(sorted(found.filter(({ name }) => isPhoto(name))));
    folder.value = "";
  });
  takeDrops(take);
}

function takeDrops(take) {
  let inside = 0;
  const show = (change) => {
    inside = Math.max(0, inside + change);
    document.body.toggleAttribute("data-dropping", inside > 0);
  };
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => holdsFiles(event) && show(1));
  addEventListener("dragleave", (event) => holdsFiles(event) && show(-1));
  addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  addEventListener("drop", async (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    show(-Infinity);
    take(await dropped(event.dataTransfer));
  });
}

/** What was dropped: files as they are, of folders the photographs in them. */
async function dropped(transfer) {
  // The entries are to be had during the event alone.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, name: file.name }));
  const found = [];
  for (const entry of entries) {
    if (entry.isDirectory) found.push(...sorted(await photosIn(entry)));
    else found.push({ file: await fileOf(entry), name: entry.name });
  }
  return found;
}

async function photosIn(folder) {
  const reader = folder.createReader();
  const found = [];
  // A reader gives a hundred entries at a time, and none at the end.
  for (let some; (some = await new Promise((good, bad) => reader.readEntries(good, bad))).length; ) {
    for (const entry of some) {
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory) found.push(...(await photosIn(entry)));
      else if (isPhoto(entry.name)) found.push({ file: await fileOf(entry), name: entry.fullPath.slice(1) });
    }
  }
  return found;
}

const fileOf = (entry) => new Promise((good, bad) => entry.file(good, bad));

const sorted = (found) => found.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));

function isPhoto(path) {
  const name = path.split("/").at(-1).toLowerCase();
  return !name.startsWith(".") && PHOTO_SUFFIXES.some((suffix) => name.endsWith(suffix));
}

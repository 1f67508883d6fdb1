// The page, put together.

import { connectControls } from "./controls.js";
import { showDetails } from "./details.js";
import { askForKeys, offerHelp } from "./dialogs.js";
import { takeFiles } from "./files.js";
import { showList } from "./list.js";
import { Maps } from "./maps.js";
import { Marks } from "./marks.js";
import { startQueue } from "./queue.js";
import { Service } from "./service.js";
import { showStatus } from "./status.js";
import { Store } from "./store.js";
import { Viewer } from "./viewer.js";

const store = new Store();
const service = new Service();
const maps = new Maps(service);
const marks = new Marks(store, service);
const viewer = new Viewer(store, service, maps, marks);
connectControls(viewer, store);
showList(store);
showDetails(store, service, viewer.stage, maps, marks);
showStatus(store, service, askForKeys(service));
offerHelp();
startQueue(store, service);
takeFiles((files) => files.length && store.add(files));
service.look();

// A tab that is closed forgets what it has not scored yet.
addEventListener("beforeunload", (event) => {
  if (store.photos.some(({ state }) => state !== "done" && state !== "failed")) event.preventDefault();
});

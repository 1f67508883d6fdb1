// The page, put together.

import { showDetails } from "./details.js";
import { askForKeys, offerHelp } from "./dialogs.js";
import { takeFiles } from "./files.js";
import { showList } from "./list.js";
import { Maps } from "./maps.js";
import { startQueue } from "./queue.js";
import { Service } from "./service.js";
import { showStatus } from "./status.js";
import { Store } from "./store.js";
import { showOpened } from "./viewer.js";

const store = new Store();
const service = new Service();
const stage = showOpened(store, service, new Maps(service));
showList(store);
showDetails(store, service, stage);
showStatus(store, service, askForKeys(service));
offerHelp();
startQueue(store, service);
takeFiles((files) => files.length && store.add(files));
service.look();

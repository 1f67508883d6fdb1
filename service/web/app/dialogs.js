// The dialogs: the key that the service asks for, and the help.

import { byId } from "./dom.js";

/** Asks for a key whenever the service wants one; gives back what opens the dialog by hand. */
export function askForKeys(service) {
  const [dialog, key, faultText] = [byId("key-dialog"), byId("key"), byId("key-fault")];
  let tried = false;

  const ask = () => {
    if (dialog.open) return;
    faultText.textContent = tried ? "That key was not accepted." : "";
    key.value = "";
    dialog.showModal();
    key.focus();
  };
  const asked = () => {
    byId("forget").hidden = !service.hasKey;
    if (service.state === "key") ask();
    else if (service.state === "ready") tried = false;
  };

  dialog.querySelector("form").addEventListener("submit", async (event) => {
    if (event.submitter?.value === "cancel") return;
    event.preventDefault();
    try {
      tried = true;
      const looked = service.useKey(key.value.trim());
      dialog.close();
      await looked;
      asked();
    } catch (error) {
      faultText.textContent = error.message;
    }
  });
  byId("forget").addEventListener("click", async () => {
    tried = false;
    await service.useKey(null);
    asked();
  });
  service.addEventListener("state", asked);
  asked();
  return ask;
}

/** The help opens from its button. */
export function offerHelp() {
  byId("help-open").addEventListener("click", () => byId("help").showModal());
}

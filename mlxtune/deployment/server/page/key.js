/* The key of the server: asked of the user where it is needed, kept for this tab alone. */

import { hideAlert } from "/page/alerts.js";
import { byId } from "/page/elements.js";
import { loadKey, saveKey } from "/page/store.js";

let key = loadKey();

/** The key, or "" for none. */
export const currentKey = () => key;

/** Shows the field; `then` is called when the user gave a key. */
export function askForKey(then) {
  byId("key-form").hidden = false;
  byId("key").value = "";
  byId("key").focus();
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    key = byId("key").value.trim();
    saveKey(key);
    byId("key-form").hidden = true;
    hideAlert();
    then();
  };
}

export function forgetKey() {
  key = "";
  saveKey("");
}

/* The one line that the user has to know before all else. Each has a reason, and goes when that is gone. */

import { byId } from "/page/elements.js";

let reason = null;

export function showAlert(why, text) {
  reason = why;
  if (byId("alert").textContent !== text) byId("alert").textContent = text;
  byId("alert").hidden = false;
}

/** Takes the alert away, if it is there for `why`. */
export function hideAlert(why) {
  if (reason !== why) return;
  reason = null;
  byId("alert").hidden = true;
  byId("alert").textContent = "";
}

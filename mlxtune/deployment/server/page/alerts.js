/* What the user has to know before all else, with the one thing to do about it. */

import { byId, button, element } from "/page/elements.js";

/** One alert at a time; the button labelled `label` takes it away and does `action`. */
export function showAlert(text, label, action) {
  const act = button(label, () => {
    hideAlert();
    action();
  });
  byId("alerts").replaceChildren(element("div", { className: "note bar between" }, element("span", {}, text), act));
}

export function hideAlert() {
  byId("alerts").replaceChildren();
}

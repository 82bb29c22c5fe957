/* Where the user writes: Enter sends, Shift-Enter breaks the line, Escape stops, Up in an empty field edits the last message.
 *
 * While an answer comes one can write on; Enter then sends nothing, and what was written stays.
 */

import { byId } from "/page/elements.js";

/** Wires the field; `actions` are `send(text)`, `stop()`, `editLast()`, `kept()`, `isBusy()`. Returns `{showBusy(busy)}`. */
export function wireComposer(state, actions) {
  const field = byId("prompt");
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`; // and its borders; the style sheet sets the most
  };
  const send = () => {
    const text = field.value;
    if (text.trim() === "" || actions.isBusy()) return;
    field.value = state.draft = "";
    grow();
    actions.send(text);
  };
  field.value = state.draft;
  grow();
  field.addEventListener("input", () => {
    state.draft = field.value;
    grow();
    actions.kept();
  });
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter takes a suggestion of the input method
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && field.value === "") {
      event.preventDefault();
      actions.editLast();
    }
  });
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("stop-button").addEventListener("click", actions.stop);
  document.addEventListener("keydown", (event) => {
    const elsewhere = document.querySelector("dialog:modal, [popover]:popover-open");
    if (event.key === "Escape" && !elsewhere) actions.stop();
  });
  return {
    showBusy(busy) {
      const held = document.activeElement;
      byId("send").hidden = busy;
      byId("stop-button").hidden = !busy;
      if (held === byId("send") || held === byId("stop-button")) field.focus();
    },
  };
}

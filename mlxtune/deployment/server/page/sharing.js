/* Taking things out of the page: the request as curl or Python, the conversation as a file. */

import { byId } from "/page/elements.js";
import { asJson, asMarkdown, saveFile } from "/page/exports.js";
import { requestFor } from "/page/requests.js";
import { asCurl, asPython } from "/page/snippets.js";

const GREETING = "Hello";

/** What would be sent next: the draft after all that was said, else the last message again, else a greeting. */
function nextRequest(state, settings) {
  const { draft, exchanges, model } = state;
  if (draft.trim()) return requestFor(state, settings, model, draft, exchanges);
  return requestFor(state, settings, model, exchanges.at(-1)?.prompt ?? GREETING, exchanges.slice(0, -1));
}

/** Wires the menu. Returns `{copy(text, done)}`. */
export function wireSharing(state, settings) {
  const copy = async (text, done) => {
    try {
      await navigator.clipboard.writeText(text);
      byId("status").textContent = done;
    } catch {
      copyByHand(text); // refused, or not there: a page that came over plain http from another machine has no clipboard
    }
  };
  const menu = (id, action) => byId(id).addEventListener("click", () => {
    byId("more").hidePopover();
    action();
  });
  const snippet = (write) => write(nextRequest(state, settings), location.origin, settings.key_needed);
  const name = (ending) => `chat-${state.model.replace(/[^\w.-]+/g, "_")}.${ending}`;
  menu("copy-curl", () => copy(snippet(asCurl), "Copied as curl."));
  menu("copy-python", () => copy(snippet(asPython), "Copied as Python."));
  menu("save-json", () => saveFile(name("json"), "application/json", asJson(state, settings)));
  menu("save-markdown", () => saveFile(name("md"), "text/markdown", asMarkdown(state, settings)));
  return { copy };
}

function copyByHand(text) {
  byId("snippet-text").value = text;
  byId("snippet").showModal();
  byId("snippet-text").focus();
  byId("snippet-text").select();
}

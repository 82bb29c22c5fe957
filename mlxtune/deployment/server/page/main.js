/* The page: asks the server what there is, brings back what the tab has kept, and ties everything together. */

import { hideAlert, showAlert } from "/page/alerts.js";
import { Chat } from "/page/chat.js";
import { showChoice, wireChoice } from "/page/choice.js";
import { wireComposer } from "/page/composer.js";
import { Drawing } from "/page/drawing.js";
import { byId, element } from "/page/elements.js";
import { askForKey, currentKey, forgetKey } from "/page/key.js";
import { wirePanel } from "/page/panel.js";
import { defaultSampling, modelOf } from "/page/requests.js";
import { getSettings } from "/page/server.js";
import { wireSharing } from "/page/sharing.js";
import * as store from "/page/store.js";

const SAVE_MS = 500;

/** The state of a page that was never used, and over it whatever of `kept` fits what the server serves. */
function startingState(settings, kept) {
  const others = settings.models.filter((model) => model.id !== settings.default);
  const beside = others.find((model) => model.id === "base") ?? others[0];
  const fresh = {
    model: settings.default, other: beside?.id ?? settings.default, compare: false, system: null,
    sampling: defaultSampling(), probabilities: false, differences: true, draft: "", exchanges: [],
  };
  const state = { ...fresh, ...kept };
  if (state.sampling.max_tokens > settings.max_tokens) state.sampling.max_tokens = null; // kept of another server
  for (const name of ["model", "other"]) if (!modelOf(settings, state[name])) state[name] = fresh[name];
  if (settings.models.length < 2) state.compare = false;
  return state;
}

/** Keeps the state: at once, or soon and then once for all that changed meanwhile. */
function keeper(state) {
  let waiting = null;
  const now = () => {
    clearTimeout(waiting);
    waiting = null;
    if (!store.save(state)) byId("status").textContent = "This conversation is too long to be kept across a reload.";
  };
  return { now, soon: () => (waiting ??= setTimeout(now, SAVE_MS)) };
}

/** Reads an answer that is over out, and says what can be done about one that failed. */
function tellEnd(answer, chat) {
  byId("announce").append(element("p", {}, answer.error?.message ?? `${answer.model}: ${answer.text || "no text"}`));
  if (answer.error?.kind === "key") {
    showAlert("The server did not accept the key.", "Dismiss", () => {});
    askForKey(() => chat.retryFailed());
  }
  if (answer.error?.kind === "gone") {
    const said = "The server does not answer. Nothing is lost: this tab keeps the conversation.";
    showAlert(said, "Try again", () => chat.retryFailed());
  }
}

/** What the buttons of the conversation do; `asking(what)` clears the way before something is asked. */
function conversationActions(chat, drawing, sharing, asking) {
  const resend = (text) => text.trim() && asking(() => chat.resend(text));
  return {
    copy: (text) => sharing.copy(text, "Copied."),
    retry: (model) => asking(() => chat.retry(model)),
    edit: () => drawing.edit(true),
    cancelEdit: () => drawing.edit(false),
    resend,
    editKey: (event, field) => {
      if (event.key === "Escape") {
        event.stopPropagation(); // it leaves the field: it stops no answer
        drawing.edit(false);
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        resend(field.value);
      }
    },
  };
}

/** Ties the state to all that shows and changes it. */
function start(settings) {
  const state = startingState(settings, store.load());
  const keep = keeper(state);
  const actions = {};
  const drawing = new Drawing(state, actions);
  const chat = new Chat(state, settings, {
    key: currentKey,
    changed: (i) => {
      drawing.draw(i);
      composer.showBusy(chat.busy);
      keep.now();
    },
    text: (i, side) => {
      drawing.grew(i, side);
      keep.soon();
    },
    ended: (answer) => tellEnd(answer, chat),
  });
  const clearTheWay = () => {
    drawing.editing = null;
    hideAlert();
    byId("status").textContent = "";
    byId("prompt").focus();
  };
  const asking = (ask) => {
    clearTheWay();
    byId("announce").textContent = "Answering";
    ask();
  };
  Object.assign(actions, conversationActions(chat, drawing, wireSharing(state, settings), asking));
  const composer = wireComposer(state, {
    send: (text) => asking(() => chat.send(text)),
    stop: () => chat.stop(),
    editLast: () => state.exchanges.length && !chat.busy && drawing.edit(true),
    kept: keep.soon,
    isBusy: () => chat.busy,
  });
  const changed = (redraw = false) => {
    showChoice(state, settings);
    if (redraw) drawing.draw(null);
    keep.now();
  };
  const showPanel = wirePanel(state, settings, changed);
  wireChoice(state, settings, () => {
    changed();
    showPanel();
  });
  byId("fresh").addEventListener("click", () => {
    clearTheWay();
    chat.clear();
  });
  addEventListener("pagehide", keep.now);
  showChoice(state, settings);
  showPanel();
  drawing.draw(null);
  drawing.toEnd();
  document.body.classList.add("ready");
  byId("prompt").focus();
  if (settings.key_needed) wireKey();
}

function wireKey() {
  byId("key-fields").hidden = false;
  byId("key-forget").addEventListener("click", () => {
    forgetKey();
    askForKey(() => {});
  });
  if (!currentKey()) askForKey(() => byId("prompt").focus());
}

async function boot() {
  try {
    start(await getSettings(currentKey()));
  } catch (error) {
    if (error.kind === "key") {
      if (currentKey()) showAlert("The server did not accept the key.", "Dismiss", () => {});
      askForKey(boot);
    } else if (error.kind) {
      showAlert(error.message, "Try again", boot);
    } else {
      throw error;
    }
  }
}

await boot();

/* The conversation, the settings and the key, kept for this tab: a reload loses nothing, closing the tab forgets all.
 *
 * What a tab may keep is a few megabytes. Where it is full, token probabilities are given up first.
 */

const STATE = "mlxtune.chat";
const KEY = "mlxtune.key";
const VERSION = 1;

/** What was kept, or null: nothing, or of another version of the page. Answers that were cut off by the reload say so. */
export function load() {
  let state;
  try {
    state = JSON.parse(sessionStorage.getItem(STATE));
  } catch {
    return null; // storage that is switched off, or not ours
  }
  if (state?.version !== VERSION) return null;
  for (const answer of state.exchanges.flatMap((exchange) => exchange.answers)) {
    if (answer.status === "streaming") answer.status = "stopped";
  }
  return state;
}

/** Keeps the state. Returns whether it could. */
export function save(state) {
  const kept = { ...state, version: VERSION };
  const slim = (name, value) => (name === "tokens" ? null : value);
  for (const replacer of [undefined, slim]) {
    try {
      sessionStorage.setItem(STATE, JSON.stringify(kept, replacer));
      return true;
    } catch {
      continue; // full: once more with less
    }
  }
  return false;
}

export function loadKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** An empty key is forgotten. */
export function saveKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    return; // storage that is switched off: the key lasts as long as the page
  }
}

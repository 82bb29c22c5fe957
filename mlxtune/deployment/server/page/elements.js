/* Elements, made from names and text. Text goes in as text, whoever wrote it; there is no way to give markup. */

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** One element; `properties` are set on it, `inside` are elements or text. */
export function element(name, properties = {}, ...inside) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...inside);
  return made;
}

/** A button that does `action`; `label` is what a screen reader says where `text` alone is too little. */
export function button(text, action, label = text) {
  const made = element("button", { type: "button" }, text);
  made.ariaLabel = label;
  made.addEventListener("click", action);
  return made;
}

const SIGNS = { "\n": "↵", "\t": "⇥", " ": "␣", "\r": "␍" };

/** Text in which nothing is invisible. */
export function visible(text) {
  return text.replace(/[\p{C}\p{Z}]/gu, (character) => SIGNS[character] ?? `\\u{${character.codePointAt(0).toString(16)}}`);
}

/* The small window beside a token: how likely it was, and what else was likely.
 *
 * By mouse, by touch, and with the arrow keys in an answer that has the focus.
 */

import { byId, element, visible } from "/page/elements.js";
import { percent } from "/page/tokens.js";

const GAP = 6;

/** Makes the tokens inside `text` tell about themselves; `tokens` maps their elements to what is known of them. */
export function tellTokens(text, tokens) {
  const spans = [...tokens.keys()];
  let at = -1;
  const show = (span) => {
    at = spans.indexOf(span);
    open(span, tokens.get(span));
  };
  const under = (event) => {
    const span = event.target.closest?.(".token");
    if (span && span !== marked && tokens.has(span)) show(span);
  };
  text.tabIndex = 0;
  text.role = "group";
  text.ariaLabel = "Answer with token probabilities: the arrow keys go from token to token";
  text.addEventListener("mousemove", under);
  text.addEventListener("click", under);
  text.addEventListener("mouseleave", closeTip);
  text.addEventListener("blur", closeTip);
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape" && !byId("tip").hidden) {
      closeTip();
      event.stopPropagation(); // it closed the window: it does not stop an answer too
    } else if (step && spans.length) {
      event.preventDefault();
      show(spans[Math.max(0, Math.min(spans.length - 1, at + step))]);
      byId("announce").textContent = byId("tip").innerText;
    }
  });
}

let marked = null; // the token that the window is about
addEventListener("scroll", closeTip, { passive: true }); // the window would stay where the token was

function open(span, token) {
  const tip = byId("tip");
  closeTip();
  marked = span;
  span.classList.add("now");
  const others = token.top.filter(([text]) => text !== token.text);
  const row = ([text, logprob], name) =>
    element("tr", { className: name }, element("td", { className: "mono" }, visible(text)), element("td", {}, percent(logprob)));
  const body = element("tbody", {}, row([token.text, token.logprob], "drawn"), ...others.map((one) => row(one, "")));
  tip.replaceChildren(element("table", {}, element("caption", {}, "Token and its probability"), body));
  tip.hidden = false;
  const place = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const above = place.top - height - GAP;
  tip.style.left = `${Math.max(GAP, Math.min(place.left, document.documentElement.clientWidth - width - GAP))}px`;
  tip.style.top = `${above > GAP ? above : place.bottom + GAP}px`;
}

/** The window goes away; without one nothing happens. */
export function closeTip() {
  byId("tip").hidden = true;
  marked?.classList.remove("now");
  marked = null;
}

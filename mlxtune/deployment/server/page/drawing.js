/* When what is drawn: growing text once a frame, all else at once; a reader at the end is kept there, others are left alone.
 *
 * Holds the one thing on the page that is not in the state: whether the last prompt is being edited, and into what.
 */

import { byId } from "/page/elements.js";
import { drawAll, drawExchange, drawText } from "/page/view.js";

const NEAR_END = 80; // pixels

function keepingPlace(draw) {
  const scroller = document.scrollingElement;
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
  draw();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

export class Drawing {
  #grown = new Map(); // by place: answers that grew since the last frame
  editing = null;

  constructor(state, actions) {
    this.state = state;
    this.actions = actions;
  }

  /** Draws exchange `i`, or all for null. */
  draw(i) {
    this.#grown.clear();
    keepingPlace(() => (i === null
      ? drawAll(this.state, this.editing, this.actions)
      : drawExchange(this.state, i, this.editing, this.actions)));
  }

  /** The answer at `side` of exchange `i` has more text. */
  grew(i, side) {
    if (this.#grown.size === 0) requestAnimationFrame(() => this.#drawGrown());
    this.#grown.set(`${i} ${side}`, [i, side]);
  }

  #drawGrown() {
    const grown = [...this.#grown.values()];
    this.#grown.clear();
    keepingPlace(() => grown.forEach(([i, side]) => drawText(this.state, i, side)));
  }

  /** Begins or ends editing the last prompt. */
  edit(on) {
    const last = this.state.exchanges.length - 1;
    this.editing = on ? { text: this.state.exchanges[last].prompt } : null;
    drawExchange(this.state, last, this.editing, this.actions);
    if (!on) return byId("prompt").focus();
    const field = document.querySelector(".edit");
    field.focus();
    field.scrollIntoView({ block: "center" });
    field.setSelectionRange(field.value.length, field.value.length);
  }

  toEnd() {
    document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  }
}

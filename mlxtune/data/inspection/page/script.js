"use strict";
const rows = [...document.querySelectorAll("section.row")];
const picker = document.getElementById("row");
const [previous, next] = ["previous", "next"].map((id) => document.getElementById(id));
const tip = document.getElementById("tip");
const said = document.getElementById("said");

function show(number, focus) {
  rows.forEach((row, i) => { row.hidden = i !== number; });
  picker.value = String(number);
  previous.disabled = number === 0;
  next.disabled = number === rows.length - 1;
  forget();
  if (focus) rows[number].querySelector("h2").focus();
}

function told(token) {
  const weight = token.dataset.w || "1";
  const kinds = [
    token.classList.contains("t") ? `trained on, weight ${weight}` : "not trained on",
    token.classList.contains("s") ? "special" : "",
    token.classList.contains("p") ? "shared beginning" : "",
    token.classList.contains("x") ? "cut" : "",
  ].filter(Boolean);
  return `token ${Number(token.dataset.p) + 1}, position ${token.dataset.p}, id ${token.dataset.i}: ${kinds.join(", ")}`;
}

let now = null;

function point(token) {
  forget();
  now = token;
  token.classList.add("now");
  tip.textContent = told(token);
  tip.hidden = false;
  const place = token.getClientRects()[0] || token.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
  tip.style.left = `${left + window.scrollX}px`;
  tip.style.top = `${place.bottom + window.scrollY + 6}px`;
}

function forget() {
  if (now) now.classList.remove("now");
  now = null;
  tip.hidden = true;
}

function step(box, by) {
  const tokens = [...box.querySelectorAll(".k")];
  const at = now && box.contains(now) ? tokens.indexOf(now) + by : by > 0 ? 0 : tokens.length - 1;
  const token = tokens[Math.max(0, Math.min(tokens.length - 1, at))];
  if (!token) return;
  point(token);
  token.scrollIntoView({ block: "nearest" });
  const text = token.textContent === "\n" ? "line end" : token.textContent;
  said.textContent = `${text}. ${told(token)}`;
}

document.addEventListener("pointerover", (event) => {
  const token = event.target.closest(".k");
  if (token) point(token); else if (event.pointerType === "mouse") forget();
});
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape") forget();
  const box = event.target.closest(".text");
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (box && by) { event.preventDefault(); step(box, by); }
});
for (const [id, name] of [["bounds", "bounds"], ["ids", "ids"]]) {
  const box = document.getElementById(id);
  const set = () => document.body.classList.toggle(name, box.checked);
  box.addEventListener("change", set);
  set();
}
picker.addEventListener("change", () => show(Number(picker.value), false));
previous.addEventListener("click", () => show(Math.max(0, Number(picker.value) - 1), true));
next.addEventListener("click", () => show(Math.min(rows.length - 1, Number(picker.value) + 1), true));
document.querySelector("nav").hidden = false;
if (rows.length) show(0, false);

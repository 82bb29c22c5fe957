"""Answers before and after, side by side, with what differs from the wanted answer marked; those that got worse first.

Knows samples as samples.jsonl has them. The page shows `SHOWN` of each outcome and counts all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlxtune.iteration.report import wording
from mlxtune.iteration.report.elements import folded, quiet, section, users_text, visible_part
from mlxtune.iteration.report.side_by_side import OUTCOMES, Pair, Piece, mark, pair_up
from mlxtune.page import Html, join, tag, visible

SHOWN: Mapping[str, int] = {"worse": 30, "better": 10, "wrong": 10, "same": 5, "right": 5}
LONGEST_ANSWER = 2500
LONGEST_PROMPT = 1500

TITLES: Mapping[str, str] = {
    "worse": "got worse",
    "better": "got better",
    "wrong": "wrong before and after",
    "same": "no better and no worse",
    "right": "right before and after",
}


def generations_section(samples: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> Html:
    """The whole section, or an empty piece where there are no answers."""
    pairs = pair_up(samples, tasks)
    if not pairs:
        return Html()
    groups = {outcome: [pair for pair in pairs if pair.outcome == outcome] for outcome in OUTCOMES}
    told = {outcome: found for outcome, found in groups.items() if found or outcome == "worse"}
    counts = ", ".join(f"{len(found) or 'none'} {TITLES[outcome]}" for outcome, found in told.items())
    legend = join(
        [
            "Marked in an answer: ",
            _piece(Piece("words that were not wanted", "extra")),
            " and ",
            _piece(Piece("wanted words that it lacks", "missing")),
            ". An answer that has little in common with the wanted one is left unmarked.",
        ]
    )
    parts = [_group(outcome, found) for outcome, found in groups.items() if found]
    return section(
        "generations",
        "Answers side by side",
        tag("p", tag("b", f"{counts[0].upper()}{counts[1:]}."), class_="lead"),
        quiet(legend),
        *parts,
    )


def _group(outcome: str, pairs: Sequence[Pair]) -> Html:
    most = SHOWN[outcome]
    inside = [_pair(pair) for pair in pairs[:most]]
    if len(pairs) > most:
        inside.append(quiet(f"{len(pairs) - most:,} more are in samples.jsonl."))
    title = f"{TITLES[outcome].capitalize()}: {len(pairs):,}"
    return folded(title, *inside, shown=outcome == "worse")


def _pair(pair: Pair) -> Html:
    sample = pair.sample
    heading = tag("h4", wording.place(sample["where"]), " ", tag("small", sample["task"]))
    wanted = sample.get("reference")
    prompt = sample.get("prompt")
    above = [_field("asked", visible_part(prompt, LONGEST_PROMPT))] if prompt else []
    if wanted is not None:
        above.append(_field("wanted", visible_part(wanted, LONGEST_ANSWER)))

    def figure(scores: Mapping[str, Any]) -> str:
        return f"{pair.metric} {wording.figure(pair.metric, scores[pair.metric])}" if pair.metric in scores else ""

    answers = tag(
        "div",
        _field("before", _marked(sample["base"], wanted), figure(sample["scores"]["base"])),
        _field("after", _marked(sample["tuned"], wanted), figure(sample["scores"]["tuned"])),
        *(
            _field(label, _marked(answer, wanted), figure(sample["scores"].get(label, {})))
            for label, answer in (sample.get("against") or {}).items()
        ),
        class_="beside",
    )
    return tag("article", heading, *above, answers, class_=f"pair {pair.outcome}")


def _field(name: str, text: Html, figure: str = "") -> Html:
    return tag("div", tag("div", name, " ", tag("small", figure), class_="name"), users_text(text), class_="field")


def _marked(answer: str, wanted: str | None) -> Html:
    if not answer:
        return tag("i", "an empty answer")
    if wanted is None or max(len(answer), len(wanted)) > LONGEST_ANSWER:
        return visible_part(answer, LONGEST_ANSWER)
    return join(_piece(piece) for piece in mark(answer, wanted))


def _piece(piece: Piece) -> Html:
    if piece.kind == "as wanted":
        return visible(piece.text)
    said = tag("span", "[not wanted: " if piece.kind == "extra" else "[missing: ", class_="sr")
    end = tag("span", "]", class_="sr")
    return tag("ins" if piece.kind == "extra" else "del", said, visible(piece.text), end)

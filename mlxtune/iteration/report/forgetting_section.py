"""Whether what the base could do is still there: the traffic light, what it is lit by, and each area asked about.

Knows the keys of scores.json's ``forgetting``, which `evaluation.forgetting` makes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mlxtune.iteration.report import wording
from mlxtune.iteration.report.cells import NONE, told_difference, with_bounds
from mlxtune.iteration.report.elements import folded, note, quiet, section, table
from mlxtune.page import Html, join, tag

QUESTIONS, TEXT = "questions", "bits_per_byte"
"""As what `wording` shows them: a rate, and bits per byte."""
ANSWERS = "forgetting.jsonl has every question with both answers."
THRESHOLDS: Mapping[str, str] = MappingProxyType(
    {"questions": "all questions", "one area": "one area", "bits per byte": "bits per byte"}
)
"""Keys of scores.json, and what they are of."""


def forgetting_section(forgetting: Mapping[str, Any] | None) -> Html:
    """The whole section; an empty piece where nobody asked."""
    if forgetting is None:
        return Html()
    questions, text = forgetting["questions"], forgetting["text"]
    told = (
        f"Base and tuned model were asked {questions['count']:,} general questions that have nothing to do with the "
        f"task, and read {text['passages']:,} passages of general text ({text['bytes']:,} bytes)."
    )
    rows = [
        _row("all questions", QUESTIONS, questions),
        *(_row(area["area"], QUESTIONS, area) for area in forgetting["areas"]),
        _row("general text, bits per byte", TEXT, text),
    ]
    heads = ["asked", "before", "after", "difference", "p", "light"]
    lost = [f"lost: {', '.join(forgetting['lost'])}"] if forgetting["lost"] else []
    lost += [f"gained: {', '.join(forgetting['gained'])}"] if forgetting["gained"] else []
    return section(
        "forgetting",
        "Forgetting",
        tag("p", light(forgetting["light"]), " ", forgetting["sentence"], "."),
        quiet(told),
        table(heads, rows, label="General questions, before and after", words=[5]),
        note(tag("b", "What helps: "), forgetting["remedy"], ".") if forgetting["remedy"] else "",
        folded("Questions whose answer changed", *(tag("p", one) for one in lost), quiet(ANSWERS)) if lost else "",
        folded("When is it red, when amber?", _thresholds(forgetting["thresholds"])),
    )


def light(name: str) -> Html:
    """A light of the three."""
    return tag("span", name, class_=f"light {name}")


def _row(name: str, metric: str, found: Mapping[str, Any]) -> list[str]:
    difference = found["difference"]
    p_value = found.get("p_value", difference["p_value"])  # an area's is adjusted for there being several
    return [
        name,
        with_bounds(metric, found["base"]),
        with_bounds(metric, found["tuned"]),
        told_difference(metric, difference),
        wording.p_value(p_value),
        light(found["light"]),
    ]


def _thresholds(thresholds: Mapping[str, Mapping[str, float]]) -> Html:
    rows = [
        [
            light(name),
            *(wording.percent(limits[key], 0) if key in limits else NONE for key in THRESHOLDS),
            f"{limits['p']:g}",
        ]
        for name, limits in thresholds.items()
    ]
    return join(
        [
            quiet("A loss of at least so much, that chance makes less often than p."),
            table(["light", *(f"of {what}" for what in THRESHOLDS.values()), "p below"], rows, label="Thresholds"),
        ]
    )

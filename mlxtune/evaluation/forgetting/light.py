"""Green, amber or red: what base and tuned model said to the probe, compared question by question.

A light is made of a size and a doubt. Size: how much was lost, in points of the questions or in percent of bits per
byte. Doubt: how often chance alone would make such a difference, by a paired test on the same questions. Red needs both
a large loss and next to no doubt, so that it is never noise: three tests are made (all questions, the areas together by
Holm's method, the text), each of which calls a model that forgot nothing red less than once in 200 times. What is lost
without being proven, or proven and small, is amber. Knows two models' answers; nothing of how either was made.

The price of a short probe: a small loss is not seen. Green says how large a loss it rules out.

Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6 (1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mlxtune.evaluation.forgetting.ask import Known
from mlxtune.evaluation.forgetting.probe import AREAS, passages, probe_sha256, questions
from mlxtune.evaluation.measured import Measured
from mlxtune.evaluation.statistics import Difference

Light = Literal["green", "amber", "red"]
SEVERITY: tuple[Light, ...] = ("green", "amber", "red")

RED_P, AMBER_P = 0.01, 0.05
"""A loss is one if chance makes it less often than this."""
RED_LOSS, AMBER_LOSS = 0.10, 0.05
"""Of all questions, the share that was right before and is not any more, less those that it is the other way round."""
RED_AREA_LOSS = 0.25
"""Of the questions of one area, the same."""
RED_BITS, AMBER_BITS = 0.10, 0.03
"""Of the bits per byte of general text, how many more there are."""

THRESHOLDS = {
    "red": {"p": RED_P, "questions": RED_LOSS, "one area": RED_AREA_LOSS, "bits per byte": RED_BITS},
    "amber": {"p": AMBER_P, "questions": AMBER_LOSS, "bits per byte": AMBER_BITS},
}
REMEDY = "learn some general rows along with yours: data.replay: {file: ..., share: 0.2}"


@dataclass(frozen=True)
class Loss:
    """What was compared: its light, and why it is that, in words; a figure that is better after tuning is green."""

    light: Light
    why: str


def compare_known(base: Known, tuned: Known, *, seed: int) -> dict[str, Any]:
    """What a run's scores.json holds as ``forgetting``.

    Returns: ``light`` and ``sentence``; ``questions``, ``areas`` (in the order of `AREAS`) and ``text``, each with the
        figures of ``base`` and ``tuned`` as intervals, their ``difference`` (tuned less base), ``light`` and ``why``;
        ``lost`` and ``gained``, the ids of questions that only one of the two has right; ``thresholds``, ``remedy``
        (null while the light is green), ``seconds``, and the ``probe``'s hash.
    """
    asked = questions()
    whole = tuned.right.minus(base.right, seed=seed)
    total = judge_questions(whole)
    areas = _areas(base.right, tuned.right, seed)
    bits = tuned.bits_per_byte.minus(base.bits_per_byte, seed=seed)
    text = judge_text(base.bits_per_byte.value, bits)
    light = max((total.light, text.light, *(area["light"] for area in areas)), key=SEVERITY.index)
    before, after = base.right.sums[:, 0], tuned.right.sums[:, 0]
    return {
        "light": light,
        "sentence": sentence(light, total, text, areas, whole, (int(before.sum()), int(after.sum()))),
        "questions": _told(base.right, tuned.right, whole, total, seed) | {"count": len(asked)},
        "areas": areas,
        "text": _told(base.bits_per_byte, tuned.bits_per_byte, bits, text, seed)
        | {"passages": len(passages()), "bytes": int(base.bits_per_byte.sums[:, 1].sum())},
        "lost": [question.id for question, lost in zip(asked, before > after, strict=True) if lost],
        "gained": [question.id for question, gained in zip(asked, after > before, strict=True) if gained],
        "thresholds": THRESHOLDS,
        "remedy": None if light == "green" else REMEDY,
        "seconds": {"base": base.seconds, "tuned": tuned.seconds},
        "probe": probe_sha256(),
    }


def judge_questions(difference: Difference) -> Loss:
    """All questions together."""
    lost = -difference.mean
    told = f"{_points(difference.mean)} of the questions (p {_p(difference.p_value)})"
    if lost >= RED_LOSS and difference.p_value < RED_P and difference.high < 0:
        return Loss("red", told)
    if lost >= AMBER_LOSS or (lost > 0 and difference.p_value < AMBER_P):
        return Loss("amber", told)
    return Loss("green", told)


def judge_area(difference: Difference, p_value: float) -> Loss:
    """One area; ``p_value`` is adjusted for there being several."""
    lost = -difference.mean
    told = f"{_points(difference.mean)} of {difference.count} (p {_p(p_value)} among {len(AREAS)} areas)"
    if lost >= RED_AREA_LOSS and p_value < RED_P and difference.high < 0:
        return Loss("red", told)
    return Loss("amber" if lost > 0 and p_value < AMBER_P else "green", told)


def judge_text(base: float, difference: Difference) -> Loss:
    """Bits per byte of general text; ``base`` is what they were."""
    more = difference.mean / base
    told = f"{more:+.1%} bits per byte of general text (p {_p(difference.p_value)})"
    if more >= RED_BITS and difference.p_value < RED_P and difference.low > 0:
        return Loss("red", told)
    return Loss("amber" if more >= AMBER_BITS and difference.p_value < AMBER_P else "green", told)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, raised so that together they err no more often than one alone would."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def sentence(
    light: Light,
    total: Loss,
    text: Loss,
    areas: Sequence[Mapping[str, Any]],
    whole: Difference,
    known: tuple[int, int],
) -> str:
    """The light in one sentence, that says what it is lit by; ``known`` is how many questions either has right."""
    if light == "green":
        # Even where no answer changed, a loss that seldom shows in so many questions may be there.
        unseen = 1 - ((1 - whole.confidence) / 2) ** (1 / whole.count)
        points = math.ceil(100 * max(-whole.low, unseen))
        return (
            f"no forgetting seen: the base has {known[0]} of {whole.count} general questions right, the tuned model "
            f"{known[1]}; a loss of more than {points} points can be ruled out"
        )
    reasons = [loss.why for loss in (total, text) if loss.light == light]
    reasons += [f"{area['area']}: {area['why']}" for area in areas if area["light"] == light]
    what = "the tuned model has forgotten" if light == "red" else "the tuned model may have forgotten something"
    return f"{what}: {'; '.join(reasons)}"


def _areas(base: Measured, tuned: Measured, seed: int) -> list[dict[str, Any]]:
    of = np.array([question.area for question in questions()])
    parts = {area: tuple(_part(one, of == area) for one in (base, tuned)) for area in AREAS}
    differences = [after.minus(before, seed=seed) for before, after in parts.values()]
    adjusted = holm([difference.p_value for difference in differences])
    return [
        {"area": area, **_told(before, after, difference, judge_area(difference, p_value), seed), "p_value": p_value}
        for (area, (before, after)), difference, p_value in zip(parts.items(), differences, adjusted, strict=True)
    ]


def _part(measured: Measured, chosen: np.ndarray) -> Measured:
    return Measured(measured.rows[chosen], measured.sums[chosen], measured.figure)


def _told(base: Measured, tuned: Measured, difference: Difference, loss: Loss, seed: int) -> dict[str, Any]:
    intervals = {name: asdict(one.interval(seed=seed)) for name, one in (("base", base), ("tuned", tuned))}
    return {**intervals, "difference": asdict(difference), "light": loss.light, "why": loss.why}


def _points(share: float) -> str:
    return f"{100 * share:+.0f} points"


def _p(value: float) -> str:
    return f"= {value:.2g}" if value >= 0.001 else "< 0.001"  # noqa: PLR2004 - no more is known of it

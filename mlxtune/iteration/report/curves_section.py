"""How training went: loss, learning rate, length of the gradient, throughput and memory, update by update.

Knows the lines of metrics.jsonl. Without matplotlib the section has its facts, and says what is missing.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from mlxtune.iteration.report import wording
from mlxtune.iteration.report.elements import code, facts, note, section
from mlxtune.iteration.report.evidence import Evidence
from mlxtune.page import Html, join, tag

WITHOUT_MATPLOTLIB = "pip install 'mlxtune[report]'"
LOSSES = {"sft": "Loss, nats a target token", "grpo": "Loss: less the mean reward, and what is paid for moving away"}
"""What the loss of an objective is; of the others it is one of a pair."""
OF_PAIRS = "Loss, a pair of answers"
DRAWN = (("reward", "Mean reward of the answers that were drawn"), ("cut_share", "Of them, the share that was cut"))
"""Of `grpo`."""


def curves_section(evidence: Evidence) -> Html:
    """The whole section."""
    steps = evidence.steps
    if not steps:
        return section("training", "Training", note("No update was made yet."))
    parts = [facts(_facts(evidence))]
    if importlib.util.find_spec("matplotlib") is None:
        parts.append(note("The curves are drawn by matplotlib, which is not installed: ", code(WITHOUT_MATPLOTLIB)))
    else:
        charts = _charts(
            steps,
            evidence.validations,
            title=LOSSES.get((evidence.recipe.get("objective") or {}).get("type", "sft"), OF_PAIRS),
            is_finished=evidence.finished is not None,
        )
        parts.append(tag("div", *charts, class_="charts"))
    return section("training", "Training", *parts)


def _charts(
    steps: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]], *, title: str, is_finished: bool
) -> list[Html]:
    from mlxtune.iteration.report.charts import Curve, draw

    numbers = [line["step"] for line in steps]

    def chart(name: str, title: str, key: str, **more: Any) -> Html:
        values = [line[key] for line in steps]
        label = f"{title}: {values[0]:g} at update {numbers[0]}, {values[-1]:g} at update {numbers[-1]}"
        return tag("figure", tag("figcaption", title), draw(name, [Curve(numbers, values)], label=label, **more))

    losses = [Curve(numbers, [line["loss"] for line in steps], "quiet" if validations else "accent")]
    keys = [_key("quiet" if validations else "accent", "training batches")]
    label = f"Loss: {steps[0]['loss']:.3f} at update {numbers[0]}, {steps[-1]['loss']:.3f} at update {numbers[-1]}"
    ring = None
    if validations:
        losses.append(
            Curve([line["step"] for line in validations], [line["valid_loss"] for line in validations], dots=True)
        )
        keys.append(_key("accent", "validation rows"))
        label += f"; on validation rows {validations[0]['valid_loss']:.3f}, then {validations[-1]['valid_loss']:.3f}"
        best = min(validations, key=lambda line: line["valid_loss"])
        ring = best["step"], best["valid_loss"]
        keys.append(tag("span", "ringed: the checkpoint that was kept" if is_finished else "ringed: the best so far"))
    caption = tag("figcaption", title, tag("div", *keys, class_="legend"))
    return [
        tag("figure", caption, draw("loss", losses, label=label, ring=ring)),
        *(
            chart(key, told, key, from_zero=key == "cut_share")
            for key, told in DRAWN
            if all(key in line for line in steps)
        ),
        chart("rate", "Learning rate", "learning_rate", from_zero=True),
        chart("gradient", "Length of the gradient, before clipping", "grad_norm"),
        chart("speed", "Tokens a second", "tokens_per_s", tick="{:,.0f}".format, from_zero=True),
        chart("memory", "Peak memory, GB", "peak_memory_bytes", tick=_gigabytes, from_zero=True),
    ]


def _gigabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.3g}"


def _key(role: str, text: str) -> Html:
    return tag("span", tag("span", class_=f"key {role}"), text)


def _facts(evidence: Evidence) -> list[tuple[str, str | Html]]:
    steps, finished = evidence.steps, evidence.finished
    seconds = sum(line["seconds"] for line in steps)
    tokens = sum(line["tokens"] for line in steps)
    targets = sum(line["target_tokens"] for line in steps)
    ended = f", ended by {finished['ended_by'].replace('_', ' ')}" if finished else ", not finished"
    told: list[tuple[str, str | Html]] = [
        ("updates", f"{steps[-1]['step']:,}{ended}"),
        ("time in updates", wording.duration(seconds)),
        ("tokens", f"{tokens:,} read, {targets:,} of them learned from"),
    ]
    if finished:
        told.append(("trained parameters", f"{finished['trainable_parameters']:,}"))
    if skipped := [line for line in evidence.metrics if "skipped" in line]:
        whats = wording.count(len(skipped), "update")
        told.append(("left out", join([f"{whats}, whose loss or gradient was not a finite number"])))
    if any("out_of_memory" in line for line in evidence.metrics):
        told.append(("memory", "it was short at least once: batches were read in smaller parts from then on"))
    return told

"""What each model costs to keep and to ask, and what the training cost.

Knows the keys of scores.json's costs and of run.json.
"""

from collections.abc import Mapping
from typing import Any

from mlxtune.iteration.report import wording
from mlxtune.iteration.report.cells import NONE
from mlxtune.iteration.report.elements import facts, quiet, section, table
from mlxtune.iteration.report.evidence import Evidence
from mlxtune.page import Html


def cost_section(evidence: Evidence) -> Html:
    """The whole section, or an empty piece where nothing is known."""
    scores, finished = evidence.scores or {}, evidence.finished
    models = [(name, cost) for name, cost in (scores.get("cost") or {}).items()]
    models += [(model["label"], model.get("cost") or {}) for model in scores.get("against") or ()]
    parts = []
    if models:
        heads = ["model", "parameters", "on disk", "memory", "tokens a second"]
        parts.append(table(heads, [_model(name, cost) for name, cost in models], label="Cost of each model"))
        parts.append(
            quiet("Tokens are written one after the other, as for one person who waits, on the machine of the run.")
        )
    if finished is not None:
        parts.append(facts(_training(finished, evidence.manifest["device"]["precision"])))
    return section("cost", "Cost", *parts) if parts else Html()


def _model(name: str, cost: Mapping[str, Any]) -> list[str]:
    def told(key: str, how: Any) -> str:
        return NONE if cost.get(key) is None else how(cost[key])

    return [
        name,
        told("parameters", "{:,}".format),
        told("disk_bytes", wording.size),
        told("peak_memory_bytes", wording.size),
        told("tokens_per_s", "{:,.1f}".format),
    ]


def _training(finished: Mapping[str, Any], precision: str) -> list[tuple[str, str]]:
    updates = wording.count(finished["steps"], "update")
    return [
        ("training", f"{wording.duration(finished['seconds'])} in {updates}, {precision}"),
        ("memory of training", f"{wording.size(finished['peak_memory_bytes'])} at its peak"),
    ]

"""The run's README.md: what ran, on what, how it went, and how to go on, for a stranger who has nothing else."""

from collections.abc import Mapping
from typing import Any

from mlxtune.adapters.format import who_can_open
from mlxtune.evaluation.statistics import Interval
from mlxtune.evaluation.table import ComparisonRow, compare, to_markdown
from mlxtune.files import write_text
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder

UNSEEN = {
    "test": "test rows, which were used for nothing else",
    "valid": "validation rows, which chose the checkpoint: the tuned model is flattered",
}

UNFINISHED = ["- from the last checkpoint: `mlxtune train --resume .`"]
TRAINED = [
    "- use it: `mlxtune generate . --prompt TEXT`",
    "- score it: `mlxtune evaluate .`",
    "- one folder for other programs: `mlxtune fuse . OUT`",
    "- `adapter/` opens as it is in {programs}",
]


def write_card(run: RunFolder, recipe: Recipe, scores: Mapping[str, Any] | None = None) -> None:
    """Write the card of a run: how to go on with it until it is trained, the before/after table when it is scored."""
    manifest = run.read_manifest()
    device, inputs = manifest["device"], manifest["inputs"]
    lines = [
        f"# {recipe.name}: {recipe.model.source}, LoRA rank {recipe.method.rank}",
        "",
        f"Trained on {device['kind']} ({device['precision']}), because {device['reason']}.",
        *_how_far(manifest.get("finished")),
        f"Base model: `{recipe.model.source}`, sha256 `{inputs['model']['sha256']}`.",
        "",
        *(_result(scores) if "finished" in manifest else []),
        "## Go on",
        "",
        *([line.format(programs=_programs(run)) for line in TRAINED] if "finished" in manifest else UNFINISHED),
        "- again, with the same data and model: `mlxtune train recipe.resolved.json`",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()) + ".",
        "",
    ]
    write_text(run.readme, "\n".join(lines))


def _programs(run: RunFolder) -> str:
    """Who can open the run's adapter."""
    ours = {"mlx-lm": "mlx-lm (`adapter_path`)"}
    reasons = who_can_open(run.adapter)
    return " and in ".join(ours.get(program, program) for program, reason in reasons.items() if reason is None)


def _how_far(finished: Mapping[str, Any] | None) -> list[str]:
    if finished is None:
        return ["Training has not come to its end yet."]
    return [
        f"{finished['steps']} updates in {finished['seconds']:.0f} s; ended by {finished['ended_by']}.",
        f"{finished['tokens']} tokens, {finished['target_tokens']} of them targets.",
    ]


def _result(scores: Mapping[str, Any] | None) -> list[str]:
    if scores is None:
        return ["Not scored yet.", ""]
    return [
        f"## Before and after, on {scores['rows']} {UNSEEN[scores['split']]}",
        "",
        to_markdown(comparison(scores)),
        "`samples.jsonl` has every answer of both models beside the wanted one.",
        "",
    ]


def comparison(scores: Mapping[str, Any]) -> list[ComparisonRow]:
    """scores.json as the rows of the before/after table."""
    base, tuned = (
        {name: Interval(**interval) for name, interval in scores[model].items()} for model in ("base", "tuned")
    )
    return compare(base, tuned)

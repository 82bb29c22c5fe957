"""The run's README.md: what ran, on what, how it went, and how to go on, for a stranger who has nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlxtune.adapters.format import who_can_open
from mlxtune.evaluation.table import (
    beside_others,
    comparison,
    costs,
    costs_to_markdown,
    markdown_text,
    others_to_markdown,
    to_markdown,
)
from mlxtune.files import write_text
from mlxtune.iteration.chosen import chosen_from
from mlxtune.iteration.diagnose import Finding, read_findings
from mlxtune.iteration.started_from import started_from
from mlxtune.recipe.method import method_in_words
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
        f"# {recipe.name}: {recipe.model.source}, {method_in_words(recipe.method.model_dump())}",
        "",
        f"Trained on {device['kind']} ({device['precision']}), because {device['reason']}.",
        *_how_far(manifest.get("finished")),
        *([chosen.sentence] if (chosen := chosen_from(manifest)) is not None else []),
        *([markdown_text(started)] if (started := started_from(run, manifest)) is not None else []),
        f"Base model: `{recipe.model.source}`, sha256 `{inputs['model']['sha256']}`.",
        *_replay(recipe),
        "",
        *(_result(scores) if "finished" in manifest else []),
        *_to_look_at(read_findings(run)),
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


def _to_look_at(findings: Sequence[Finding]) -> list[str]:
    """What diagnose found; nothing where there is nothing."""
    if not findings:
        return []
    told = [
        f"- {one.severity}: {markdown_text(one.sentence)}. "
        + (f"`{one.key}`: " if one.key else "")
        + f"{markdown_text(one.remedy)}."
        for one in findings
    ]
    return ["## To look at", "", *told, ""]


def _result(scores: Mapping[str, Any] | None) -> list[str]:
    if scores is None:
        return ["Not scored yet.", ""]
    return [
        f"## Before and after, on {scores['rows']} {UNSEEN[scores['split']]}",
        "",
        to_markdown(comparison(scores)),
        "`samples.jsonl` has every answer of all models beside the wanted one.",
        "",
        *_others(scores),
        *_forgetting(scores.get("forgetting")),
    ]


def _others(scores: Mapping[str, Any]) -> list[str]:
    """The tuned model beside larger ones, or other ones, that were not tuned; and what each costs."""
    if not scores["against"]:
        return ["## Cost", "", costs_to_markdown(costs(scores))]
    notes = [
        f"- {markdown_text(one['label'])}: {markdown_text(note)}" for one in scores["against"] for note in one["notes"]
    ]
    return [
        "## Beside other models, on the same rows",
        "",
        others_to_markdown(beside_others(scores), costs(scores)),
        *(["", *notes, ""] if notes else []),
    ]


def _replay(recipe: Recipe) -> list[str]:
    """What is learned against forgetting."""
    replay = recipe.data.replay
    if replay is None:
        return []
    return [f"Of an epoch's rows {replay.share:.0%} are replay, from {markdown_text(Path(replay.file).name)}."]


def _forgetting(told: Mapping[str, Any] | None) -> list[str]:
    """Whether the model still can what the base could, where that was asked."""
    if told is None:
        return []
    remedy = [] if told["remedy"] is None else [f"What helps: {told['remedy']}."]
    answers = "`forgetting.jsonl` has every question with both answers."
    return ["## Forgetting", "", f"{told['light'].capitalize()}: {told['sentence']}.", *remedy, answers, ""]

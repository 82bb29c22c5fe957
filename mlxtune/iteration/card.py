"""The run's README.md: what ran, on what, how it went, and how to go on, for a stranger who has nothing else."""

from typing import Any

from mlxtune.evaluation.statistics import Interval
from mlxtune.evaluation.table import compare, to_markdown
from mlxtune.files import write_text
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder


def write_card(run: RunFolder, recipe: Recipe, scores: dict[str, Any]) -> None:
    """Write the model card from the manifest and the scores."""
    manifest = run.read_manifest()
    finished, device, inputs = manifest["finished"], manifest["device"], manifest["inputs"]
    base, tuned = (
        {name: Interval(**interval) for name, interval in scores[model].items()} for model in ("base", "tuned")
    )
    unseen = "unseen test" if scores["split"] == "test" else "validation (they chose the checkpoint: not unseen)"
    method = recipe.method
    lines = [
        f"# {recipe.name}: {recipe.model.source}, LoRA rank {method.rank}",
        "",
        f"Trained on {device['kind']} ({device['precision']}), because {device['reason']}.",
        f"{finished['steps']} updates in {finished['seconds']:.0f} s; ended by {finished['ended_by']}.",
        f"{finished['tokens']} tokens, {finished['target_tokens']} of them targets.",
        f"Base model: `{recipe.model.source}`, sha256 `{inputs['model']['sha256']}`.",
        "",
        f"## Before and after, on {scores['rows']} {unseen} rows",
        "",
        to_markdown(compare(base, tuned)),
        "",
        "`samples.jsonl` has every answer of both models beside the wanted one.",
        "",
        "## Go on",
        "",
        "- again: `mlxtune train recipe.resolved.json`",
        "- use it: `mlxtune generate . --prompt TEXT`",
        "- one folder for other programs: `mlxtune fuse . OUT`",
        "- `adapter/` opens in mlx-lm (`adapter_path`) and in PEFT as it is",
        "",
        "Packages: " + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()) + ".",
        "",
    ]
    write_text(run.readme, "\n".join(lines))

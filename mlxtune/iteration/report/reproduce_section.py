"""All that is needed to make this run again, and to know that it is the same.

Knows the keys of run.json, of scores.json and of the resolved recipe. Commands name the run's own files: whoever
repeats the run elsewhere needs the model and rows with these hashes.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from mlxtune.iteration.report.elements import block, code, facts, folded, quiet, section
from mlxtune.iteration.report.evidence import Evidence, command
from mlxtune.page import Html

SAME = "The same model, rows and versions give the same adapter on the same device; elsewhere last bits may differ."
UNKNOWN = "not in a git checkout"


def reproduce_section(evidence: Evidence) -> Html:
    """The whole section."""
    manifest = evidence.manifest
    return section(
        "reproduce",
        "Made again",
        quiet(SAME),
        facts([*((name, code(line)) for name, line in _commands(evidence)), *_facts(manifest, evidence.recipe)]),
        folded("Recipe, as it was written", block(evidence.recipe_text)),
        folded(
            "Recipe, with every default filled in", block(json.dumps(evidence.recipe, indent=2, ensure_ascii=False))
        ),
        folded(
            "Inputs and their hashes", facts((name, code(value)) for name, value in _hashes("", manifest["inputs"]))
        ),
        folded("Versions", facts((name, code(version)) for name, version in manifest["versions"].items())),
    )


def _commands(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """What is made again, and how."""
    run, on_cpu = evidence.run, evidence.manifest["device"]["kind"] == "cpu"
    # On the CPU a run is the same wherever there is one; a GPU is taken where there is one, without being asked.
    yield "train again", shlex.join(["mlxtune", "train", str(run.resolved), *(["--device", "cpu"] if on_cpu else [])])
    if evidence.scores is not None:
        against, base = evidence.scores["against"], evidence.recipe["model"]["source"]
        options = [("--against", model["model"]) for model in against if model["model"] != base]
        options += [("--shots", str(model["shots"])) for model in against if any(one["shots"] for one in against)]
        given = [word for option in dict.fromkeys(options) for word in option]
        yield "score this adapter again", command("evaluate", run, "--force", *given)
    yield "make this page again", command("report", run)


def _facts(manifest: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[tuple[str, str | Html]]:
    device = manifest["device"]
    return [
        ("started", manifest.get("started", "")),
        ("device", f"{device['precision']}: {device['reason']}"),
        ("seed", str(recipe["seed"])),
        ("as it was started", code(shlex.join(manifest.get("argv") or []))),
        ("git commit of the recipe's folder", code(manifest.get("git_commit") or UNKNOWN)),
    ]


def _hashes(path: str, inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the result depends on, by dotted key."""
    for key, value in inputs.items():
        name = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            yield from _hashes(name, value)
        elif value is not None:
            yield name, str(value)

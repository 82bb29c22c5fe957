"""What a run leaves behind: the adapter, what is known of it and of the rows, and what is made of all that to be read.

Findings, card and report are functions of what the folder holds, so they can be made again at any time: whoever was
killed between the scores and the report gets both, and no two of them tell different things for long.
"""

import os
from typing import Any

from mlx import nn
from mlx.utils import tree_map_with_path

from mlxtune.adapters.attach import load_adapter_parameters
from mlxtune.adapters.format import save_adapter
from mlxtune.adapters.full import trained_weights
from mlxtune.adapters.update_norm import update_norm
from mlxtune.device.precision import casting
from mlxtune.errors import ModelError, RunError
from mlxtune.files import new_folder, write_text
from mlxtune.iteration.card import write_card
from mlxtune.iteration.data_facts import data_facts, write_data_facts
from mlxtune.iteration.diagnose import read_findings, write_findings
from mlxtune.iteration.opening import chat_template_hash
from mlxtune.iteration.ready import Ready
from mlxtune.iteration.report.page import write_report
from mlxtune.iteration.start import base_name
from mlxtune.models import chat_template
from mlxtune.models.load import load_network
from mlxtune.models.safetensors import validate_safetensors
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.prompting import FILE
from mlxtune.training.checkpoint import ADAPTER, read_tensors

Findings = tuple[dict[str, Any], ...]


def write_adapter(run: RunFolder, ready: Ready) -> None:
    """``adapter/``: the best by validation, else the last; and how the tuned model wants its prompts."""
    opened, state = ready.opened, ready.state
    step = state.step
    if state.best_step is not None and state.best_step != state.step:
        step = state.best_step
        best = run.checkpoints / f"step_{step:06d}" / ADAPTER
        try:
            validate_safetensors(best)
        except ModelError as error:
            remedy = "put it back, or start a new run"
            raise RunError("the checkpoint with the best validation is damaged", where=best, remedy=remedy) from error
        load_adapter_parameters(state.network, read_tensors(best))
    extra = {"step": step, "model_sha256": opened.folder.sha256, "train_on": opened.recipe.data.train_on}
    with new_folder(run.adapter, force=True) as part:
        save_adapter(
            state.network,
            part,
            base_model=base_name(opened),
            extra=extra,
        )
        write_text(part / FILE, opened.prompting().to_json())
        if opened.recipe.data.chat_template is not None:
            write_text(part / chat_template.FILE, str(opened.model.tokenizer.chat_template))


def facts_of_adapter(ready: Ready) -> dict[str, Any]:
    """What run.json says of the trained network: how large the update is; where training had another chat template
    than the base has, the hash of the base's, by which others will ask.
    """
    opened = ready.opened
    norm = update_norm(ready.state.network, _base_beside(ready))
    facts: dict[str, Any] = {} if norm is None else {"update": norm.to_json()}
    if opened.recipe.data.chat_template is not None:
        facts["base_chat_template"] = chat_template_hash(open_tokenizer(opened.folder.path))
    return facts


def _base_beside(ready: Ready) -> nn.Module | None:
    """The base in the precision that training had it in, its weights not yet read; only where they were replaced."""
    opened = ready.opened
    if not trained_weights(ready.state.network):
        return None
    plain, _ = load_network(opened.folder.path)
    plain.update(tree_map_with_path(casting(plain, opened.device.precision.dtype), plain.parameters()))
    return plain


def write_data(run: RunFolder, ready: Ready, *, progress: Progress = silent) -> None:
    """Write data.json, while the rows are at hand."""
    opened = ready.opened
    facts = data_facts(opened.recipe.data, opened.sources, opened.datasets, opened.model.tokenizer, progress=progress)
    write_data_facts(run, facts)


def conclude(run: RunFolder) -> Findings:
    """Write what is made of a trained run's files: findings, card and report.

    Returns: what findings.json holds.
    """
    write_findings(run)
    write_card(run, load_recipe(run.resolved).recipe, run.read_scores())
    write_report(run)
    return known_findings(run)


def is_concluded(run: RunFolder) -> bool:
    """Whether the report is there and no older than the scores; of a folder that cannot be written to, always."""
    if not os.access(run.path, os.W_OK):
        return True
    if not run.report.is_file():
        return False
    return not run.scores.is_file() or run.report.stat().st_mtime_ns >= run.scores.stat().st_mtime_ns


def known_findings(run: RunFolder) -> Findings:
    """What findings.json holds."""
    return tuple(finding.to_json() for finding in read_findings(run))

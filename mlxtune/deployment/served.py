"""What is put to work together: a base model and any number of tuned ones over it, each under a name.

A run brings its adapter under its recipe's name, and its base under ``base``; a model (a fused folder, a catalogue
name, a GGUF file) is a base, under its own name and as ``base``. All of them have to have one base, which is in memory
once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxtune.adapters.bank import BASE, AdapterBank
from mlxtune.deployment.asking import Asking, asking_of
from mlxtune.deployment.tuned import Tuned, find_tuned
from mlxtune.device.choose import open_device
from mlxtune.errors import UsageError
from mlxtune.models.load import open_model, precision_to_ask
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import is_run_folder
from mlxtune.runs.prompting import Prompting, read_prompting

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "model_max_length")
"""Of a config.json, for how many positions a model was made; which is there depends on the family."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One name that can be asked."""

    name: str
    adapter: str
    """In the bank; `bank.BASE` for none."""
    asking: Asking
    report: Path | None = None
    """The run's report.html, where there is one."""
    note: str | None = None
    """What whoever asks should know."""


@dataclass(frozen=True, eq=False)
class Served:
    """Everything that can be asked; ``models`` are by name, the one that is meant where nobody names one first."""

    network: nn.Module
    tokenizer: Any
    bank: AdapterBank
    models: dict[str, ServedModel]
    vocabulary_size: int
    """V of the logits."""
    context_length: int | None
    """Positions that the base was made for, where its config says so."""


def open_served(
    sources: Sequence[str | Path],
    *,
    adapter: str | Path | None = None,
    device: str = "auto",
    raw: bool | None = None,
    progress: Progress = silent,
) -> Served:
    """Open runs and models as one.

    Args:
        sources: run folders, or what `find_model` finds; ``NAME=SOURCE`` gives a name of one's own.
        adapter: an adapter folder to put on the only source, which is a model.
        raw: send prompts without a chat template; None: as in training, or by whether there is a template.

    Raises: UsageError, for names that collide or bases that differ; RunError; ModelError; AdapterError.
    """
    named = [_named(source) for source in sources]
    tuned = [(name, find_tuned(source, adapter, progress=progress)) for name, source in named]
    _check_one_base(tuned)
    base = tuned[0][1].base
    precision = open_device(device).precision
    if all(one.adapter is None for _, one in tuned):
        precision = precision_to_ask(base.path, precision)
    model = open_model(base.path, precision)
    bank = AdapterBank(model.network)
    models: dict[str, ServedModel] = {}
    for name, one in tuned:
        if name in models or name == BASE:
            raise _collision(name)
        if one.adapter is None:
            models[name] = ServedModel(name, BASE, asking_of(model.tokenizer, one.prompting, raw=raw))
        else:
            bank.add(name, one.adapter)
            asking = asking_of(one.open_tokenizer(), one.prompting, raw=raw)
            report = None if one.run is None or not one.run.report.is_file() else one.run.report
            models[name] = ServedModel(name, name, asking, report, one.other_base)
    models[BASE] = ServedModel(BASE, BASE, _base_asking(tuned, model.tokenizer, raw))
    vocabulary = model.network(mx.array([[0]])).shape[-1]  # a shape is known before anything is worked out
    context = next((model.config[key] for key in CONTEXT_KEYS if isinstance(model.config.get(key), int)), None)
    return Served(model.network, model.tokenizer, bank, models, vocabulary, context)


def _named(source: str | Path) -> tuple[str, str]:
    """The name and the source that an argument means."""
    text = str(source)
    name, is_named, rest = text.partition("=")
    if is_named and not Path(text).exists():
        if not name or not rest:
            raise UsageError(f"{text!r} names nothing", where=text, remedy="write NAME=RUN")
        return name, rest
    path = Path(text)
    if is_run_folder(path):
        return load_recipe(path / "recipe.resolved.json").recipe.name, text
    return path.resolve().name if path.exists() else text.rpartition("/")[2], text


def _check_one_base(tuned: Sequence[tuple[str, Tuned]]) -> None:
    (first, one), *rest = tuned
    for name, other in rest:
        if other.base.sha256 != one.base.sha256:
            raise UsageError(
                f"{first} and {name} have different bases: {one.base.path} and {other.base.path}",
                where=name,
                remedy="serve them as two servers, each with a --port of its own",
            )


def _collision(name: str) -> UsageError:
    said = f"two models would be called {name}" if name != BASE else f"{name} is the name of the untuned model"
    return UsageError(said, where=name, remedy="give one another name: NAME=RUN")


def _base_asking(tuned: Sequence[tuple[str, Tuned]], tokenizer: Any, raw: bool | None) -> Asking:
    """How the base is asked: as itself where it was named, else with the system message that its adapters had, so
    that both are asked the same.
    """
    own = read_prompting(tuned[0][1].base.path)
    systems = {one.prompting.system for _, one in tuned if one.adapter is not None}
    system = systems.pop() if len(systems) == 1 and own.system is None else own.system
    return asking_of(tokenizer, Prompting(own.raw, system, own.thinking), raw=raw)

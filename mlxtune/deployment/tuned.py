"""What is put to work: a base model, the adapter on it if there is one, and how it wants its prompts.

A run names all three; so do a model source and an adapter folder, and a model alone. Every verb of this floor takes the
same names, and finds here what they mean.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.adapters.format import base_hash, read_config
from mlxtune.adapters.open import attach_adapter
from mlxtune.device.precision import Precision
from mlxtune.errors import UsageError
from mlxtune.files import check_not_inside
from mlxtune.iteration.opening import find_base
from mlxtune.models import chat_template
from mlxtune.models.load import Model, open_model, precision_to_ask
from mlxtune.models.source import ModelFolder, find_model
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.progress import Progress, silent
from mlxtune.runs.folder import RunFolder, is_run_folder, open_run
from mlxtune.runs.prompting import FILE, Prompting, read_prompting


@dataclass(frozen=True)
class Tuned:
    """A model to put to work; ``adapter`` and ``run`` are None where there is none."""

    base: ModelFolder
    adapter: Path | None
    run: RunFolder | None
    prompting: Prompting

    @property
    def chat_template(self) -> Path | None:
        """The template that the adapter was trained with in place of the base's own, if there is one."""
        path = None if self.adapter is None else self.adapter / chat_template.FILE
        return path if path is not None and path.is_file() else None

    @property
    def other_base(self) -> str | None:
        """A sentence for the user, if the adapter says that its base was not this one. Raises: AdapterError."""
        if self.adapter is None or base_hash(read_config(self.adapter)) in (None, self.base.sha256):
            return None
        return "the adapter was trained on another base, or the same stored otherwise"

    def open(self, precision: Precision) -> Model:
        """The base with the adapter on it. Raises: ModelError; AdapterError, if the two do not fit."""
        if self.adapter is None:
            return open_model(self.base.path, precision_to_ask(self.base.path, precision))
        model = open_model(self.base.path, precision, self.chat_template)
        attach_adapter(model.network, self.adapter)
        return model

    def open_tokenizer(self) -> Any:
        """mlx_lm's TokenizerWrapper, with the chat template of training. Raises: ModelError."""
        return open_tokenizer(self.base.path, self.chat_template)


def find_tuned(source: str | Path, adapter: str | Path | None = None, *, progress: Progress = silent) -> Tuned:
    """What a run folder, or a model source with or without an adapter folder, means; fetched where needed.

    Raises: UsageError, for a run with another adapter; RunError, if the run has no adapter yet, or another base than it
        was trained on; ModelError; NetworkError.
    """
    if is_run_folder(Path(source)):
        if adapter is not None:
            raise UsageError("a run has an adapter of its own", where=source, remedy="leave out --adapter")
        run = open_run(Path(source))
        own = run.finished_adapter()
        return Tuned(find_base(run, progress=progress), own, run, read_prompting(own))
    base = find_model(str(source), progress=progress)
    if adapter is None:
        return Tuned(base, None, None, read_prompting(base.path))
    asked = Path(adapter) if (Path(adapter) / FILE).is_file() else base.path
    return Tuned(base, Path(adapter), None, read_prompting(asked))


def check_not_replaced(out: Path, tuned: Tuned, **others: Path | None) -> None:
    """Raises: UsageError, if ``out`` is what is read, or holds it: ``force`` is no leave to replace that."""
    read = {"run": None if tuned.run is None else tuned.run.path, "adapter": tuned.adapter, **others}
    for base in (tuned.base.path, Path(tuned.base.source)):  # of a GGUF file the first is in the cache
        check_not_inside(out, read | {"base model": base})

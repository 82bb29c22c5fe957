"""mlxtune: fine-tune a language model on your own data, and prove that it got better.

The functions behind the command line, under its own words:

    result = mlxtune.train("support-triage", ["training.epochs=1"], run_dir="runs/first")
    scores = mlxtune.evaluate("runs/first")
    model = mlxtune.load("runs/first")
    answers = mlxtune.generate(model, ["My lamp flickers."])
    mlxtune.fuse("runs/first", "fused/first")
    mlxtune.export_gguf("runs/first", "first.gguf")

Each is loaded when it is first asked for, so that importing the package opens the BLAS and does nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mlxtune.device.blas import open_blas

if TYPE_CHECKING:
    from mlxtune.deployment.answer import generate
    from mlxtune.deployment.answer import open_answerer as load
    from mlxtune.deployment.export.gguf import export_gguf
    from mlxtune.deployment.export.hub import export_hub
    from mlxtune.deployment.export.lmstudio import export_lmstudio
    from mlxtune.deployment.export.ollama import export_ollama
    from mlxtune.deployment.export.peft import export_peft
    from mlxtune.deployment.fuse_run import fuse_run as fuse
    from mlxtune.errors import MlxtuneError
    from mlxtune.iteration.converting import convert
    from mlxtune.iteration.run import resume_run as resume
    from mlxtune.iteration.run import run_recipe as train
    from mlxtune.iteration.score import evaluate
    from mlxtune.recipe.load import load_recipe

__all__ = [
    "MlxtuneError",
    "convert",
    "evaluate",
    "export_gguf",
    "export_hub",
    "export_lmstudio",
    "export_ollama",
    "export_peft",
    "fuse",
    "generate",
    "load",
    "load_recipe",
    "resume",
    "train",
]

_HOMES = {
    "MlxtuneError": ("mlxtune.errors", "MlxtuneError"),
    "convert": ("mlxtune.iteration.converting", "convert"),
    "evaluate": ("mlxtune.iteration.score", "evaluate"),
    "export_gguf": ("mlxtune.deployment.export.gguf", "export_gguf"),
    "export_hub": ("mlxtune.deployment.export.hub", "export_hub"),
    "export_lmstudio": ("mlxtune.deployment.export.lmstudio", "export_lmstudio"),
    "export_ollama": ("mlxtune.deployment.export.ollama", "export_ollama"),
    "export_peft": ("mlxtune.deployment.export.peft", "export_peft"),
    "fuse": ("mlxtune.deployment.fuse_run", "fuse_run"),
    "generate": ("mlxtune.deployment.answer", "generate"),
    "load": ("mlxtune.deployment.answer", "open_answerer"),
    "load_recipe": ("mlxtune.recipe.load", "load_recipe"),
    "resume": ("mlxtune.iteration.run", "resume_run"),
    "train": ("mlxtune.iteration.run", "run_recipe"),
}

open_blas()  # has to come before any import of mlx


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mlxtune' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Run by training_vs_mlx_lm.py: what ``mlx_lm.lora`` does, with a record of every step.

The same functions in the same order as ``mlx_lm.lora.run``, which drops the callback that it is given; hence not that
one call. mlxtune is imported first, so that mlx_lm too multiplies with the fast BLAS: with the one in MLX's Linux
wheel it would be many times slower. Nothing else of mlx_lm is touched.

The argument is a JSON file: ``{"device", "record": file, "settings": what a configuration file of mlx_lm.lora holds}``.
"""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx

# isort: split
import mlx.core as mx
import numpy as np


def train(settings: dict[str, Any], record: Path) -> None:
    """Train by ``settings``; a line a report goes to ``record``."""
    from mlx_lm import load
    from mlx_lm.lora import CONFIG_DEFAULTS, train_model
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.datasets import load_dataset

    class Recorder(TrainingCallback):
        def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
            with record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(train_info) + "\n")

    args: Any = types.SimpleNamespace(**CONFIG_DEFAULTS | settings)
    np.random.seed(args.seed)  # noqa: NPY002 - the state that mlx_lm draws the order of its batches from
    opened: Any = load(args.model)
    model, tokenizer = opened
    train_set, valid_set, _ = load_dataset(args, tokenizer)
    train_model(args, model, train_set, valid_set, Recorder())


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # as mlx_lm.lora.main does
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if asked["device"] == "cpu":
        mx.set_default_device(mx.Device(mx.cpu))
    train(asked["settings"], Path(asked["record"]))

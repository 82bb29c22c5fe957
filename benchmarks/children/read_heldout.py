"""Run by training_vs_mlx_lm.py: the loss on held-out rows of the base and of every adapter, all read the same way.

Base and adapters are opened by ``mlx_lm.load``, which reads both programs' folders, and read by mlxtune's held-out
reader on the same targets. The adapters must have the same tensors, else the programs did not train the same layers.

The argument is a JSON file: ``{"device", "model", "rows": file, "train_on", "max_seq_length", "adapters": {name:
folder}}``. Standard output: ``{"base": loss, name: loss, ...}``, in nats a target token.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx

# isort: split
import mlx.core as mx
import mlx_lm

from mlxtune.data.dataset import load_rendered
from mlxtune.device.choose import open_device
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.inference.likelihood import make_reader
from mlxtune.models.tokenizer import open_tokenizer


def read(asked: dict[str, Any]) -> dict[str, float]:
    """The held-out loss of the base and of every adapter."""
    open_device(asked["device"])
    tokenizer = open_tokenizer(Path(asked["model"]))
    rows = load_rendered(
        Path(asked["rows"]), tokenizer, train_on=asked["train_on"], max_seq_length=asked["max_seq_length"]
    ).rows
    refuse_different_tensors(asked["adapters"])
    losses = {}
    for name, adapter in [("base", None), *asked["adapters"].items()]:
        network = mlx_lm.load(asked["model"], adapter_path=adapter)[0]
        network.eval()
        losses[name] = read_heldout(make_reader(network), tokenizer, rows).loss
    return losses


def refuse_different_tensors(adapters: dict[str, str]) -> None:
    """Raise ValueError, unless all adapters have tensors of the same names and shapes."""
    shapes = {}
    for name, folder in adapters.items():
        tensors = mx.load(str(Path(folder) / "adapters.safetensors"))
        assert isinstance(tensors, dict)
        shapes[name] = {tensor: array.shape for tensor, array in tensors.items()}
    first = next(iter(shapes))
    for name, found in shapes.items():
        if found != shapes[first]:
            raise ValueError(f"{name} and {first} have other tensors: {sorted(set(found) ^ set(shapes[first]))[:6]}")


if __name__ == "__main__":
    json.dump(read(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout)

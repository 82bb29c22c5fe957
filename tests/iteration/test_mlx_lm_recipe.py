"""A recipe that was imported from mlx_lm.lora trains what mlx_lm.lora does, in the same shapes."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from tiny import tiny_llama, tiny_model_folder, tiny_recipe

from mlxtune.iteration.run import run_recipe
from mlxtune.recipe.mlx_lm_config import as_yaml, import_config

LAYERS = 3


@pytest.mark.parametrize(
    ("kind", "blocks", "lora"),
    [
        ("lora", 2, {"rank": 4, "scale": 10.0, "dropout": 0.0}),
        ("dora", 2, {"rank": 4, "scale": 10.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "model.embed_tokens"]}),
        ("lora", -1, {"rank": 2, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "mlp.down_proj"]}),
    ],
)
def test_the_adapter_has_the_shapes_and_the_scale_of_mlx_lm(tmp_path: Path, kind: str, blocks: int, lora: dict):
    run = trained(tmp_path, {"fine_tune_type": kind, "num_layers": blocks, "lora_parameters": lora})
    theirs = tiny_llama(layers=LAYERS, hidden=32, heads=2, kv_heads=1)
    linear_to_lora_layers(theirs, blocks, dict(lora), use_dora=kind == "dora")
    added: Any = tree_flatten(theirs.trainable_parameters())
    expected = {name: value.shape for name, value in added}
    ours: Any = mx.load(str(run / "adapter" / "adapters.safetensors"))
    assert {name: value.shape for name, value in ours.items()} == expected
    written = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert written["lora_parameters"]["scale"] == lora["scale"]


@pytest.mark.parametrize("blocks", [1, -1])
def test_full_tuning_trains_the_weights_that_mlx_lm_trains(tmp_path: Path, blocks: int):
    run = trained(tmp_path, {"fine_tune_type": "full", "num_layers": blocks})
    theirs = tiny_llama(layers=LAYERS, hidden=32, heads=2, kv_heads=1)
    for block in theirs.layers[-max(blocks, 0) :]:  # as mlx_lm.lora's train_model has it
        block.unfreeze()
    added: Any = tree_flatten(theirs.trainable_parameters())
    ours: Any = mx.load(str(run / "adapter" / "adapters.safetensors"))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in added}


def trained(folder: Path, config: dict) -> Path:
    """The folder of a run of one update by an imported configuration."""
    tiny_recipe(folder)
    tiny_model_folder(folder / "three", layers=LAYERS, hidden=32, heads=2, kv_heads=1)
    whole = {"model": str(folder / "three"), "data": str(folder), "iters": 1, **config}
    (folder / "lora.yaml").write_text(json.dumps(whole))
    (folder / "mine.yaml").write_text(as_yaml(import_config(folder / "lora.yaml").values, "imported"))
    return run_recipe(folder / "mine.yaml", device="cpu", run_dir=folder / "run", score=False).run_dir

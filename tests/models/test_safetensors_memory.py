"""A model larger than memory is rewritten a tensor at a time: what MLX held at the most is counted by MLX itself."""

import json
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tiny import tiny_config, tiny_llama, write_tokenizer

from mlxtune.models.rewrite import rewrite_folder
from mlxtune.models.write import write_weights

SHAPE = {"layers": 6, "hidden": 512, "heads": 8, "kv_heads": 8, "tied": False}
SHARD = 8_000_000
LARGEST_TENSOR = 4 * 512 * 1024


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MB of float32 in shards of 8."""
    folder = tmp_path_factory.mktemp("model")
    weights = tree_flatten(tiny_llama(**SHAPE).parameters())
    write_weights(folder, weights, count=len(weights), shard_bytes=SHARD)
    (folder / "config.json").write_text(json.dumps(tiny_config(**SHAPE)))
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize(
    "how",
    [{}, {"quantize": (4, 32)}, {"quantize": (8, 64)}, {"dtype": "bfloat16"}, {"dtype": "float16"}],
    ids=["as stored", "4 bits", "8 bits", "bfloat16", "float16"],
)
def test_memory_holds_what_one_tensor_is_made_of(model, tmp_path, how):
    whole = sum(path.stat().st_size for path in model.glob("model*.safetensors"))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()

    rewrite_folder(model, tmp_path, shard_bytes=SHARD, **how)

    held = mx.get_peak_memory() - before
    assert held < 3 * LARGEST_TENSOR
    assert held < whole / 8
    assert len(list(tmp_path.glob("model*.safetensors"))) > 1

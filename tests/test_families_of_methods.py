"""Every family in the methods beyond plain LoRA: gradients, a run that is resumed to the same bits, fused and opened.

A few here and now, the others with `make test-slow`.
"""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, family_folder, tiny_network
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from tiny import tiny_row

from mlxtune.adapters.full import FullShape, unfreeze_weights
from mlxtune.adapters.open import attach_adapter
from mlxtune.data.batch import make_batch
from mlxtune.data.render import Rendered
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16, apply_precision
from mlxtune.errors import AdapterError
from mlxtune.inference.likelihood import make_reader
from mlxtune.iteration.run import run_recipe
from mlxtune.models.load import open_model
from mlxtune.training.frozen_prefix import read_frozen_prefix
from mlxtune.training.masters import brought_to, in_use, keep_masters
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.recompute import recompute_blocks

FAST = ("llama", "gemma2", "qwen3_moe", "mamba")

each_family = pytest.mark.parametrize(
    "family", [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    prefix = generator.integers(0, 200, 12)
    ids = [np.concatenate([prefix, generator.integers(0, 200, length)]).astype(np.int32) for length in (5, 9, 14)]
    return [Rendered(row, np.arange(len(row)) > 12, "rows") for row in ids]


@each_family
@pytest.mark.parametrize("embeddings", [False, True], ids=["top block", "and embeddings"])
def test_what_saves_work_leaves_the_gradients_of_whole_weights_as_they_are(family, embeddings, rows):
    network = tiny_network(family)
    unfreeze_weights(network, FullShape(1, embeddings))
    reader = make_reader(network)

    def gradients(reader, batch):
        return dict(tree_flatten(nn.value_and_grad(network, lambda: sft_loss_sum(reader, batch))()[1]))

    plain = replace(reader, anatomy=None, windows=None)
    expected = gradients(plain, make_batch(rows, range(3), share_prefix=False))
    shared = make_batch(rows, range(3), share_prefix=reader.shares_prefixes)
    frozen = read_frozen_prefix(reader, rows, model_sha256="0" * 64)
    ways = {"shared": gradients(reader, shared), "frozen": gradients(frozen.reader, frozen.lift(shared))}
    recompute_blocks(network, 1)
    ways["recomputed"] = gradients(reader, shared)
    largest = max(np.abs(np.array(array)).max() for array in expected.values())
    for way, found in ways.items():
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            close = {"rtol": 0, "atol": 3e-4 * largest, "err_msg": f"{way}: {name}"}
            np.testing.assert_allclose(np.array(found[name]), np.array(array), **close)


@each_family
def test_masters_are_float32_and_what_a_step_computes_with_is_the_gpus(family, rows):
    network = tiny_network(family)
    apply_precision(network, GPU_BFLOAT16)
    before = {name: array.dtype for name, array in tree_flatten(network.parameters())}
    unfreeze_weights(network, FullShape("all", train_embeddings=True))
    keep_masters(network)
    assert {array.dtype for _, array in tree_flatten(network.trainable_parameters())} == {mx.float32}
    with in_use(network, brought_to(network, mx.bfloat16)):
        assert {name: array.dtype for name, array in tree_flatten(network.parameters())} == before
        if any(isinstance(module, SwitchLinear) for module in network.modules()):
            return  # MLX's CPU multiplies a mixture's experts in float32 alone
        reader = make_reader(network)
        loss = sft_loss_sum(reader, make_batch(rows, range(3), share_prefix=reader.shares_prefixes))
    assert np.isfinite(loss.item())


@each_family
@pytest.mark.parametrize(
    "method",
    ["{type: full, layers: {top: 1}, train_embeddings: true}", "{type: dora, rank: 2}", "{rank: 2, use_rslora: true}"],
    ids=["full", "dora", "rslora"],
)
def test_a_run_learns_and_its_fused_folder_answers_as_base_and_adapter_do(family, method, tmp_path):
    family_folder(tmp_path / "model", family)
    texts = [tiny_row(f"{number}") for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (tmp_path / "recipe.yaml").write_text(
        "{name: family, model: {source: ./model}, data: {train: rows.jsonl}, "
        f"method: {method}, training: {{max_steps: 3, learning_rate: 5.0e-3}}}}"
    )
    try:
        result = run_recipe(tmp_path / "recipe.yaml", device="cpu", run_dir=tmp_path / "run", score=False)
    except AdapterError as error:
        assert "DoRA is not available" in error.message  # noqa: PT017 - a mixture's experts
        assert "dora" in method
        return
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    fuse_run(tmp_path / "run", tmp_path / "fused", device="cpu")
    base, fused = (open_model(tmp_path / name, CPU_FLOAT32).network for name in ("model", "fused"))
    tokens = mx.array([[5, 6, 7, 8, 100, 31]])
    before = np.array(base(tokens))
    attach_adapter(base, tmp_path / "run" / "adapter")
    after = np.array(base(tokens))
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(np.array(fused(tokens)), after, rtol=0, atol=1e-3 * np.abs(after).max())

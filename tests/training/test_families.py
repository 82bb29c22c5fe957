"""What saves work saves it in every family without changing a gradient: sharing, pieces, recomputing, frozen blocks.

The measure is the network's own full logits of whole rows. Where a family cannot have a saving, it falls back by
itself, and the gradients are those all the same.
"""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, family_folder, tiny_network
from mlx import nn
from mlx.utils import tree_flatten
from tiny import tiny_row

from mlxtune.adapters.attach import LoraShape, attach_lora
from mlxtune.adapters.lora import lora_layers
from mlxtune.data.batch import make_batch
from mlxtune.data.render import Rendered
from mlxtune.inference.likelihood import make_reader
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.recipe.load import load_recipe
from mlxtune.training.frozen_prefix import read_frozen_prefix
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.recompute import recompute_blocks

FAST = ("mistral", "gemma2", "gemma3_text", "gemma4_text", "granite", "phi", "qwen3_moe", "qwen3_5", "mamba", "rwkv7")
PREFIX = 12  # wider than the windows, as some rows are

each_family = pytest.mark.parametrize(
    "family", [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    prefix = generator.integers(0, 200, PREFIX)
    ids = [np.concatenate([prefix, generator.integers(0, 200, length)]).astype(np.int32) for length in (5, 9, 14, 20)]
    return [Rendered(row, np.arange(len(row)) > PREFIX, "rows") for row in ids]


@pytest.fixture(scope="module")
def expected_of(rows):
    """A function that gives a family's loss and gradients from full logits of whole rows."""
    known = {}

    def expected(family, layers):
        if (family, layers) not in known:
            network = adapted(family, layers)
            plain = replace(make_reader(network), anatomy=None, windows=None)
            known[family, layers] = loss_and_gradients(network, plain, make_batch(rows, range(4), share_prefix=False))
        return known[family, layers]

    return expected


def adapted(family, layers="all"):
    """A network with both factors of every adapter away from zero."""
    network = tiny_network(family)
    network.freeze()
    attach_lora(network, LoraShape(rank=4, alpha=8.0, layers=layers), seed=0)
    for number, (_, layer) in enumerate(lora_layers(network)):
        layer.lora_b = 0.05 * mx.random.normal(layer.lora_b.shape, key=mx.random.key(number))
    return network


def loss_and_gradients(network, reader, batch):
    loss, gradients = nn.value_and_grad(network, lambda: sft_loss_sum(reader, batch))()
    return loss.item(), {name: np.array(array) for name, array in tree_flatten(gradients)}


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys()
    largest = max(np.abs(array).max() for array in expected[1].values())
    for name, array in expected[1].items():
        np.testing.assert_allclose(found[1][name], array, rtol=0, atol=2e-4 * largest, err_msg=name)


@each_family
def test_targets_alone_prefixes_once_and_rows_in_pieces(family, rows, expected_of):
    network = adapted(family)
    reader = make_reader(network)
    batch = make_batch(rows, range(4), share_prefix=reader.shares_prefixes)
    assert (batch.prefix_ids.shape[0] >= PREFIX) is reader.shares_prefixes
    for piece in (reader.piece, 4):
        found = loss_and_gradients(network, replace(reader, piece=piece), batch)
        assert_same(found, expected_of(family, "all"))


@each_family
def test_recomputed_blocks(family, rows, expected_of):
    network = adapted(family)
    reader = make_reader(network)
    assert recompute_blocks(network, 1) == len(network.layers)
    whole = make_batch(rows, range(4), share_prefix=False)
    assert_same(loss_and_gradients(network, replace(reader, windows=None), whole), expected_of(family, "all"))
    batch = make_batch(rows, range(4), share_prefix=reader.shares_prefixes)
    assert_same(loss_and_gradients(network, replace(reader, piece=4), batch), expected_of(family, "all"))


@each_family
def test_frozen_blocks_read_once(family, rows, expected_of):
    network = adapted(family, layers=1)
    reader = make_reader(network)
    frozen = read_frozen_prefix(reader, rows, model_sha256="0" * 64)
    batch = make_batch(rows, range(4), share_prefix=reader.shares_prefixes)
    assert_same(loss_and_gradients(network, frozen.reader, frozen.lift(batch)), expected_of(family, 1))


@pytest.mark.parametrize(
    ("family", "reads_once"),
    [("llama", True), ("gemma2", True), ("granite", True), ("phi3", True), ("mistral", False), ("gemma3_text", False)],
)
def test_blocks_with_a_window_are_not_taken_apart(family, reads_once, rows):
    reader = make_reader(adapted(family, layers=1))
    assert (read_frozen_prefix(reader, rows, model_sha256="0" * 64).states is not None) is reads_once


@pytest.mark.parametrize("family", ["qwen3_5", "lfm2"])
def test_training_asks_for_what_has_a_gradient_on_every_device(family, tmp_path):
    family_folder(tmp_path / "model", family)
    (tmp_path / "rows.jsonl").write_text(json.dumps(tiny_row("x")) + "\n")
    (tmp_path / "recipe.yaml").write_text("{name: t, model: {source: ./model}, data: {train: rows.jsonl}}")
    ready = make_ready(open_recipe(load_recipe(tmp_path / "recipe.yaml").recipe, device="cpu"))
    # by this mlx_lm's classes choose between a Metal kernel without a gradient and plain operations
    assert all(module.training for module in ready.state.network.modules())

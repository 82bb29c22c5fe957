import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from tiny import tiny_llama

from mlxtune.adapters.attach import LoraShape, attach_lora
from mlxtune.adapters.lora import lora_layers
from mlxtune.data.batch import make_batch
from mlxtune.data.render import Rendered
from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.inference.likelihood import make_reader
from mlxtune.training import frozen_prefix
from mlxtune.training.frozen_prefix import frozen_depth, read_frozen_prefix
from mlxtune.training.objectives.sft import sft_loss_sum

PREFIX, LENGTHS = 20, (5, 9, 14, 2)


def network_with_adapters(layers, **shape):
    """Four blocks, adapters on the top ones, both factors away from zero."""
    network = tiny_llama(layers=4, **shape)
    attach_lora(network, LoraShape(rank=4, alpha=8.0, dropout=0.0, target_modules="all-linear", layers=layers), seed=0)
    for number, (_, layer) in enumerate(lora_layers(network)):
        layer.lora_b = 0.05 * mx.random.normal(layer.lora_b.shape, key=mx.random.key(number))
    return network


@pytest.fixture
def dataset():
    generator = np.random.default_rng(0)
    prefix = generator.integers(0, 200, PREFIX)
    rows = []
    for length in LENGTHS:
        ids = np.concatenate([prefix, generator.integers(0, 200, length)]).astype(np.int32)
        is_target = np.arange(len(ids)) > PREFIX
        rows.append(Rendered(ids, is_target, "rows"))
    return rows


def loss_and_gradient(network, reader, batch):
    loss, gradients = nn.value_and_grad(network, lambda: sft_loss_sum(reader, batch))()
    return loss.item(), dict(tree_flatten(gradients))


@pytest.mark.parametrize("share_prefix", [True, False])
def test_loss_and_gradients_are_those_of_the_whole_network(dataset, share_prefix):
    network = network_with_adapters(layers=2)
    reader = make_reader(network)
    frozen = read_frozen_prefix(reader, dataset)
    assert frozen.states is not None
    batch = make_batch(dataset, [2, 0, 3], share_prefix=share_prefix)
    loss, gradients = loss_and_gradient(network, reader, batch)
    lifted_loss, lifted_gradients = loss_and_gradient(network, frozen.reader, frozen.lift(batch))
    assert lifted_loss == pytest.approx(loss, rel=1e-6)
    assert gradients.keys() == lifted_gradients.keys()
    for name, expected in gradients.items():
        scale = np.abs(np.array(expected)).max()
        np.testing.assert_allclose(
            np.array(lifted_gradients[name]), np.array(expected), atol=1e-5 * scale, err_msg=name
        )


def test_states_are_what_the_frozen_blocks_give_for_the_row_alone(dataset):
    network = network_with_adapters(layers=3)
    frozen = read_frozen_prefix(make_reader(network), dataset, max_tokens=60)
    for row, states in zip(dataset, frozen.states, strict=True):
        ids = mx.array(row.token_ids[None, :-1])
        expected = network.model.layers[0](network.model.embed_tokens(ids), "causal")[0]
        np.testing.assert_allclose(np.array(states), np.array(expected), atol=1e-5)


def test_with_adapters_from_the_first_block_on_nothing_is_kept(dataset):
    network = network_with_adapters(layers="all")
    reader = make_reader(network)
    frozen = read_frozen_prefix(reader, dataset)
    batch = make_batch(dataset, [0, 1], share_prefix=True)
    assert frozen.states is None
    assert (frozen.reader, frozen.lift(batch)) == (reader, batch)


def test_states_beyond_the_limit_are_not_kept(dataset, monkeypatch):
    monkeypatch.setattr(frozen_prefix, "LIMIT_BYTES", 1000)
    assert read_frozen_prefix(make_reader(network_with_adapters(layers=2)), dataset).states is None


def test_a_backbone_that_does_not_come_apart_is_read_whole(dataset):
    network = network_with_adapters(layers=2)
    backbone = network.model

    class ScalesItsEmbeddings(type(backbone)):
        def __call__(self, inputs, cache=None, input_embeddings=None):
            states = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings
            return super().__call__(inputs, cache, 3.0 * states)

    backbone.__class__ = ScalesItsEmbeddings
    assert read_frozen_prefix(make_reader(network), dataset).states is None


def test_the_gpus_precision_keeps_states_in_bfloat16(dataset):
    network = tiny_llama(layers=4, quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    shape = LoraShape(rank=4, alpha=8.0, dropout=0.0, target_modules="all-linear", layers=2)
    attach_lora(network, shape, seed=0)
    frozen = read_frozen_prefix(make_reader(network), dataset)
    assert {states.dtype for states in frozen.states} == {mx.bfloat16}
    batch = frozen.lift(make_batch(dataset, [0, 1, 2], share_prefix=True))
    loss, gradients = loss_and_gradient(network, frozen.reader, batch)
    assert np.isfinite(loss)
    assert {array.dtype for array in gradients.values()} == {mx.float32}


@pytest.mark.parametrize(("layers", "depth"), [("all", 0), (3, 1), (1, 3)])
def test_the_frozen_depth_is_the_number_of_blocks_below_the_lowest_adapter(layers, depth):
    assert frozen_depth(make_reader(network_with_adapters(layers)).anatomy) == depth

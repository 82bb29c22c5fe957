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
from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16, apply_precision
from mlxtune.inference.likelihood import make_reader
from mlxtune.training import frozen_prefix
from mlxtune.training.frozen_prefix import frozen_depth, read_frozen_prefix
from mlxtune.training.objectives.sft import sft_loss_sum

PREFIX, LENGTHS = 20, (5, 9, 14, 2)


def network_with_adapters(layers, *, precision=CPU_FLOAT32, **shape):
    """Four blocks, adapters on the top ones, both factors away from zero."""
    network = tiny_llama(layers=4, **shape)
    apply_precision(network, precision)
    network.freeze()
    attach_lora(network, LoraShape(rank=4, alpha=8.0, dropout=0.0, target_modules="all-linear", layers=layers), seed=0)
    for number, (_, layer) in enumerate(lora_layers(network)):
        layer.lora_b = 0.05 * mx.random.normal(layer.lora_b.shape, key=mx.random.key(number))
    return network


def read(reader, dataset, **options):
    return read_frozen_prefix(reader, dataset, model_sha256="0" * 64, **options)


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
    frozen = read(reader, dataset)
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
    frozen = read(make_reader(network), dataset, max_tokens=60)
    for number, row in enumerate(dataset):
        ids = mx.array(row.token_ids[None, :-1])
        expected = network.model.layers[0](network.model.embed_tokens(ids), "causal")[0]
        np.testing.assert_allclose(np.array(frozen.states[number])[:-1], np.array(expected), atol=1e-5)


def test_with_adapters_from_the_first_block_on_nothing_is_kept(dataset):
    network = network_with_adapters(layers="all")
    reader = make_reader(network)
    frozen = read(reader, dataset)
    batch = make_batch(dataset, [0, 1], share_prefix=True)
    assert frozen.states is None
    assert (frozen.reader, frozen.lift(batch)) == (reader, batch)


@pytest.fixture
def no_memory(tmp_path, monkeypatch):
    """Everything is beyond the bound in memory; the cache is the test's own."""
    monkeypatch.setattr(frozen_prefix, "MEMORY_BYTES", 0)
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path))
    return tmp_path / "frozen_states"


@pytest.mark.parametrize("precision", [CPU_FLOAT32, GPU_BFLOAT16])
def test_beyond_the_bound_states_lie_in_a_mapped_file_with_the_same_bits(dataset, no_memory, monkeypatch, precision):
    network = network_with_adapters(layers=2, quantized=True, precision=precision)
    mapped = read(make_reader(network), dataset)
    assert isinstance(mapped.states.array, np.memmap)
    assert not mapped.states.array.flags.writeable
    monkeypatch.setattr(frozen_prefix, "MEMORY_BYTES", 1 << 30)
    kept = read(make_reader(network), dataset)
    assert mapped.states.array.tobytes() == kept.states.array.tobytes()
    batch = make_batch(dataset, [0, 1, 2], share_prefix=True)
    assert mx.array_equal(mapped.lift(batch).token_ids, kept.lift(batch).token_ids)


def test_the_next_run_finds_them_and_reads_nothing(dataset, no_memory):
    network = network_with_adapters(layers=2)
    told = []
    read(make_reader(network), dataset, progress=lambda *report: told.append(report))
    assert told
    told.clear()
    read(make_reader(network), dataset, progress=lambda *report: told.append(report))
    assert told == []
    assert len(list(no_memory.iterdir())) == 1


def test_two_processes_that_read_the_same_rows_at_once_both_have_them(dataset, no_memory):
    reader = make_reader(network_with_adapters(layers=2))
    others = []

    def meanwhile(*_):
        if not others:
            others.append(None)  # the other process is no further yet
            others.append(read(reader, dataset))

    mine = read(reader, dataset, progress=meanwhile)
    assert mine.states.array.tobytes() == others[1].states.array.tobytes()
    assert len(list(no_memory.iterdir())) == 1


def test_another_base_cut_or_row_is_another_entry(dataset, no_memory):
    reader = make_reader(network_with_adapters(layers=2))
    read(reader, dataset)
    read_frozen_prefix(reader, dataset, model_sha256="1" * 64)
    read(make_reader(network_with_adapters(layers=1)), dataset)
    read(reader, dataset[1:])
    assert len(list(no_memory.iterdir())) == 4


def test_a_kill_while_they_are_written_leaves_no_entry(dataset, no_memory):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with pytest.raises(Killed):
        read(make_reader(network_with_adapters(layers=2)), dataset, progress=kill)
    assert list(no_memory.iterdir()) == []


def test_without_room_on_the_disk_nothing_is_kept(dataset, no_memory, monkeypatch):
    monkeypatch.setattr(frozen_prefix, "DISK_SHARE", 0.0)
    assert read(make_reader(network_with_adapters(layers=2)), dataset).states is None
    assert list(no_memory.iterdir()) == []


def test_a_backbone_that_does_not_come_apart_is_read_whole(dataset):
    network = network_with_adapters(layers=2)
    backbone = network.model

    class ScalesItsEmbeddings(type(backbone)):
        def __call__(self, inputs, cache=None, input_embeddings=None):
            states = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings
            return super().__call__(inputs, cache, 3.0 * states)

    backbone.__class__ = ScalesItsEmbeddings
    assert read(make_reader(network), dataset).states is None


def test_the_gpus_precision_keeps_states_in_bfloat16(dataset):
    network = tiny_llama(layers=4, quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    shape = LoraShape(rank=4, alpha=8.0, dropout=0.0, target_modules="all-linear", layers=2)
    attach_lora(network, shape, seed=0)
    frozen = read(make_reader(network), dataset)
    assert frozen.states[0].dtype == mx.bfloat16
    batch = frozen.lift(make_batch(dataset, [0, 1, 2], share_prefix=True))
    loss, gradients = loss_and_gradient(network, frozen.reader, batch)
    assert np.isfinite(loss)
    assert {array.dtype for array in gradients.values()} == {mx.float32}


@pytest.mark.parametrize(("layers", "depth"), [("all", 0), (3, 1), (1, 3)])
def test_the_frozen_depth_is_the_number_of_blocks_below_the_lowest_adapter(layers, depth):
    assert frozen_depth(make_reader(network_with_adapters(layers)).anatomy) == depth

"""The GPU's number formats, run on the CPU: no line of that path is first run on somebody's Mac."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from mlxtune.adapters.lora import LoRALinear
from mlxtune.data.batch import make_batch
from mlxtune.device.precision import GPU_BFLOAT16
from mlxtune.inference.likelihood import make_reader, target_states
from mlxtune.training.objectives.sft import sft_loss_sum


@pytest.fixture(scope="module")
def state(tiny_training):
    return tiny_training.state(quantized=True, precision=GPU_BFLOAT16, weight_decay=0.0)


@pytest.fixture(scope="module")
def rows(tiny_training):
    return tiny_training.rows([6, 9, 4, 7], prefix=5)


def test_every_activation_is_bfloat16_and_nothing_widens_it(state, rows):
    network, seen = state.network, {}
    plain = {}
    for path, module in network.named_modules():
        if isinstance(module, LoRALinear | nn.RMSNorm | nn.QuantizedLinear | nn.QuantizedEmbedding):
            plain[path] = module, type(module)
            module.__class__ = watched(type(module), path, seen)
    reader = make_reader(network)
    seen.clear()
    batch = make_batch(rows, range(4), share_prefix=True)
    assert batch.prefix_ids.shape[0] >= 5
    states = target_states(reader, batch.prefix_ids, batch.token_ids, batch.target_index)
    loss = sft_loss_sum(reader, batch)
    for module, kind in plain.values():
        module.__class__ = kind
    assert seen.keys() == plain.keys()
    assert set(seen.values()) == {mx.bfloat16}
    assert states.dtype == mx.bfloat16
    assert loss.dtype == mx.float32


def watched(kind, path, seen):
    """The module's class, noting the type of what each call gives."""

    class Watched(kind):
        def __call__(self, *args, **options):
            result = super().__call__(*args, **options)
            seen[path] = result.dtype if seen.get(path, result.dtype) == result.dtype else None
            return result

    return Watched


def test_twenty_steps_lower_the_loss_and_leave_factors_and_moments_in_float32(tiny_training, state, rows):
    plan = tiny_training.plan(rows, batch_size=4, epochs=20, learning_rate=2e-2, validate_every=10)
    base = {name: np.array(array.view(mx.uint16)) for name, array in frozen(state) if array.dtype == mx.bfloat16}
    trained = tiny_training.train(state, plan, rows)
    assert len(trained.losses) == 20
    assert np.isfinite(trained.losses).all()
    assert np.mean(trained.losses[-5:]) < 0.9 * np.mean(trained.losses[:5])
    assert {array.dtype for _, array in tree_flatten(state.network.trainable_parameters())} == {mx.float32}
    moments = [array for name, array in tree_flatten(state.optimizer.state) if name.endswith((".m", ".v"))]
    assert {array.dtype for array in moments} == {mx.float32}
    after = dict(frozen(state))
    assert all(np.array_equal(array, np.array(after[name].view(mx.uint16))) for name, array in base.items())


def frozen(state):
    return [item for item in tree_flatten(state.network.parameters()) if "lora" not in item[0]]


def test_gradients_agree_with_those_of_float32(tiny_training, rows):
    plan = tiny_training.plan(rows, batch_size=4)
    lines = [
        tiny_training.train(tiny_training.state(quantized=True, precision=precision), plan, rows).lines[0]
        for precision in (None, GPU_BFLOAT16)
    ]
    assert lines[1]["loss"] == pytest.approx(lines[0]["loss"], rel=1e-2)
    assert lines[1]["grad_norm"] == pytest.approx(lines[0]["grad_norm"], rel=5e-2)

"""How many positions are read at once, by an estimate; and that reading in small batches finds the same."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_llama

from mlxtune.data.batch import READING_TOKENS
from mlxtune.data.render import Rendered
from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.evaluation import pace
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.evaluation.pace import positions_at_once, reading_tokens
from mlxtune.inference.likelihood import make_reader


@pytest.mark.parametrize(
    ("parameters", "flops_per_s", "positions"),
    [
        (7_000_000_000, 1.3e12, 92),  # 7 B on an M2: 1.3e12 / 14e9
        (135_000_000, 1.3e12, READING_TOKENS),  # 4814 would be read in a second
        (10**15, 1.0, 1),
        (0, 1.0, 1),
    ],
)
def test_as_many_as_are_read_in_a_second(parameters, flops_per_s, positions):
    assert positions_at_once(parameters, flops_per_s) == positions


def test_on_the_cpu_nothing_is_bounded():
    assert reading_tokens(tiny_llama()) == READING_TOKENS or mx.default_device() == mx.gpu


class Decoder:
    def decode(self, ids, **_):
        return "x" * len(ids)


def test_with_a_gpus_number_formats_a_row_at_a_time_finds_what_all_at_once_do(monkeypatch):
    network = tiny_llama(quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    generator = np.random.default_rng(0)
    rows = [
        Rendered(generator.integers(3, 259, 12).astype(np.int32), np.arange(12) > 6, f"row {number}")
        for number in range(6)
    ]
    reader = make_reader(network)
    whole = read_heldout(reader, Decoder(), rows, max_tokens=READING_TOKENS)
    seen = []
    monkeypatch.setattr("mlxtune.evaluation.heldout.reading_tokens", lambda _: positions_at_once(10**9, 2e9 * 12))
    parts = read_heldout(reader, Decoder(), rows, progress=lambda _, done, __: seen.append(done))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert parts.loss_sum == pytest.approx(whole.loss_sum, rel=2e-2)
    assert parts.target_count.tolist() == whole.target_count.tolist()
    assert pace.LONGEST_S == 1.0

"""What mlx-lm's trainer does to rows, and does not happen here: the same claim, made of both on the same rows.

Where the two can be compared they agree: its loss is ours on rows that need no padding and are targets throughout. Each
other test makes a claim of our batches and shows that it is false of mlx-lm's. A version of mlx-lm in which it has
become true makes the test fail and say so; then that comparison can go.
"""

import itertools
import json
from collections import Counter
from functools import partial
from importlib.metadata import version

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn, optimizers
from mlx.utils import tree_flatten
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset, ChatDataset
from tiny import tiny_llama, tiny_row, tiny_tokenizer

from mlxtune.data.batch import make_batch
from mlxtune.data.dataset import load_rendered
from mlxtune.data.order import BatchSize, batch_order
from mlxtune.data.render import Rendered
from mlxtune.errors import DataError
from mlxtune.inference.likelihood import make_reader
from mlxtune.training.loop import epoch_windows
from mlxtune.training.objectives.sft import sft_loss_sum

LIMIT = 4096
LENGTHS = (6, 13, 9, 11, 5, 21, 8, 17, 4, 10)
RATE = 1e-2


def is_false_of_mlx_lm(claim: bool) -> None:
    assert not claim, f"this defect is gone from mlx-lm {version('mlx-lm')}: the comparison can go"


class Rows:
    """The same rows in mlx-lm's form, as its own command gives them: raw ones, tokens and prompt length on demand."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return {"messages": self.rows[row]}

    def process(self, raw):
        return raw["messages"].token_ids.tolist(), 0


def mlx_lm_batches(rows, size, *, limit=LIMIT):
    """One epoch of mlx-lm's batches: token ids [B, L] and (prompt length, length) of each row [B, 2]."""
    return list(trainer.iterate_batches(CacheDataset(Rows(rows)), size, limit, seed=0))


def our_batches(rows, size):
    order = batch_order(rows, BatchSize(rows=size), seed=0, share_prefix=False)
    return [make_batch(rows, numbers, share_prefix=False) for numbers in order.epoch(0)]


def text_rows(lengths, *, seed=0):
    """Random rows, targets throughout but for the first token; no two begin alike, and no token is 0, mlx-lm's pad."""
    generator = np.random.default_rng(seed)
    starts = generator.permutation(np.arange(3, 259))
    rows = []
    for number, length in enumerate(lengths):
        ids = generator.integers(3, 259, length).astype(np.int32)
        ids[0] = starts[number % len(starts)]
        rows.append(Rendered(ids, np.arange(length) > 0, f"rows.jsonl:{number + 1}"))
    return tuple(rows)


@pytest.fixture(scope="module")
def network():
    return tiny_llama(hidden=32, heads=2, kv_heads=1)


# --- where its defects do not bite


@pytest.mark.parametrize("length", [5, 33, 64])
def test_on_full_rows_of_one_length_loss_and_gradient_are_mlx_lms(tiny_training, length):
    rows = text_rows([length] * 6)
    network = tiny_training.state().network
    ((token_ids, lengths),) = mlx_lm_batches(rows, 6, limit=length)
    assert token_ids.shape == (6, length)
    (expected, count), wanted = nn.value_and_grad(network, trainer.default_loss)(network, token_ids, lengths)
    batch = make_batch(rows, range(6), share_prefix=False)
    loss_sum, found = nn.value_and_grad(network, partial(sft_loss_sum, make_reader(network)))(batch)
    assert batch.target_count == count.item() == 6 * (length - 1)
    assert loss_sum.item() / batch.weight_sum == pytest.approx(expected.item(), rel=1e-6)
    wanted = dict(tree_flatten(wanted))
    for name, gradient in tree_flatten(found):
        largest = float(mx.abs(wanted[name]).max())
        np.testing.assert_allclose(
            np.array(gradient) / batch.weight_sum, np.array(wanted[name]), rtol=0, atol=1e-5 * largest, err_msg=name
        )


# --- where they do


def test_no_token_is_a_target_that_the_rows_do_not_have(network):
    rows = text_rows(LENGTHS)
    expected = Counter(ids for row in rows for ids in row.token_ids[row.is_target].tolist())
    ours = Counter(ids for batch in our_batches(rows, 5) for ids in batch.target_id.tolist())
    assert ours == expected

    theirs = Counter()
    for token_ids, lengths in mlx_lm_batches(rows, 5):
        position = np.arange(1, token_ids.shape[1])
        is_target = (position >= np.array(lengths[:, :1])) & (position <= np.array(lengths[:, 1:]))
        assert is_target.sum() == trainer.default_loss(network, token_ids, lengths)[1].item()
        theirs.update(np.array(token_ids[:, 1:])[is_target].tolist())
    is_false_of_mlx_lm(theirs == expected)
    assert theirs - expected == Counter({0: len(rows)})  # one pad token a row


def test_a_row_without_a_target_left_is_told_and_makes_no_loss_that_is_no_number(network, tmp_path):
    tokenizer = tiny_tokenizer(tmp_path)
    rows, limit = [tiny_row("a"), tiny_row("long " * 40)], 150
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"rows.jsonl:2"):
        load_rendered(path, tokenizer, max_seq_length=limit)
    cut = load_rendered(path, tokenizer, max_seq_length=limit, overflow="truncate_right")
    assert [dropped.where for dropped in cut.report.dropped] == [f"{path}:2"]
    reader = make_reader(network)
    assert all(np.isfinite(sft_loss_sum(reader, batch).item()) for batch in our_batches(cut.rows, 1))

    chats = CacheDataset(ChatDataset(rows, tokenizer, mask_prompt=True))
    losses = [
        trainer.default_loss(network, *batch)[0].item() for batch in trainer.iterate_batches(chats, 1, limit, seed=0)
    ]
    is_false_of_mlx_lm(bool(np.isfinite(losses).all()))
    assert sorted(np.isnan(losses)) == [False, True]


def test_at_most_6_percent_of_the_positions_are_padding(network):
    """Rows so long that mlx-lm's rounding up to 32 tokens has no part in it."""
    rows = text_rows(np.random.default_rng(0).integers(200, 3000, 320))
    tokens = sum(len(row.token_ids) - 1 for row in rows)  # the last one is no input
    ours = sum(batch.token_ids.size for batch in our_batches(rows, 4))
    assert tokens >= 0.94 * ours

    theirs = sum(token_ids.shape[0] * (token_ids.shape[1] - 1) for token_ids, _ in mlx_lm_batches(rows, 4))
    is_false_of_mlx_lm(tokens >= 0.94 * theirs)


@pytest.mark.parametrize("size", [3, 4, 7])
def test_every_row_comes_once_an_epoch_whatever_the_size_of_a_batch(size):
    rows = text_rows(LENGTHS)
    order = batch_order(rows, BatchSize(rows=size), seed=0, share_prefix=False)
    assert sorted(row for numbers in order.epoch(0) for row in numbers) == list(range(len(rows)))

    starts = [int(row.token_ids[0]) for row in rows]
    met = [start for token_ids, _ in mlx_lm_batches(rows, size) for start in token_ids[:, 0].tolist()]
    is_false_of_mlx_lm(sorted(met) == sorted(starts))


def mlx_lm_trained(state, rows, folder, *, batch_size, steps, iters):
    """The adapter after mlx-lm's own training with plain gradient descent, seeded."""
    np.random.seed(0)  # noqa: NPY002 - which its order is drawn from
    settings = trainer.TrainingArgs(
        batch_size=batch_size,
        iters=iters,
        grad_accumulation_steps=steps,
        steps_per_report=100,
        max_seq_length=LIMIT,
        adapter_file=str(folder / "adapters.safetensors"),
    )
    trainer.train(state.network, optimizers.SGD(RATE), CacheDataset(Rows(rows)), args=settings)
    return {name: np.array(array) for name, array in tree_flatten(state.network.trainable_parameters())}


def differ(a, b):
    """The largest difference of any entry."""
    return max(np.abs(a[name] - b[name]).max() for name in b)


def test_the_last_window_of_an_epoch_is_an_update_too(tiny_training, tmp_path):
    """Three batches, two an update."""
    rows = text_rows(LENGTHS[:6])
    order = batch_order(rows, BatchSize(rows=2), seed=0, share_prefix=False)
    assert [len(window) for window in epoch_windows(order, 2, 0)] == [2, 1]
    state = tiny_training.state()
    plan = tiny_training.plan(rows, gradient_accumulation_steps=2)
    adapters = [tiny_training.adapter(state)]
    tiny_training.train(state, plan, rows, save=lambda: adapters.append(tiny_training.adapter(state)), stop_after=1)
    tiny_training.train(state, plan, rows, save=lambda: adapters.append(tiny_training.adapter(state)))
    assert all(differ(before, after) > 0 for before, after in itertools.pairwise(adapters))

    two, three = (
        mlx_lm_trained(tiny_training.state(), rows, tmp_path, batch_size=2, steps=2, iters=iters) for iters in (2, 3)
    )
    assert differ(two, adapters[0]) > 0
    is_false_of_mlx_lm(differ(two, three) > 0)


def test_four_rows_give_the_update_of_twice_two_of_them(tiny_training, tmp_path):
    rows = text_rows((4, 40, 9, 90))

    def ours(size, steps):
        state = tiny_training.state(optimizer="sgd", weight_decay=0.0)
        plan = tiny_training.plan(
            rows, batch_size=size, gradient_accumulation_steps=steps, learning_rate=RATE, max_grad_norm=None
        )
        tiny_training.train(state, plan, rows)
        return tiny_training.adapter(state)

    assert differ(ours(4, 1), ours(2, 2)) < 1e-6

    one, four = (
        mlx_lm_trained(tiny_training.state(), rows, tmp_path, batch_size=size, steps=steps, iters=steps)
        for size, steps in ((4, 1), (2, 2))
    )
    is_false_of_mlx_lm(differ(one, four) < 1e-6)

"""Numbers of a data set: each is held against the rows, or the batches, that it is about."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from mlxtune.data.batch import make_batch
from mlxtune.data.dataset import load_rendered
from mlxtune.data.likeness.repeats import Repeat
from mlxtune.data.order import BatchSize, batch_order, halved
from mlxtune.data.render import Rendered
from mlxtune.data.source import DataFile, Source, read_examples, stream_of
from mlxtune.data.stats import (
    BINS,
    Lengths,
    bins_between,
    describe,
    histogram,
    lengths_of,
    read_epoch,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("chatml"))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(*lengths):
    """Rows of so many letters, each a token; EOS makes one more."""
    return [{"text": "a" * length} for length in lengths]


def of_lengths(lengths):
    return [Rendered(np.zeros(length, np.int32), np.arange(length) > 0, "rows.jsonl:1") for length in lengths]


def ragged(count=60, seed=0):
    """Rows of different lengths with one of two long beginnings, and something after the last target."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        start = np.arange(40) + 100 * (number % 2)
        own = generator.integers(1000, 2000, int(generator.integers(6, 60)))
        ids = np.concatenate([start, own]).astype(np.int32)
        places = np.arange(len(ids))
        rows.append(Rendered(ids, (places >= 43) & (places < len(ids) - number % 3), f"rows.jsonl:{number + 1}"))
    return rows


def test_percentiles_are_lengths_that_so_many_rows_do_not_exceed():
    assert lengths_of(of_lengths(range(101, 1, -1))) == Lengths(min=2, p50=51, p90=91, p99=100, max=101)
    assert lengths_of(of_lengths([7])) == Lengths(7, 7, 7, 7, 7)
    assert lengths_of(of_lengths([2, 2, 2, 900])) == Lengths(2, 2, 900, 900, 900)


@given(lengths=st.lists(st.integers(2, 5000), min_size=1, max_size=30))
def test_each_row_is_in_one_bin_and_there_are_few_bins(lengths):
    bins = bins_between(min(lengths), max(lengths))
    found = histogram(of_lengths(lengths), bins)
    assert 1 <= len(found) <= BINS
    assert found[0].rows > 0
    assert found[-1].rows > 0
    for part in found:
        assert part.rows == sum(part.start <= length < part.end for length in lengths)
    assert sum(part.rows for part in found) == len(lengths)
    assert str(found[0].end - found[0].start).rstrip("0") in ("1", "2", "5")


def test_rows_are_counted_by_what_they_say_whatever_else_their_lines_hold(tokenizer, tmp_path):
    path = write(tmp_path / "rows.jsonl", *texts(1, 2, 1), {"text": "a", "note": "ignored"})
    stats = describe(
        read_examples(Source((DataFile(path),))),
        tokenizer,
        path=path,
        train_on="completions",
        max_seq_length=9,
        overflow="error",
    )
    assert stats.repeats == (Repeat(f"{path}:3", f"{path}:1"), Repeat(f"{path}:4", f"{path}:1"))
    assert len(stats.survey.fingerprints) == 4
    assert (stats.survey.classes, stats.survey.oddities, stats.survey.writing.scripts) == (None, (), ())


@pytest.mark.parametrize("part_positions", [80, 10_000])
@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize("size", [BatchSize(rows=4), BatchSize(tokens=300)])
def test_an_epoch_reads_the_positions_that_the_parts_of_its_batches_have(size, multiple, share_prefix, part_positions):
    rows = ragged()
    order = batch_order(rows, size, seed=3, share_prefix=share_prefix)

    def make(few):
        return make_batch(rows, few, share_prefix=share_prefix, multiple=multiple)

    def positions(few):
        return make(few).prefix_ids.size + make(few).token_ids.size

    batches = [make(part) for few in order.epoch(0) for part in halved(few, positions, part_positions)]
    reading = read_epoch(rows, order, part_positions=part_positions, share_prefix=share_prefix, multiple=multiple)
    prefixes = [batch.prefix_ids.size for batch in batches]
    assert reading.batches == len(order.epoch(0))
    assert reading.positions == sum(prefixes) + sum(batch.token_ids.size for batch in batches)
    assert reading.filled == sum(prefixes) + sum(sum(batch.lengths) for batch in batches)
    last_targets = [int(np.flatnonzero(row.is_target)[-1]) for row in rows]  # what follows is read by nobody
    assert reading.filled + reading.saved == sum(last_targets)
    assert (reading.saved > 0) == share_prefix
    assert 0 <= reading.padding_share < 1
    assert reading.padding_share == pytest.approx(1 - reading.filled / reading.positions)
    assert reading.prefix_saved_share == pytest.approx(reading.saved / sum(last_targets))


def test_rows_that_training_would_refuse_are_counted_in_full_and_named(tokenizer, tmp_path):
    path = write(tmp_path / "rows.jsonl", *texts(3, 9, 4))
    stats = describe(
        read_examples(Source((DataFile(path),))),
        tokenizer,
        path=path,
        train_on="completions",
        max_seq_length=5,
        overflow="error",
    )
    assert stats.too_long == ((f"{path}:2", 10),)
    assert (stats.dataset.report.rows, stats.dataset.report.tokens) == (3, 4 + 10 + 5)
    assert stats.lengths.max == 10


@pytest.mark.parametrize("overflow", ["drop", "truncate_left", "truncate_right", "split"])
def test_rows_that_may_be_cut_are_counted_as_training_has_them(tokenizer, tmp_path, overflow):
    path = write(tmp_path / "rows.jsonl", *texts(3, 9, 4))
    stats = describe(
        stream_of(Source((DataFile(path),))),
        tokenizer,
        path=path,
        train_on="completions",
        max_seq_length=5,
        overflow=overflow,
    )
    assert stats.too_long == ()
    assert stats.dataset.report == load_rendered(path, tokenizer, max_seq_length=5, overflow=overflow).report
    assert stats.lengths.max == 5

"""Rows that nobody here wrote: they are read whole, each target once, and little of their batches is padding."""

import json

import pytest
from tiny import tiny_tokenizer

from mlxtune.data.batch import make_batch
from mlxtune.data.dataset import load_rendered
from mlxtune.data.order import BatchSize, batch_order

LONGEST = 2000  # a letter is a token here


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(params=["wikisql", "oasst_chat"])
def dataset(request, shared_data, tokenizer, tmp_path):
    path = shared_data / request.param / "train.jsonl"
    if request.param == "oasst_chat":
        path = tmp_path / "chats.jsonl"
        lines = (shared_data / "oasst_chat/train.jsonl").read_text(encoding="utf-8").split("\n")
        path.write_text("".join(chat(line) for line in lines if line), encoding="utf-8")
    return load_rendered(path, tokenizer, max_seq_length=LONGEST, overflow="truncate_right")


def chat(line):
    """An Open Assistant conversation up to its last answer, in the form of chats."""
    roles = {"prompter": "user", "assistant": "assistant"}
    messages = [{"role": roles[turn["role"]], "content": turn["text"]} for turn in json.loads(line)["messages"]]
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    return json.dumps({"messages": messages}) + "\n" if messages else ""


@pytest.mark.parametrize("size", [BatchSize(rows=8), BatchSize(tokens=8192)])
def test_an_epoch_has_every_target_once_and_little_padding(dataset, size):
    order = batch_order(dataset.rows, size, seed=7, share_prefix=True)
    batches = [make_batch(dataset.rows, rows, share_prefix=True) for rows in order.epoch(0)]
    assert sum(batch.target_count for batch in batches) == dataset.report.target_tokens
    assert sum(batch.tokens for batch in batches) == dataset.report.tokens
    filled = sum(sum(batch.lengths) + batch.prefix_ids.shape[0] for batch in batches)
    computed = sum(batch.token_ids.size + batch.prefix_ids.shape[0] for batch in batches)
    assert computed / filled - 1 < 0.06


def test_text_rows_are_targets_throughout_and_end_with_eos(shared_data, tokenizer):
    dataset = load_rendered(shared_data / "wikisql/valid.jsonl", tokenizer, max_seq_length=LONGEST)
    assert dataset.report.format == "text"
    for row in dataset.rows:
        assert row.is_target[1:].all()
        assert row.token_ids[-1] in tokenizer.eos_token_ids

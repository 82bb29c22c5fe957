"""What a row looks like to the network: pieces that add up to its text, and what is learned of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import load
from tiny import tiny_tokenizer

from mlxtune.data.inspect import Segment, inspect_row, token_texts
from mlxtune.data.normalize import Example, Message

ROW = Example("chat", "rows.jsonl:1", messages=(Message("user", "Hi"), Message("assistant", "Grüße")))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("chatml"))


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    """A tokenizer of words that marks spaces, and drops the one before the first word it decodes, as llama's does."""
    folder = tmp_path_factory.mktemp("spaced")
    words = ["<unk>", "</s>", "▁a", "▁b", "c"]
    backend = {
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"},
        "added_tokens": [
            {"id": 1, "content": "</s>", "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        ],
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(backend))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"})
    )
    return load(folder)


def inspected(tokenizer, example=ROW, **settings):
    defaults = {"train_on": "completions", "max_seq_length": 500, "overflow": "error"}
    return inspect_row(example, tokenizer, **(defaults | settings))


def test_segments_tell_text_from_special_tokens_and_what_is_learned(tokenizer):
    inspection = inspected(tokenizer)
    assert inspection.segments == [
        Segment("<|im_start|>", is_target=False, is_special=True),
        Segment("system\nYou are small.", is_target=False, is_special=False),
        Segment("<|im_end|>", is_target=False, is_special=True),
        Segment("\n", is_target=False, is_special=False),
        Segment("<|im_start|>", is_target=False, is_special=True),
        Segment("user\nHi", is_target=False, is_special=False),
        Segment("<|im_end|>", is_target=False, is_special=True),
        Segment("\n", is_target=False, is_special=False),
        Segment("<|im_start|>", is_target=False, is_special=True),
        Segment("assistant\n", is_target=False, is_special=False),
        Segment("Grüße", is_target=True, is_special=False),
        Segment("<|im_end|>", is_target=True, is_special=True),
    ]
    assert inspection.target_tokens == len("Grüße".encode()) + 1
    assert inspection.note == ""


def test_a_row_that_is_too_long_is_shown_with_what_becomes_of_it(tokenizer):
    whole = inspected(tokenizer)
    count = len(whole.token_ids)
    refused = inspected(tokenizer, max_seq_length=10)
    assert refused.token_ids == whole.token_ids
    assert refused.note == f"{count} tokens, over data.max_seq_length 10: the row is an error (data.overflow: error)"
    assert "the row is dropped" in inspected(tokenizer, max_seq_length=10, overflow="drop").note
    cut = inspected(tokenizer, max_seq_length=10, overflow="truncate_left")
    assert cut.note == f"cut from {count} tokens to 10 (data.overflow: truncate_left)"
    assert len(cut.token_ids) == 10


@given(string=st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_add_up_to_the_text(tokenizer, string):
    ids = tokenizer.encode(string, add_special_tokens=False)
    pieces = token_texts(ids, tokenizer)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == string


def test_half_a_character_at_the_end_is_shown_as_such(tokenizer):
    ids = tokenizer.encode("aé", add_special_tokens=False)[:-1]
    assert token_texts(ids, tokenizer) == ["a", "\ufffd"]


def test_pieces_keep_the_spaces_that_a_tokenizer_drops_at_the_beginning(spaced):
    assert token_texts([2, 3, 4, 3, 1], spaced) == ["a", " b", "c", " b", "</s>"]

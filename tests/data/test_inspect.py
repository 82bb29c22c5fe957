"""What a row looks like to the network: pieces that add up to its text, and what is learned of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import load
from tiny import tiny_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.inspect import (
    MARKS,
    WAITED,
    Segment,
    Sharing,
    inspect_row,
    make_side,
    positions_of_parts,
    segments,
    share_of_pair,
    token_texts,
)
from mlxtune.data.render import Rendered, Renderer
from mlxtune.data.store.overflow import fit

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
    return inspect_row(example, Renderer(tokenizer), **(defaults | settings))


def segment(text, *kinds):
    learned = "target" in kinds
    return Segment(text, learned, 1.0 if learned else 0.0, "special" in kinds, "shared" in kinds, "cut" in kinds)


def test_segments_tell_text_from_special_tokens_and_what_is_learned(tokenizer):
    inspection = inspected(tokenizer)
    (side,) = inspection.sides
    assert segments(side.tokens) == [
        segment("<|im_start|>", "special"),
        segment("system\nYou are small."),
        segment("<|im_end|>", "special"),
        segment("\n"),
        segment("<|im_start|>", "special"),
        segment("user\nHi"),
        segment("<|im_end|>", "special"),
        segment("\n"),
        segment("<|im_start|>", "special"),
        segment("assistant\n"),
        segment("Grüße", "target"),
        segment("<|im_end|>", "target", "special"),
    ]
    assert side.target_tokens == len("Grüße".encode()) + 1
    assert (side.note, side.lines, side.cut_tokens) == ("", (), 0)
    assert inspection.where == "rows.jsonl:1"


def test_tokens_say_what_the_renderer_says(tokenizer):
    (side,) = inspected(tokenizer).sides
    rendered = Renderer(tokenizer).render(ROW, "completions")
    assert [token.id for token in side.tokens] == rendered.token_ids.tolist()
    assert [token.is_target for token in side.tokens] == rendered.is_target.tolist()
    assert [token.position for token in side.tokens] == list(range(side.length))


def test_a_shared_beginning_is_marked_where_it_is_told(tokenizer):
    sharing = Sharing(3, 8, "its batch in the first epoch")
    inspection = inspected(tokenizer, sharing=sharing)
    assert [token.is_shared for token in inspection.sides[0].tokens[:5]] == [True, True, True, False, False]
    assert inspection.sharing == sharing


@pytest.mark.parametrize("overflow", ["error", "drop"])
def test_a_row_that_is_refused_or_dropped_is_shown_in_full_with_the_limit_marked(tokenizer, overflow):
    (whole,) = inspected(tokenizer).sides
    (side,) = inspected(tokenizer, max_seq_length=10, overflow=overflow).sides
    assert side.tokens == whole.tokens
    fate = {"error": "refused", "drop": "dropped"}[overflow]
    note = f"{whole.length} tokens, over data.max_seq_length 10: the row is {fate} (data.overflow: {overflow})"
    assert side.note == note
    assert side.lines == ((10, "10 tokens, data.max_seq_length, end here"),)


def test_what_is_cut_is_shown_and_lines_say_where(tokenizer):
    (whole,) = inspected(tokenizer).sides
    (side,) = inspected(tokenizer, max_seq_length=10, overflow="truncate_left").sides
    assert [token.text for token in side.tokens] == [token.text for token in whole.tokens]
    assert [token.is_cut for token in side.tokens] == [True] * (whole.length - 10) + [False] * 10
    assert side.lines == (
        (0, f"{whole.length - 10} tokens are cut from here (data.overflow: truncate_left)"),
        (whole.length - 10, "what is cut ends here"),
    )
    assert side.note == f"cut from {whole.length} tokens to 10 (data.overflow: truncate_left)"
    assert (side.kept_tokens, side.target_tokens) == (10, whole.target_tokens)


def test_a_row_of_which_nothing_is_trained_on_is_told_to_be_dropped(tokenizer):
    row = Rendered(np.arange(5, dtype=np.int32), np.zeros(5, bool), "rows.jsonl:1")
    side = make_side("", row, Renderer(tokenizer), 10, "error")
    assert (side.note, side.target_tokens) == ("no token of this row is trained on: it is dropped", 0)


def test_a_row_without_a_target_among_what_is_left_is_dropped(tokenizer):
    (side,) = inspected(tokenizer, max_seq_length=10, overflow="truncate_right").sides
    assert "the row is dropped (data.overflow: truncate_right), since no target would be left" in side.note


def test_the_parts_of_a_row_that_is_split_are_marked(tokenizer):
    example = Example("text", "rows.jsonl:1", text="abcdefghij")
    (side,) = inspected(tokenizer, example, max_seq_length=4, overflow="split").sides
    assert side.note == "11 tokens, read in 4 parts (data.overflow: split)"
    # Of four, the first is the last of the part before: three new ones a part.
    assert side.lines == tuple((at, f"part {n} of 4 begins here") for n, at in ((2, 4), (3, 7), (4, 10)))
    assert (side.cut_tokens, side.target_tokens) == (0, 10)


@given(
    targets=st.lists(st.booleans(), min_size=2, max_size=40),
    max_seq_length=st.integers(2, 20),
    overflow=st.sampled_from(["error", "drop", "truncate_left", "truncate_right", "split"]),
)
def test_parts_are_those_that_training_has(targets, max_seq_length, overflow):
    row = Rendered(np.arange(len(targets), dtype=np.int32), np.array([False, *targets[1:]]), "rows.jsonl:1")
    wanted = [part for part in fit(row, max_seq_length, overflow, before=[0]) if part.is_target.any()]
    found = positions_of_parts(row, [0], max_seq_length, overflow)
    assert [positions.tolist() for positions, _ in found] == [part.token_ids.tolist() for part in wanted]
    assert [is_target.tolist() for _, is_target in found] == [part.is_target.tolist() for part in wanted]


def test_weights_stand_at_targets_alone(tokenizer):
    ids = np.array(tokenizer.encode("abcd", add_special_tokens=False), np.int32)
    row = Rendered(ids, np.array([False, True, False, True]), "rows.jsonl:1", np.array([1, 0.5, 1, 2], np.float32))
    side = make_side("", row, Renderer(tokenizer), 10, "error")
    assert [token.weight for token in side.tokens] == [0, 0.5, 0, 2]


def test_of_a_very_long_row_the_middle_is_left_out_and_counted(tokenizer):
    example = Example("text", "rows.jsonl:1", text="ab" * 500)
    (side,) = inspected(tokenizer, example, max_seq_length=2000, longest=40).sides
    assert [token.position for token in side.tokens] == [*range(30), *range(991, 1001)]
    assert side.omitted == (30, 961)
    assert (side.length, side.target_tokens) == (1001, 1000)
    assert side.tokens[-1].text == "<|im_end|>"


def test_the_two_answers_of_a_preference_share_what_they_begin_with():
    sides = [
        Rendered(np.array(ids, np.int32), np.array([False] * 5 + [True] * 2), "rows.jsonl:1")
        for ids in ([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 8, 9])
    ]
    assert share_of_pair(sides) == Sharing(4, 2, "chosen and rejected begin alike")  # the fifth predicts both


def test_a_preference_is_shown_from_both_sides_with_what_they_share(tokenizer):
    question, earlier = Message("user", "2 + 2?"), (Message("user", "Hi"), Message("assistant", "Hello"))
    pair = Example(
        "preference",
        "rows.jsonl:1",
        messages=(*earlier, question, Message("assistant", "four")),
        rejected=(Message("assistant", "five"),),
    )
    inspection = inspected(tokenizer, pair)
    assert [side.name for side in inspection.sides] == ["chosen", "rejected"]
    learned = ["".join(token.text for token in side.tokens if token.is_target) for side in inspection.sides]
    assert learned == ["four<|im_end|>", "five<|im_end|>"]
    whole = Renderer(tokenizer).render(replace(pair, kind="chat", rejected=()), "last_completion")
    first_target = int(whole.is_target.argmax())
    assert inspection.sharing.tokens == first_target - 1  # the last token of the prompt predicts both answers
    for side in inspection.sides:
        assert [token.is_shared for token in side.tokens] == [
            token.position < first_target - 1 for token in side.tokens
        ]


def test_signs_are_chosen_that_the_text_does_not_have(tokenizer):
    assert inspected(tokenizer).text_marks == ("«", "»")
    quoted = Example("text", "rows.jsonl:1", text="he said «so»")
    assert inspected(tokenizer, quoted).text_marks == MARKS[1]


@given(string=st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_add_up_to_the_text(tokenizer, string):
    ids = tokenizer.encode(string, add_special_tokens=False)
    pieces = token_texts(ids, tokenizer)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == string


def test_a_text_of_replacement_characters_is_parted_without_waiting_for_its_end(tokenizer):
    ids = tokenizer.encode("\ufffd" * 2000 + "a", add_special_tokens=False)
    sizes = []

    class Counting:
        def decode(self, some, **settings):
            sizes.append(len(some))
            return tokenizer.decode(some, **settings)

    pieces = token_texts(ids, Counting())
    assert "".join(pieces) == "\ufffd" * 2000 + "a"
    assert max(map(len, pieces)) <= WAITED
    assert max(sizes) <= 2 * WAITED  # however many there are


def test_half_a_character_at_the_end_is_shown_as_such(tokenizer):
    ids = tokenizer.encode("aé", add_special_tokens=False)[:-1]
    assert token_texts(ids, tokenizer) == ["a", "\ufffd"]


def test_pieces_keep_the_spaces_that_a_tokenizer_drops_at_the_beginning(spaced):
    assert token_texts([2, 3, 4, 3, 1], spaced) == ["a", " b", "c", " b", "</s>"]

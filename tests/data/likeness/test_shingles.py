"""Rows as sets of word trigrams, and the signatures by which like sets are found."""

from hashlib import blake2b

import datasketch
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.example import Example, Message
from mlxtune.data.likeness.shingles import (
    BANDS,
    Shingles,
    band_keys,
    hash_words,
    question_and_answer,
    signatures,
    similarity,
    words_of,
)

TEXTS = st.lists(st.sampled_from("abcdef"), max_size=9).map(" ".join)


def trigrams(text):
    """The set of a text's trigrams, from the definition; a shorter text is one shingle."""
    words = text.lower().split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()


@given(TEXTS, TEXTS)
def test_similarity_is_that_of_the_sets_of_trigrams(first, second):
    one, other = trigrams(first), trigrams(second)
    wanted = len(one & other) / max(1, len(one | other))
    assert similarity(*Shingles().of([words_of(first), words_of(second)])) == pytest.approx(wanted)


@given(st.lists(TEXTS, max_size=6))
def test_rows_have_the_same_shingles_alone_and_among_others(texts):
    words = [words_of(text) for text in texts]
    together = Shingles().of(words)
    alone = [Shingles().of([row])[0] for row in words]
    assert [row.tolist() for row in together] == [row.tolist() for row in alone]


def test_shingles_are_made_of_hashes_that_are_the_same_in_every_process():
    # A split made today must be a split made tomorrow: Python's own hash changes from process to process.
    def hash_of(text):
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")

    mixed = sum(
        (hash_of(word) ^ hash_of(word) >> 29) * place
        for word, place in zip(
            ("is", "my", "card"), (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9), strict=True
        )
    )
    mixed %= 2**64
    mixed = (mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15 % 2**64
    assert Shingles().of([["is", "my", "card"]])[0].tolist() == [mixed >> 32]
    assert hash_words(["is", "my", "card"]) == hash_of("is my card")


def test_case_and_white_space_make_no_difference():
    assert words_of("  Where's\tMY\u2003Card?\n") == ["where's", "my", "card?"]


def test_a_row_of_one_or_two_words_is_like_an_equal_row_alone():
    one, same, other, none = Shingles().of([["say", "one"], ["say", "one"], ["say", "two"], []])
    assert similarity(one, same) == 1.0
    assert similarity(one, other) == similarity(none, one) == similarity(none, none) == 0.0


def test_scripts_without_spaces_have_their_characters_as_words():
    assert words_of("\u6211\u7684card\u5462") == ["\u6211", "\u7684", "card", "\u5462"]
    assert words_of("Stra\u00dfe nach K\u00f6ln") == ["stra\u00dfe", "nach", "k\u00f6ln"]


def test_signatures_are_those_of_datasketch():
    draw = np.random.default_rng(0)
    rows = [np.unique(draw.integers(0, 2**32, size, dtype=np.uint32)) for size in (1, 2, 7, 300)]
    for row, signature in zip(rows, signatures(rows), strict=True):
        theirs = datasketch.MinHash(num_perm=128, seed=1, scheme="affine32", hashfunc=int)
        theirs.update_batch(row.tolist())
        assert signature.tolist() == theirs.hashvalues.tolist()


def test_rows_agree_in_about_as_many_minima_as_they_are_alike():
    shared, one, other = np.split(np.random.default_rng(1).permutation(2**20)[:1000].astype(np.uint32), [800, 900])
    pair = signatures([np.sort(np.r_[shared, one]), np.sort(np.r_[shared, other])])
    # 800 of 1000 are shared: a binomial share of 128 draws, within four standard deviations of 0.035
    assert abs((pair[0] == pair[1]).mean() - 0.8) < 0.14


def test_four_equal_minima_make_a_candidate_and_three_do_not():
    rows = np.random.default_rng(2).integers(0, 2**32, (2, 128), dtype=np.uint32)
    rows[1, : 4 * BANDS : BANDS] = rows[0, : 4 * BANDS : BANDS]
    width = len(rows[0]) // BANDS
    rows[1, :width] = rows[0, :width]  # a band is four minima side by side
    keys = band_keys(rows)
    assert (keys[:, 0] == keys[:, 1]).tolist() == [True] + [False] * (BANDS - 1)
    rows[1, 0] += 1
    keys = band_keys(rows)
    assert not (keys[:, 0] == keys[:, 1]).any()


def test_a_row_asks_what_stands_before_its_last_answer_without_the_system_message():
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Who?"), ("assistant", "Me")]
    chat = Example("chat", "f:1", messages=tuple(Message(role, content) for role, content in turns))
    assert question_and_answer(chat) == ("Hi\nHello\nWho?", "Me")
    assert question_and_answer(Example("text", "f:1", text="all of it")) == ("all of it", "")

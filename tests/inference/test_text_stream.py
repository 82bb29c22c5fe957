from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from mlxtune.inference.generate import text_before
from mlxtune.inference.text_stream import TextStream, decode

BYTES = 256
FIRST_BYTE = 3  # token ids before it are special ones


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Each byte is a token, so that every letter beyond ASCII comes in parts."""
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def with_spaces(ids, **_):
    """As a SentencePiece decoder: words with a space before them, which the first one loses."""
    return "".join(f" w{one}" for one in ids)[1:]


def streamed(tokenizer, ids, stop=()):
    stream, pieces = TextStream(tokenizer, stop), []
    for one in ids:
        pieces.append(stream.add(one))
        if stream.is_over:
            return pieces
    return [*pieces, stream.finish()]


texts = st.text(st.sampled_from("abAB \n.é€😀中\N{REPLACEMENT CHARACTER}"), max_size=24)


@given(text=texts, stop=st.lists(st.text(st.sampled_from("abA é😀"), max_size=3), max_size=3))
def test_the_pieces_are_the_text_before_the_first_text_to_stop_at(tokenizer, text, stop):
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = streamed(tokenizer, ids, stop)
    seen = decode(tokenizer, ids[: len(pieces)])
    assert "".join(pieces) == text_before(seen, stop)


@given(ids=st.lists(st.integers(FIRST_BYTE, FIRST_BYTE + BYTES - 1), max_size=24))
def test_bytes_that_make_no_letters_come_out_as_they_decode(tokenizer, ids):
    assert "".join(streamed(tokenizer, ids)) == decode(tokenizer, ids)


@given(ids=st.lists(st.integers(0, 9), max_size=12))
def test_spaces_that_a_decoder_makes_between_words_are_kept(ids):
    assert "".join(streamed(SimpleNamespace(decode=with_spaces), ids)) == with_spaces(ids)


def test_a_letter_comes_once_it_is_whole(tokenizer):
    ids = tokenizer.encode("a€b", add_special_tokens=False)
    assert streamed(tokenizer, ids) == ["a", "", "", "€", "b", ""]


def test_what_may_begin_a_text_to_stop_at_waits_until_it_does_not(tokenizer):
    ids = tokenizer.encode("a\n\nb\nQ: c", add_special_tokens=False)
    pieces = streamed(tokenizer, ids, ["\nQ:"])
    assert pieces == ["a", "", "\n", "\nb", "", "", ""]


def test_a_text_to_stop_at_that_never_came_is_given_at_the_end(tokenizer):
    ids = tokenizer.encode("a\nQ", add_special_tokens=False)
    assert streamed(tokenizer, ids, ["\nQ:"]) == ["a", "", "", "\nQ"]


def test_nothing_comes_after_the_end(tokenizer):
    stream = TextStream(tokenizer, ["b"])
    for one in tokenizer.encode("ab", add_special_tokens=False):
        stream.add(one)
    assert stream.is_over
    assert stream.finish() == ""

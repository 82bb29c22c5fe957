"""Passages: never too long, nothing lost, each a known piece of its document, under its headings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.documents.chunk import chunk_document
from mlxtune.data.documents.document import Block, make_document
from mlxtune.errors import UsageError


def by_bytes(text):
    """A tokenizer in which every byte is a token."""
    return len(text.encode())


def by_words(text):
    return len(text.split())


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
blocks = st.builds(
    Block,
    st.sampled_from(["heading", "paragraph", "list", "table", "code"]),
    st.lists(words, min_size=1, max_size=12).map(" ".join) | st.lists(words, min_size=1, max_size=9).map("\n".join),
    st.integers(1, 6),
)


@given(st.lists(blocks, max_size=8), st.integers(16, 200), st.integers(0, 8), st.sampled_from([by_bytes, by_words]))
def test_no_passage_is_too_long_and_every_character_is_in_one(parts, limit, overlap, count):
    document = make_document(parts)
    chunks = chunk_document(document, count, chunk_tokens=limit, overlap_tokens=overlap)
    covered = set()
    for chunk in chunks:
        assert chunk.tokens == count(chunk.text) <= limit
        assert chunk.body == document.text[chunk.start : chunk.end]
        assert chunk.body.strip()
        covered.update(range(chunk.start, chunk.end))
    assert all(document.text[i].isspace() for i in set(range(len(document.text))) - covered)


def test_headings_and_the_head_of_a_table_go_before_what_is_under_them():
    table = "| k | v |\n| --- | --- |\n" + "\n".join(f"| {n} | x |" for n in range(60))
    document = make_document([Block("heading", "A", 1), Block("heading", "B", 2), Block("table", table)])
    chunks = chunk_document(document, by_words, chunk_tokens=100, overlap_tokens=0)
    assert chunks[0].context == ""
    assert all(chunk.context == "# A\n\n## B\n\n| k | v |\n| --- | --- |\n" for chunk in chunks[1:])
    assert chunks[1].section == ("# A", "## B")


def test_a_passage_ends_at_a_heading_and_no_overlap_goes_over_it():
    parts = [part for n in range(3) for part in (Block("heading", f"H{n}", 1), Block("paragraph", f"word{n}. " * 60))]
    chunks = chunk_document(make_document(parts), by_words, chunk_tokens=80, overlap_tokens=20)
    assert [chunk.body.split()[:2] for chunk in chunks] == [["#", "H0"], ["#", "H1"], ["#", "H2"]]


def test_the_next_passage_repeats_the_end_of_the_last():
    document = make_document([Block("paragraph", " ".join(f"Sentence number {n}." for n in range(60)))])
    first, second = chunk_document(document, by_words, chunk_tokens=100, overlap_tokens=10)[:2]
    assert first.end > second.start
    assert 0 < by_words(document.text[second.start : first.end]) <= 10


@pytest.mark.parametrize(("chunk", "overlap"), [(8, 0), (100, 60), (100, -1)])
def test_sizes_that_leave_no_room_are_refused(chunk, overlap):
    with pytest.raises(UsageError):
        chunk_document(make_document([]), by_words, chunk_tokens=chunk, overlap_tokens=overlap)

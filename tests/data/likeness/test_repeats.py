"""Rows that say what another says are named with the first that says it, in a split and across two."""

from hypothesis import given
from hypothesis import strategies as st

from mlxtune.data.example import Example, content_hash
from mlxtune.data.likeness.repeats import Fingerprints, Repeat, find_repeats


def prints(texts, name="rows.jsonl"):
    fingerprints = Fingerprints()
    for line, text in enumerate(texts, start=1):
        fingerprints.add(f"{name}:{line}", content_hash(Example("text", f"{name}:{line}", text=text)))
    return fingerprints


def test_a_row_that_says_what_another_says_is_named_with_the_first_of_them():
    assert find_repeats(prints(["a", "b", "a", "a"])) == [
        Repeat("rows.jsonl:3", "rows.jsonl:1"),
        Repeat("rows.jsonl:4", "rows.jsonl:1"),
    ]


def test_rows_that_another_split_has_are_found_whether_or_not_they_repeat_in_their_own():
    assert find_repeats(prints(["a", "b", "b", "a"], "test.jsonl"), prints(["c", "a", "a"], "train.jsonl")) == [
        Repeat("test.jsonl:1", "train.jsonl:2"),
        Repeat("test.jsonl:4", "train.jsonl:2"),
    ]


def test_where_there_are_no_rows_nothing_repeats():
    assert find_repeats(prints([])) == []
    assert find_repeats(prints([]), prints(["a"])) == []
    assert find_repeats(prints(["a"]), prints([])) == []


@given(rows=st.lists(st.sampled_from("abcde"), max_size=30), others=st.lists(st.sampled_from("abcde"), max_size=30))
def test_the_same_rows_are_found_as_by_looking_at_each(rows, others):
    inside = [(line + 1, rows.index(text) + 1) for line, text in enumerate(rows) if text in rows[:line]]
    assert find_repeats(prints(rows)) == [Repeat(f"rows.jsonl:{a}", f"rows.jsonl:{b}") for a, b in inside]
    across = [(line + 1, others.index(text) + 1) for line, text in enumerate(rows) if text in others]
    found = find_repeats(prints(rows), prints(others, "others.jsonl"))
    assert found == [Repeat(f"rows.jsonl:{a}", f"others.jsonl:{b}") for a, b in across]

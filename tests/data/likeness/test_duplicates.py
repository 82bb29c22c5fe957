"""Rows that say, ask or nearly ask what another does: all are found, no other, on little memory."""

import itertools
import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxtune.data.example import Example, Message
from mlxtune.data.likeness import duplicates
from mlxtune.data.likeness.duplicates import RowIndex

LONG = "my card was swallowed by the machine outside the station this morning and nobody answers the telephone"


def text(content, where="f:1"):
    return Example("text", where, text=content)


def asked(question, answer, system=""):
    before = (Message("system", system),) if system else ()
    return Example("chat", "f:1", messages=(*before, Message("user", question), Message("assistant", answer)))


def find(examples, splits=None, **settings):
    """All pairs of an index that takes every pair: {(first, row): likeness}."""
    with RowIndex(**settings) as index:
        for example, split in zip(examples, splits or itertools.repeat(0), strict=False):
            index.add(example, split)
        index.finish()
        return {(pair.first, pair.row): pair.likeness for pair in reversed(list(index.pairs(lambda *_: True)))}


def trigrams(content):
    words = content.lower().split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def alike_by_brute_force(texts, threshold=0.7):
    """Pairs of texts by the similarity of their sets, found through the trigrams that they share."""
    sets = [trigrams(content) for content in texts]
    having = defaultdict(list)
    found = set()
    for row, own in enumerate(sets):
        shared = defaultdict(int)
        for trigram in own:
            for first in having[trigram]:
                shared[first] += 1
            having[trigram].append(row)
        found |= {(first, row) for first, n in shared.items() if n / len(own | sets[first]) >= threshold}
    return found


def test_the_surest_relation_of_a_pair_is_told():
    rows = [text(LONG), text(LONG), text(LONG.upper() + " "), text(LONG + " today"), text("something else entirely")]
    assert find(rows) == {(0, 1): "same", (0, 2): "asks_same", (0, 3): "alike"}


def test_one_question_with_two_answers_is_asked_twice_and_not_said_twice():
    assert find([asked(LONG, "yes"), asked(LONG, "no"), asked("other words than those", "yes")]) == {
        (0, 1): "asks_same"
    }


def test_a_threshold_of_one_finds_no_merely_alike_rows():
    assert find([text(LONG), text(LONG.title()), text(LONG + " today")], threshold=1.0) == {(0, 1): "asks_same"}


@pytest.mark.parametrize("common", ["system", "before", "after"])
def test_an_instruction_that_all_rows_have_makes_none_alike(common):
    instruction = "You sort messages of customers into exactly one of these classes and say nothing but its name:"
    questions = ["where is my card", "the rate was wrong", "cancel this payment please", "is cash free abroad"]
    if common == "system":
        rows = [asked(question, "x", system=instruction) for question in questions]
    else:
        order = (lambda q: f"{instruction} {q}") if common == "before" else (lambda q: f"{q} {instruction}")
        rows = [asked(order(question), "x") for question in questions]
    assert find(rows) == {}
    assert find([*rows, rows[0]]) == {(0, 4): "same"}


def test_rows_that_all_ask_the_same_are_compared_by_their_answers():
    rows = [asked("Invent a name for a bank.", answer) for answer in ("Oak & Sons", "River", "Hill", "Lake", "RIVER")]
    assert find(rows) == {(1, 4): "asks_same"}


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=14).map(" ".join), max_size=12))
@settings(max_examples=40)
def test_every_pair_that_is_alike_is_found_and_no_other(texts):
    with RowIndex() as index:
        index._common = np.zeros(0, np.uint32)  # of a few random rows any phrase may be common
        for content in texts:
            index.add(text(content))
        index.finish()
        found = {(pair.first, pair.row) for pair in index.pairs(lambda *_: True)}
    linked = alike_by_brute_force(texts)
    assert found <= linked
    assert components(found, len(texts)) == components(linked, len(texts))


def components(pairs, count):
    """The smallest row that each row hangs together with."""
    root = list(range(count))
    for _ in range(count):
        for first, row in pairs:
            root[first] = root[row] = min(root[first], root[row])
    return root


@pytest.mark.parametrize(("name", "key", "count"), [("banking77", "text", 81), ("unfair_tos", "sentence", 2)])
def test_the_test_rows_that_train_has_nearly_are_those_of_brute_force(shared_data, name, key, count):
    train, test = (
        [json.loads(line)[key] for line in (shared_data / name / f"{split}.jsonl").read_bytes().splitlines()]
        for split in ("train", "test")
    )
    rows, first_test = train + test, len(train)
    wanted = {pair for pair in alike_by_brute_force(rows) if pair[0] < first_test <= pair[1]}
    assert len({row for _, row in wanted}) == count  # as the data's README counts them
    pairs = find(map(text, rows), [0] * first_test + [1] * len(test))
    assert {pair for pair in pairs if pair[0] < first_test <= pair[1]} == wanted


def test_each_held_out_row_is_found_in_a_crowd_of_like_rows():
    crowd = [text(f"{LONG} number{n}") for n in range(200)]
    others = [text(f"word{n} " * 8) for n in range(250)]
    splits = [0] * 400 + [2] * 50
    pairs = find([*crowd[:150], *others, *crowd[150:]], splits)
    assert {row for first, row in pairs if first < 400 <= row} == set(range(400, 450))


def test_no_pair_depends_on_how_many_rows_are_sorted_at_once(monkeypatch):
    rows = [text(f"{LONG} {n // 3}") for n in range(40)] + [text(f"other {n}") for n in range(30)]
    whole = find(rows)
    monkeypatch.setattr(duplicates, "PART_ROWS", 16)
    monkeypatch.setattr(duplicates, "BATCH_WORDS", 50)
    assert find(rows) == whole


def test_rows_too_long_to_compare_whole_are_alike_by_their_beginning_and_ask_the_same_only_if_equal(monkeypatch):
    monkeypatch.setattr(duplicates, "LONGEST", len(LONG))
    rows = [text(f"{LONG} and so on"), text(f"{LONG} and otherwise"), text(f"{LONG} and so on")]
    assert find(rows) == {(0, 1): "alike", (0, 2): "same"}


def test_pairs_that_teach_nothing_are_never_compared():
    with RowIndex() as index:
        for _ in range(3):
            index.add(text(LONG))
        index.finish()
        assert list(index.pairs(lambda *_: False)) == []


def test_a_row_is_named_by_its_file_and_line():
    with RowIndex() as index:
        index.add(text("a", "one:two.jsonl:7"))
        index.add(text("b", "other.jsonl:1"))
        index.finish()
        assert [index.where(row) for row in range(2)] == ["one:two.jsonl:7", "other.jsonl:1"]


def test_nothing_of_the_rows_has_a_name_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path))
    with RowIndex() as index:
        index.add(text(LONG))
        index.finish()
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert (tmp_path / "scratch").stat().st_mode & 0o077 == 0


def test_no_rows_have_no_pairs():
    assert find([]) == {}

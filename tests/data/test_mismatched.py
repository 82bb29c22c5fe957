"""Answers under other prompts: one a pair, of a pair far away."""

import numpy as np
import pytest

from mlxtune.data.mismatched import Mismatched
from mlxtune.data.render import Rendered


def pairs(count):
    """Pair i has the prompt [i, i + 10], the better answer [100 + i] and the other [200 + i, 200 + i]."""
    found = []
    for number in range(count):
        for answer in ([100 + number], [200 + number] * 2):
            ids = np.array([number, number + 10, *answer], np.int32)
            found.append(Rendered(ids, np.arange(len(ids)) >= 2, f"rows.jsonl:{number + 1}"))
    return found


def test_each_prompt_gets_the_answer_of_the_pair_half_of_all_away():
    rows = Mismatched(pairs(4), max_seq_length=9)
    assert [row.token_ids.tolist() for row in rows] == [
        [0, 10, 102],
        [1, 11, 203, 203],
        [2, 12, 100],
        [3, 13, 201, 201],
    ]
    assert [row.is_target.tolist() for row in rows[:2]] == [[False, False, True], [False, False, True, True]]
    assert rows[3].where == "rows.jsonl:4"
    assert len(rows) == 4


def test_an_answer_is_cut_where_rows_may_end():
    assert Mismatched(pairs(4), max_seq_length=3)[1].token_ids.tolist() == [1, 11, 203]


def test_it_ends():
    with pytest.raises(IndexError):
        Mismatched(pairs(2), max_seq_length=9)[2]

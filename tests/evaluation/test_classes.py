"""Macro F1 and the confusion matrix, by hand and by counting class by class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.evaluation.classes import confusion, macro_f1

LABELS = ("a", "b", "c", "d")


def counted_macro_f1(right, chosen):
    """Class by class from precision and recall, as the definition has it; a class that nobody has is left out."""
    scores = []
    for name in set(right) | set(chosen):
        both = sum(a == b == name for a, b in zip(right, chosen, strict=True))
        precision, recall = both / max(1, chosen.count(name)), both / max(1, right.count(name))
        scores.append(2 * precision * recall / (precision + recall) if both else 0.0)
    return float(np.mean(scores))


def test_macro_f1_by_hand():
    right, chosen = ["a", "a", "a", "b"], ["a", "a", "b", "b"]
    # a: precision 1, recall 2/3, F1 4/5. b: precision 1/2, recall 1, F1 2/3. c and d are not there.
    assert macro_f1(right, chosen, LABELS).value == pytest.approx((4 / 5 + 2 / 3) / 2)


PAIRS = st.lists(st.tuples(st.sampled_from([*LABELS, "odd"]), st.sampled_from(LABELS)), min_size=1, max_size=30)


@given(pairs=PAIRS)
def test_macro_f1_is_the_mean_over_classes(pairs):
    right, chosen = map(list, zip(*pairs, strict=True))
    found = macro_f1(right, chosen, LABELS)
    assert found.value == pytest.approx(counted_macro_f1(right, chosen))
    interval = found.interval(seed=0)
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1


@given(pairs=PAIRS)
def test_the_confusion_matrix_counts_every_row_once(pairs):
    right, chosen = map(list, zip(*pairs, strict=True))
    found = confusion(right, chosen, LABELS)
    names, counts = found["labels"], np.array(found["confusion"])
    for i, expected in enumerate(names):
        for j, answer in enumerate(names):
            assert counts[i, j] == sum(pair == (expected, answer) for pair in pairs)
    assert counts.sum() == len(pairs)


def test_white_space_at_the_ends_of_a_class_means_nothing():
    assert confusion([" a"], ["a "], ("a", "b"))["confusion"] == [[1, 0], [0, 0]]

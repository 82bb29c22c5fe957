"""The scorer bleu: sacrebleu's own numbers, and a figure of sums that equals its corpus score."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from mlxtune.errors import DataError, UsageError
from mlxtune.evaluation.figures import FIGURES
from mlxtune.evaluation.scorers import bleu

TEXT = st.lists(st.sampled_from(["the", "cat", "Cat", "sat", "on", "a", "mat", ".", "3.5"]), max_size=12).map(" ".join)
SETTINGS = st.sampled_from(
    [
        {"tokenize": "13a", "lowercase": False},
        {"tokenize": "intl", "lowercase": True},
        {"tokenize": "char", "lowercase": False},
    ]
)


@given(pairs=st.lists(st.tuples(TEXT, TEXT.filter(bool)), min_size=1, max_size=6), settings=SETTINGS)
def test_many_texts_have_by_their_sums_the_score_of_sacrebleus_corpus(pairs, settings):
    outputs, references = map(list, zip(*pairs, strict=True))
    expected = BLEU(**settings).corpus_score(outputs, [references]).score / 100
    sums = np.array([bleu.adds(*pair, **settings) for pair in pairs]).sum(axis=0)
    assert float(FIGURES["bleu"](sums)) == pytest.approx(expected, abs=1e-9)


@given(output=TEXT, reference=TEXT.filter(bool))
def test_one_text_has_sacrebleus_score_of_a_sentence(output, reference):
    expected = BLEU(effective_order=True).sentence_score(output, [reference]).score / 100
    found = bleu.score(output, reference, tokenize="13a", lowercase=False)["bleu"]
    assert found == pytest.approx(min(1.0, expected))


def test_resampled_sums_are_worked_out_together():
    added = np.array([bleu.adds("the cat sat on the mat", "the cat sat on a mat", tokenize="13a", lowercase=False)])
    many = np.concatenate([added, added * 3, np.zeros_like(added)])
    np.testing.assert_allclose(FIGURES["bleu"](many), [float(FIGURES["bleu"](added[0]))] * 2 + [0.0])


def test_an_empty_reference_is_an_error():
    with pytest.raises(DataError, match="empty"):
        bleu.score("anything", " ", tokenize="13a", lowercase=False, where="rows.jsonl:1")


def test_without_sacrebleu_it_says_what_to_install(monkeypatch):
    bleu._bleu.cache_clear()
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(UsageError) as caught:
        bleu.score("a", "a", tokenize="13a", lowercase=False)
    assert "mlxtune[metrics]" in caught.value.remedy

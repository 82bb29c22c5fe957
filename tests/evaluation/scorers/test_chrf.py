"""The scorer chrf, against sacrebleu: of one text, and of many by their sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF

from mlxtune.errors import DataError
from mlxtune.evaluation.figures import FIGURES
from mlxtune.evaluation.scorers.chrf import adds, score

TEXT = st.text(alphabet="ab cé.,!\n'東", max_size=30)
REFERENCE = TEXT.filter(str.strip)
ORDERS = st.sampled_from([0, 2])


@given(output=TEXT, reference=REFERENCE, word_order=ORDERS)
def test_one_text_has_the_score_of_sacrebleu(output, reference, word_order):
    expected = CHRF(word_order=word_order).sentence_score(output, [reference]).score / 100
    assert score(output, reference, word_order=word_order)["chrf"] == pytest.approx(expected, abs=1e-12)


@given(pairs=st.lists(st.tuples(TEXT, REFERENCE), min_size=1, max_size=6), word_order=ORDERS)
def test_many_texts_have_by_their_sums_the_score_of_sacrebleus_corpus(pairs, word_order):
    outputs, references = map(list, zip(*pairs, strict=True))
    expected = CHRF(word_order=word_order).corpus_score(outputs, [references]).score / 100
    sums = np.array([adds(*pair, word_order=word_order) for pair in pairs]).sum(axis=0)
    assert float(FIGURES["chrf"](sums)) == pytest.approx(expected, abs=1e-12)


def test_an_empty_reference_is_an_error():
    with pytest.raises(DataError, match="empty"):
        score("anything", " ", word_order=0, where="rows.jsonl:1")

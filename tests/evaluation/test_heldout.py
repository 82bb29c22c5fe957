import mlx.core as mx
import numpy as np
import pytest
from reference.cross_entropy import cross_entropy
from tiny import tiny_llama, tiny_tokenizer

from mlxtune.data.dataset import fit
from mlxtune.data.render import Rendered
from mlxtune.evaluation.calibration import calibration_of
from mlxtune.evaluation.heldout import HeldOut, read_heldout
from mlxtune.inference.likelihood import make_reader

END = 2
PROMPT = "<|im_start|>user\nWhat is it?<|im_end|>\n"
ANSWERS = ("A café .", "no", '{"a": 1}', "longer than all of the others", "é")


@pytest.fixture(scope="module")
def network():
    return tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def rows(tokenizer):
    found = []
    for number, answer in enumerate(ANSWERS, 1):
        prompt, ids = tokenizer.encode(PROMPT + "?" * number), tokenizer.encode(answer)
        is_target = np.repeat([False, True], [len(prompt), len(ids) + 1])
        found.append(Rendered(np.array([*prompt, *ids, END], np.int32), is_target, f"rows.jsonl:{number}"))
    return found


def in_numpy(network, row):
    """Nats of each target of one row alone, whether it was the likeliest token, and how likely that was, from the
    network's full logits.
    """
    logits = np.array(network(mx.array(row.token_ids[None]))[0])
    positions = np.flatnonzero(row.is_target)
    logits, ids = logits[positions - 1], row.token_ids[positions]
    likeliest = logits.argmax(axis=1)
    return cross_entropy(logits, ids), likeliest == ids, np.exp(-cross_entropy(logits, likeliest))


@pytest.mark.parametrize("max_tokens", [1, 60, 4096])
def test_every_row_is_read_as_by_full_logits(network, tokenizer, rows, max_tokens):
    found = read_heldout(make_reader(network), tokenizer, rows, max_tokens=max_tokens)
    losses, hits, confidences = zip(*(in_numpy(network, row) for row in rows), strict=True)
    np.testing.assert_allclose(found.loss_sum, [loss.sum() for loss in losses], rtol=1e-5)
    np.testing.assert_array_equal(found.hit_count, [hit.sum() for hit in hits])
    np.testing.assert_array_equal(found.target_count, [len(loss) for loss in losses])
    np.testing.assert_array_equal(found.byte_count, [len(answer.encode()) for answer in ANSWERS])
    expected = calibration_of(np.concatenate(confidences), np.concatenate(hits))
    np.testing.assert_array_equal(found.calibration.count, expected.count)
    assert found.calibration.error == pytest.approx(expected.error, rel=1e-4)


def test_a_row_in_parts_is_one_row_and_a_character_across_two_of_them_one_character(network, tokenizer, rows):
    cut = len(rows[4].token_ids) - 2  # within the é of two tokens, the END after it
    limit = cut + 1
    parts = [*rows[:2], *fit(rows[4], limit, "split"), rows[3]]
    assert len(parts) == 5
    found = read_heldout(make_reader(network), tokenizer, parts, row_of=[0, 1, 2, 2, 3])
    alone = read_heldout(make_reader(network), tokenizer, parts)
    assert found.byte_count.tolist() == [len(ANSWERS[i].encode()) for i in (0, 1, 4, 3)]
    assert found.target_count.tolist() == [rows[i].is_target.sum() for i in (0, 1, 4, 3)]
    for name in ("loss_sum", "hit_count"):
        ours, theirs = getattr(found, name), getattr(alone, name)
        np.testing.assert_allclose(ours, [theirs[0], theirs[1], theirs[2] + theirs[3], theirs[4]], rtol=1e-12)
    assert found.calibration.to_json() == alone.calibration.to_json()


def test_tokens_that_were_the_likeliest_are_counted(network, tokenizer, rows):
    ids = rows[0].token_ids.copy()
    ids[-1] = np.array(network(mx.array(ids[None]))[0, -2]).argmax()
    found = read_heldout(make_reader(network), tokenizer, [Rendered(ids, rows[0].is_target, "rows.jsonl:1")])
    assert found.hit_count[0] == in_numpy(network, Rendered(ids, rows[0].is_target, ""))[1].sum() >= 1


def test_figures_are_ratios_of_sums_and_not_means_of_rows():
    found = HeldOut(
        loss_sum=np.array([2.0, 30.0]),
        target_count=np.array([1, 9]),
        hit_count=np.array([1.0, 2.0]),
        byte_count=np.array([4, 36]),
        calibration=calibration_of(np.zeros(0), np.zeros(0, bool)),
    )
    assert found.loss == pytest.approx(3.2)
    assert found.token_accuracy == pytest.approx(0.3)
    assert found.bits_per_byte == pytest.approx(32 / np.log(2) / 40)


def test_an_answer_of_no_text_counts_one_byte_so_that_the_ratio_has_a_meaning(network, tokenizer):
    row = Rendered(np.array([5, 6, END], np.int32), np.array([False, False, True]), "rows.jsonl:1")
    assert read_heldout(make_reader(network), tokenizer, [row]).byte_count.tolist() == [1]


def test_progress_tells_of_rows_up_to_all_of_them(network, tokenizer, rows):
    told = []
    read_heldout(
        make_reader(network),
        tokenizer,
        rows,
        max_tokens=60,
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert len(told) > 1
    assert told[-1] == (5, 5)
    assert told == sorted(set(told))

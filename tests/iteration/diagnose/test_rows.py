"""What data.json counted: each planted fault is found, with its numbers and the key; sound rows have none."""

import pytest
from planted_runs import evidence, train

from mlxtune.iteration.diagnose import findings_of


def only(**planted):
    """The one finding of a run that is sound but for this."""
    (found,) = findings_of(evidence(**planted))
    return found


def test_sound_rows_have_no_finding():
    assert findings_of(evidence()) == []


def test_without_data_json_nothing_is_said_of_rows():
    assert findings_of(evidence(data={"splits": None, "leakage": None})) == []


@pytest.mark.parametrize(
    "damaged",
    [
        {"splits": []},
        {"splits": {"train": 3}},
        {"leakage": {"test": "x"}},
        *({"splits": {"train": {"labels": {"classes": 2, "rows": 99, "counts": bad}}}} for bad in (3, [[3], []], [{}])),
        {"splits": {"train": {"files": 3}}},
        {"splits": {"train": {"files": [3, {"share": 0.2, "rows_read": "9"}]}}},
    ],
)
def test_data_of_another_form_is_no_error(damaged):
    assert findings_of(evidence(data=damaged)) == []


def test_rows_cut_at_the_limit_are_truncation():
    found = only(data=train(truncated={"count": 40}) | {"overflow": "truncate_right"})
    assert (found.kind, found.severity, found.key) == ("truncation", "hint", "data.max_seq_length")
    assert found.evidence == {"rows": 400, "cut": 40, "dropped": 0, "max_seq_length": 512}
    assert only(data=train(truncated={"count": 120}) | {"overflow": "truncate_left"}).severity == "problem"


def test_rows_left_out_for_their_length_are_truncation():
    found = only(data=train(dropped={"count": 30}) | {"overflow": "drop"})
    assert (found.kind, found.evidence["dropped"]) == ("truncation", 30)


def test_a_few_long_rows_and_rows_that_were_split_are_none():
    assert findings_of(evidence(data=train(truncated={"count": 10}) | {"overflow": "truncate_right"})) == []
    assert findings_of(evidence(data=train(truncated={"count": 400}) | {"overflow": "split"})) == []


def test_rows_whose_answers_are_empty_have_masks_that_train_on_nothing():
    found = only(data=train(target_tokens=400))
    assert (found.kind, found.severity) == ("masks_train_on_nothing", "problem")
    assert found.evidence["target_tokens_a_row"] == 1.0


def test_labels_of_one_token_and_their_end_are_something_to_learn():
    assert findings_of(evidence(data=train(target_tokens=800))) == []


def test_rows_whose_answers_are_cut_away_have_masks_that_train_on_nothing():
    found = only(data=train(dropped={"count": 12}) | {"overflow": "truncate_right"})
    assert (found.kind, found.evidence["without_targets"]) == ("masks_train_on_nothing", 12)


@pytest.mark.parametrize("overflow", ["error", "drop", "truncate_right"])
def test_long_rows_of_replay_are_no_fault_of_the_own_ones(overflow):
    """Of 2000 general rows 900 are too long: they are dropped, whatever data.overflow says, and others stand there."""
    files = [
        {"rows_read": 400, "rows": 400, "share": None, "dropped": 0},
        {"rows_read": 2000, "rows": 100, "share": 0.2, "dropped": 900},
    ]
    rows = {"rows_read": 2400, "rows": 500, "dropped": {"count": 900}, "files": files}
    assert findings_of(evidence(data=train(**rows) | {"overflow": overflow})) == []
    # And as many rows of replay hide no fault of the own ones.
    files[0]["dropped"], rows["dropped"] = 40, {"count": 940}
    assert [one.evidence["rows"] for one in findings_of(evidence(data=train(**rows) | {"overflow": overflow}))] == [400]
    files[0]["dropped"], rows["dropped"] = 0, {"count": 900}
    assert only(data=train(**rows, duplicates=40)).evidence["rows"] == 400


def test_one_answer_that_most_rows_have_is_imbalance():
    found = only(data=train(labels={"classes": 2, "rows": 400, "counts": [["yes", 350], ["no", 50]]}))
    assert (found.kind, found.severity, found.key) == ("class_imbalance", "hint", "data.train")
    assert "88%" in found.sentence
    assert "yes" not in found.sentence


def test_a_rare_answer_is_imbalance():
    found = only(data=train(labels={"classes": 3, "rows": 400, "counts": [["a", 200], ["b", 195], ["c", 5]]}))
    assert (found.evidence["most_frequent"], found.evidence["rarest_known"]) == (200, 5)


def test_classes_as_unequal_as_in_public_data_sets_are_no_finding():
    """Banking77's intents have 35 to 187 rows; PubMedQA's answers are yes 55 %, no 34 %, maybe 11 %."""
    for counts in ([["a", 187], *(["b", 100],) * 75, ["c", 35]], [["yes", 276], ["no", 169], ["maybe", 55]]):
        rows = sum(count for _, count in counts)
        assert findings_of(evidence(data=train(labels={"classes": len(counts), "rows": rows, "counts": counts}))) == []


def test_rows_that_repeat_others_are_memorised():
    found = only(data=train(duplicates=40))
    assert (found.kind, found.severity, found.evidence["same"]) == ("memorised_duplicates", "hint", 40)
    assert only(data=train(duplicates=0, near_duplicates=200)).kind == "memorised_duplicates"


def leak(**counts):
    return {"leakage": {"test": {"rows": 100, "same": 0, "asks_same": 0, "near": 0} | counts}}


@pytest.mark.parametrize("counts", [{"same": 1}, {"asks_same": 30}, {"near": 5}, {"same": 100}])
def test_a_leaked_test_set_is_called_leaked(counts):
    found = only(data=leak(**counts))
    assert (found.kind, found.severity, found.key) == ("leaked_test_set", "problem", "data.test")
    assert found.sentence.startswith(f"the test set is leaked: {next(iter(counts.values()))} of its 100 rows stand in")


def test_a_row_in_a_thousand_that_is_nearly_one_of_training_is_a_hint():
    found = only(data=leak(rows=1000, near=1))
    assert found.severity == "hint"
    assert "may be leaked" in found.sentence


def test_near_duplicates_that_nobody_looked_for_are_none():
    assert findings_of(evidence(data=leak(same=0, asks_same=None, near=None))) == []


def test_leaked_validation_rows_are_a_problem_only_where_they_are_what_is_scored():
    leakage = {"leakage": {"test": None, "valid": {"rows": 50, "same": 5, "asks_same": 0, "near": 0}}}
    assert only(data=leakage).severity == "hint"
    found = only(data=leakage, scores={"split": "valid"})
    assert (found.kind, found.severity) == ("leaked_validation_set", "problem")

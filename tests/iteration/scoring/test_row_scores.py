"""What each row adds comes back from a run's folder as it was, or not at all."""

import json
import shutil

import numpy as np
import pytest

from mlxtune.errors import RunError
from mlxtune.evaluation.measured import rates, ratio
from mlxtune.iteration.scoring.row_scores import pack_row_scores, read_row_scores
from mlxtune.runs.folder import open_run

SCORES = {
    "base": {"loss": ratio(np.arange(2), np.array([1 / 3, 2.0]), np.array([3, 5]))},
    "tuned": {"task.field:a/../b": rates({1: 1.0})},
}


@pytest.fixture
def run(tiny_run, tmp_path):
    return open_run(shutil.copytree(tiny_run, tmp_path / "run"))


def test_they_come_back_to_the_last_bit(run):
    basis = json.loads(run.scores.read_text())["basis"]
    run.row_scores.write_bytes(pack_row_scores(SCORES, basis))
    found = read_row_scores(run)
    assert {model: list(metrics) for model, metrics in found.items()} == {
        model: list(metrics) for model, metrics in SCORES.items()
    }
    loss = found["base"]["loss"]
    np.testing.assert_array_equal(loss.sums, SCORES["base"]["loss"].sums)
    assert loss.value == SCORES["base"]["loss"].value
    assert found["tuned"]["task.field:a/../b"].rows.tolist() == [1]


def test_the_same_scores_are_the_same_bytes():
    assert pack_row_scores(SCORES, {"a": 1}) == pack_row_scores(SCORES, {"a": 1})


@pytest.mark.parametrize("content", [b"", b"no gzip", None])
def test_what_is_not_there_or_damaged_says_how_to_make_it_again(run, content):
    if content is None:
        run.row_scores.unlink()
    else:
        run.row_scores.write_bytes(content)
    with pytest.raises(RunError, match="cannot be read") as caught:
        read_row_scores(run)
    assert caught.value.remedy == f"score the run again: mlxtune evaluate {run.path} --force"


def test_those_of_other_scores_are_refused(run):
    run.row_scores.write_bytes(pack_row_scores(SCORES, {"other": "basis"}))
    with pytest.raises(RunError, match="not those of scores"):
        read_row_scores(run)

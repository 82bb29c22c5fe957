"""Runs side by side: settings that differ, scores paired row by row, and a tie that is called one."""

import json
from typing import Any

import numpy as np
import pytest
from run_folders import RECIPE, interval, make_run, scores, write

from mlxtune.errors import RunError, UsageError
from mlxtune.evaluation.measured import rates, ratio
from mlxtune.evaluation.statistics import mcnemar
from mlxtune.iteration.compare import compare_runs, letters_of
from mlxtune.iteration.compare_page import comparison_page
from mlxtune.iteration.scoring.row_scores import pack_row_scores
from mlxtune.runs.folder import RunFolder

TASK = {"name": "sort", "scorer": "exact_match", "max_tokens": 8}
BASIS = {"data_sha256": "c" * 64, "data_template": None, "data": {"overflow": "error"}, "tasks": [TASK]}
ROWS = np.arange(100)


def scored(path, right, *, nats=None, tokens=None, basis=BASIS, **manifest):
    """A run whose tuned model has these rows right, at a loss of so many nats on so many tokens a row."""
    run = RunFolder(make_run(path, **manifest))
    measured = {"sort.exact": rates({row: float(row in right) for row in range(100)})}
    if nats is not None:
        measured["loss"] = ratio(ROWS, nats, np.full(100, 4.0) if tokens is None else tokens)
    content = scores() | {
        "basis": basis,
        "base": {},
        "tuned": {name: interval(one.value) for name, one in measured.items()},
    }
    write(run.scores, content)
    run.row_scores.write_bytes(pack_row_scores({"base": {}, "tuned": measured}, basis))
    return run.path


def difference(found, metric="sort.exact", run=1) -> Any:
    return next(one for one in found.metrics if one.metric == metric).differences[run]


def test_rows_that_only_one_has_right_decide_by_mcnemars_test(tmp_path):
    first = scored(tmp_path / "first", range(50))
    second = scored(tmp_path / "second", [*range(45), *range(50, 75)])  # loses 5, wins 25
    found = difference(compare_runs([first, second]))
    assert found["mean"] == pytest.approx(0.2)
    assert (found["test"], found["p_value"]) == ("McNemar", pytest.approx(mcnemar(25, 5)))
    assert found["verdict"] == "better"
    assert difference(compare_runs([second, first]))["verdict"] == "worse"


def test_a_tie_is_called_a_tie(tmp_path):
    runs = [scored(tmp_path / "first", range(50)), scored(tmp_path / "second", range(2, 52))]
    assert difference(compare_runs(runs))["verdict"] == "not distinguishable"


def test_a_lower_loss_on_the_same_tokens_is_better(tmp_path):
    nats = np.random.default_rng(0).uniform(2, 6, 100)
    runs = [scored(tmp_path / str(less), range(50), nats=nats - less) for less in (0, 1)]
    found = difference(compare_runs(runs), "loss")
    assert (found["mean"], found["verdict"]) == (pytest.approx(-0.25), "better")


def test_a_loss_on_other_tokens_is_not_compared_and_the_notes_say_so(tmp_path):
    nats = np.full(100, 3.0)
    runs = [
        scored(tmp_path / "first", range(50), nats=nats),
        scored(tmp_path / "second", range(50), nats=nats, tokens=np.full(100, 5.0)),
    ]
    found = compare_runs(runs)
    assert difference(found, "loss") is None
    assert difference(found) is not None
    assert any("only bits per byte compares" in note for note in found.notes)


@pytest.mark.parametrize(
    "other",
    [
        BASIS | {"data_sha256": "d" * 64},
        BASIS | {"data": {"overflow": "error", "format": "text"}},
        BASIS | {"data": {"overflow": "drop", "max_seq_length": 64}},
    ],
)
def test_scores_on_other_rows_stand_side_by_side_without_a_verdict(tmp_path, other):
    runs = [scored(tmp_path / "first", range(50)), scored(tmp_path / "second", range(90), basis=other)]
    found = compare_runs(runs)
    assert difference(found) is None
    assert [one and one["mean"] for one in found.metrics[0].intervals] == [0.5, 0.9]
    assert any("scored on other rows" in note for note in found.notes)


def test_a_task_that_was_asked_otherwise_is_not_compared(tmp_path):
    other = BASIS | {"tasks": [TASK | {"max_tokens": 64}]}
    runs = [scored(tmp_path / "first", range(50)), scored(tmp_path / "second", range(90), basis=other)]
    found = compare_runs(runs)
    assert difference(found) is None
    assert any("were asked otherwise: sort.exact" in note for note in found.notes)


def test_likelihoods_of_other_words_of_the_rows_are_not_compared(tmp_path):
    """One learned prompts too: its nats are of other words, however many bytes they are spread over."""

    def basis(train_on, model="a"):
        return BASIS | {"data": {"overflow": "error", "train_on": train_on}, "model_sha256": model}

    def compared(one, other):
        number = len(list(tmp_path.iterdir()))
        runs = [
            scored(tmp_path / f"{number}-{i}", range(50), nats=np.full(100, 3.0 + i), basis=own)
            for i, own in enumerate((one, other))
        ]
        found = compare_runs(runs)
        assert difference(found) is not None
        told = any("were asked otherwise: loss" in note for note in found.notes)
        assert told == (difference(found, "loss") is None)
        return not told

    assert not compared(basis("completions"), basis("everything"))
    assert not compared(basis("everything"), basis("everything", "b"))
    assert compared(basis("everything"), basis("everything"))
    assert compared(basis("completions"), basis("completions", "b"))


def test_what_was_set_otherwise_is_told_and_what_is_the_same_is_not(tmp_path):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", name="other")
    recipe = json.loads(json.dumps(RECIPE)) | {"name": "other", "more": {"new": [1, 2]}}
    recipe["method"]["rank"] = 16
    recipe["data"]["train"][0]["weight"] = 2.0
    write(second / "recipe.resolved.json", recipe)
    settings = {one.key: one.values for one in compare_runs([first, second]).settings}
    assert settings == {"method.rank": (8, 16), "data.train.0.weight": (1.0, 2.0), "more.new": (None, [1, 2])}


def test_runs_that_are_not_scored_or_scored_by_an_earlier_version_say_how_they_can_be(tmp_path):
    bare, older = make_run(tmp_path / "bare"), scored(tmp_path / "older", range(50))
    (older / "row_scores.json.gz").unlink()
    found = compare_runs([scored(tmp_path / "first", range(50)), bare, older])
    assert f"bare is not scored: mlxtune evaluate {bare}" in found.notes
    assert any(note.startswith("older has no scores of rows") for note in found.notes)
    assert found.metrics[0].differences == (None, None, None)


def test_of_several_runs_it_is_said_that_choosing_by_these_scores_flatters(tmp_path):
    runs = [scored(tmp_path / str(number), range(50)) for number in range(3)]
    assert any("flatters" in note for note in compare_runs(runs).notes)
    assert not any("flatters" in note for note in compare_runs(runs[:2]).notes)


def test_it_takes_two_different_runs(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match="takes two runs"):
        compare_runs([run])
    with pytest.raises(UsageError, match="named twice"):
        compare_runs([run, tmp_path / "run" / "." / ".." / "run"])
    with pytest.raises(RunError, match="there is no such run"):
        compare_runs([run, tmp_path / "none"])


def test_the_page_holds_what_the_comparison_says_and_no_markup_of_a_users(tmp_path):
    attack = "<script>alert(1)</script>"
    first = scored(tmp_path / "first", range(50))
    second = scored(tmp_path / f"b{attack.replace('/', '')}", range(90))
    recipe = RECIPE | {"description": f'"{attack}'}
    write(second / "recipe.resolved.json", recipe)
    page = comparison_page(compare_runs([first, second]))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "B is better than A by sort.exact: +40.0" in page
    assert "script-src 'none'" in page


def test_letters_go_on_as_numbers():
    assert letters_of(28)[:2] == ["A", "B"]
    assert letters_of(28)[25:] == ["Z", "27", "28"]

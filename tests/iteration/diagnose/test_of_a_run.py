"""Runs from their beginning to their findings: a sound one has none, and what was planted stands in file, card and
result.
"""

import json
import shutil

import pytest
from tiny import tiny_recipe

from mlxtune.iteration.diagnose import read_findings, write_findings
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.runs.folder import RunFolder


def test_a_sound_run_has_no_finding_and_says_how_large_its_update_is(tiny_run):
    assert json.loads((tiny_run / "findings.json").read_text()) == []
    assert "To look at" not in (tiny_run / "README.md").read_text()
    update = json.loads((tiny_run / "run.json").read_text())["update"]
    assert update["layers"] == 14
    assert 0 < update["relative_norm"] <= update["largest"] < 10


def test_an_adapter_that_learned_nothing_is_found(tmp_path):
    recipe = tiny_recipe(tmp_path)
    result = run_recipe(recipe, ["training.learning_rate=1e-9"], device="cpu", run_dir=tmp_path / "run", score=False)
    (found,) = result.findings
    assert (found["kind"], found["key"]) == ("adapter_does_nothing", "training.learning_rate")
    assert json.loads((tmp_path / "run" / "findings.json").read_text()) == [found]
    assert found["sentence"] in (tmp_path / "run" / "README.md").read_text()
    assert resume_run(tmp_path / "run", device="cpu", score=False).findings == (found,)


def test_a_test_set_that_stands_in_the_training_rows_is_called_leaked(tmp_path):
    recipe = tiny_recipe(tmp_path)
    shutil.copy(tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    result = run_recipe(recipe, ["evaluation.tasks=[]"], device="cpu", run_dir=tmp_path / "run")
    (found,) = result.findings
    assert (found["kind"], found["severity"], found["evidence"]["same"]) == ("leaked_test_set", "problem", 12)
    assert "the test set is leaked: 12 of its 12 rows" in (tmp_path / "run" / "README.md").read_text()


def test_findings_are_made_anew_and_damaged_ones_are_none(own_run):
    run = RunFolder(own_run)
    for damaged in ("{", "[1]", '[{"kind": "k"}]', "[" * 100_000):
        run.findings.write_text(damaged)
        assert read_findings(run) == []
    assert write_findings(run) == read_findings(run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "data.json", "scores.json", "recipe.resolved.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"splits": [1], "tuned": 3, "training": null}\n[]\n"x"\n{"step": {}}'])
def test_a_damaged_file_is_no_error_for_who_diagnoses(tiny_run, tmp_path, name, content):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / name).write_text(content)
    assert isinstance(write_findings(RunFolder(run)), list)
    (run / name).write_bytes(b"\xff\n" + b"[" * 100_000)
    assert isinstance(write_findings(RunFolder(run)), list)

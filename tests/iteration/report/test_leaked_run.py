"""A run whose test rows were trained on says so in the first sentence of its report."""

import shutil

from tiny import tiny_recipe

from mlxtune.iteration.report.evidence import read_evidence
from mlxtune.iteration.report.verdict import make_verdict
from mlxtune.iteration.run import run_recipe
from mlxtune.runs.folder import open_run


def verdict_of(recipe, *overrides):
    result = run_recipe(recipe, overrides, device="cpu", run_dir=recipe.parent / "run")
    return make_verdict(read_evidence(open_run(result.run_dir)))


def test_test_rows_that_were_trained_on_are_called_leaked(tmp_path):
    recipe = tiny_recipe(tmp_path)
    shutil.copyfile(tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    found = verdict_of(recipe, "training.max_steps=2")
    assert found.tone == "leaked"
    assert found.sentence.startswith("Leaked: 12 of 12 (100 %) test rows say or ask what a training row does")

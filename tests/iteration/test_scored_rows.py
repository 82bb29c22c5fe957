"""A held-out row counts once, under one number, in all metrics, whatever it weighs and in how many parts it is read."""

import json

import pytest
from tiny import tiny_recipe

from mlxtune.iteration.run import run_recipe
from mlxtune.iteration.scoring.row_scores import read_row_scores
from mlxtune.runs.folder import open_run

LENGTHS = (3, 40, 5, 60, 4, 70, 6)
TONGUES = ("nl", "fr", None, "nl", "fr", "nl", "nl")
LIMIT = 50


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Scored on text rows of two files, of which one weighs 2 and some rows are longer than the limit."""
    folder = tmp_path_factory.mktemp("weighed")
    recipe = tiny_recipe(folder)
    for name, numbers in (("once", (0, 1, 2)), ("twice", (3, 4, 5, 6))):
        rows = [{"text": f"Q\nA: {number}{'a' * LENGTHS[number]}", "tongue": TONGUES[number]} for number in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "data.train": folder / "once.jsonl",
        "data.valid": "null",
        "data.test": f"[{folder}/once.jsonl, {{path: {folder}/twice.jsonl, weight: 2}}]",
        "data.max_seq_length": LIMIT,
        "data.overflow": "split",
        "training.max_steps": 1,
        "evaluation.group_by": "tongue",
        "evaluation.tasks": "[{name: said, scorer: exact_match, max_tokens: 4}]",
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return open_run(run_recipe(recipe, overrides, device="cpu", run_dir=folder / "run").run_dir)


def places(run):
    folder = run.path.parent
    return [f"{folder / 'once.jsonl'}:{line}" for line in (1, 2, 3)] + [
        f"{folder / 'twice.jsonl'}:{line}" for line in (1, 2, 3, 4)
    ]


def test_every_row_has_one_number_in_all_metrics_of_both_models(run):
    assert json.loads(run.scores.read_text())["rows"] == 7
    for metrics in read_row_scores(run).values():
        assert {"loss", "said.exact_match"} <= metrics.keys()
        for measured in metrics.values():
            assert measured.rows.tolist() == list(range(7))
        # Each letter, the digit, "Q\nA: " but for its first token, which is no target without BOS, and EOS.
        targets = metrics["loss"].sums[:, 1]
        assert (targets - LENGTHS).tolist() == [targets[0] - LENGTHS[0]] * 7


def test_samples_and_worst_rows_are_the_rows_of_those_numbers(run):
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    assert [sample["where"] for sample in samples] == places(run)
    assert [sample["reference"][0] for sample in samples] == list("0123456")
    found = json.loads(run.scores.read_text())["breakdown"]["worst"]
    assert {row["row"] for row in found} == set(range(7))
    losses = read_row_scores(run)["tuned"]["loss"]
    for row in found:
        assert row["where"] == places(run)[row["row"]]
        nats, targets = losses.sums[row["row"]]
        assert (row["tuned_loss"], row["target_tokens"]) == (pytest.approx(nats / targets), targets)


def test_groups_hold_their_rows_and_each_row_once(run):
    found = json.loads(run.scores.read_text())["breakdown"]["by_group"]
    assert [(part["group"], part["rows"]) for part in found["groups"]] == [("nl", 4), ("fr", 2), (None, 1)]
    measured = read_row_scores(run)["base"]["loss"]
    for part in found["groups"]:
        numbers = [number for number, tongue in enumerate(TONGUES) if tongue == part["group"]]
        nats, targets = measured.sums[numbers].sum(axis=0)
        assert part["base"]["loss"]["mean"] == pytest.approx(nats / targets)
        assert {interval["count"] for interval in part["tuned"].values()} == {len(numbers)}


def test_lengths_are_those_that_the_network_reads(run):
    (part,) = json.loads(run.scores.read_text())["breakdown"]["by_length"]
    assert part["rows"] == 7
    assert part["low"] < LIMIT < part["high"]


def test_both_models_say_how_far_their_confidence_can_be_believed(run):
    found = json.loads(run.scores.read_text())["breakdown"]["calibration"]
    targets = read_row_scores(run)["base"]["loss"].sums[:, 1].sum()
    for model in ("base", "tuned"):
        assert 0 <= found[model]["ece"] <= 1
        assert sum(part["count"] for part in found[model]["bins"]) == targets

"""Scores of pairs: in parts, and beside models of another make, which read both answers too."""

import json

import pytest
from rich.console import Console
from run_steps import train
from tiny import tiny_model_folder, tiny_recipe

from mlxtune.evaluation.table import beside_others, others_to_rich
from mlxtune.iteration.score import evaluate

PAIRS = 24


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    recipe = tiny_recipe(folder)
    pairs = [
        {
            "prompt": f"Number {n}?",
            "chosen": "no",
            "rejected": "yes" + ", sir" * (n % 7),
            "kind": "odd" if n % 2 else "even",
        }
        for n in range(PAIRS)
    ]
    for split in ("train", "valid", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    settings = ("objective={type: dpo}", "training.max_steps=1", "evaluation.tasks=[]", "evaluation.group_by=kind")
    run = train(recipe, folder / "run", *settings, score=True).run_dir
    evaluate(run, against=[str(tiny_model_folder(folder / "large", seed=5))], device="cpu")
    return json.loads((run / "scores.json").read_text())


def test_a_pair_is_one_row_of_the_breakdown(scores):
    parts = scores["breakdown"]["by_length"]
    assert len(parts) > 1
    assert sum(part["rows"] for part in parts) == PAIRS
    assert {group["group"]: group["rows"] for group in scores["breakdown"]["by_group"]["groups"]} == {
        "even": PAIRS // 2,
        "odd": PAIRS // 2,
    }
    assert all("preferred" in part["differences"] for part in parts)


def test_another_model_is_asked_which_answer_it_finds_likelier(scores):
    (rival,) = scores["against"]
    assert rival["metrics"]["preferred"]["count"] == PAIRS
    assert rival["differences"].keys() >= {"preferred", "preferred_a_token", "bits_per_byte"}


def test_the_table_of_all_models_begins_with_it(scores):
    rows = beside_others(scores)
    assert [row.metric for row in rows] == ["preferred_a_token"] * 3 + ["preferred"] * 3 + ["bits_per_byte"] * 3
    console = Console(width=120)
    with console.capture() as capture:
        console.print(others_to_rich(rows))
    assert "preferred_a_token" in capture.get()

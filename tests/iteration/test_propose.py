"""The recipe that ``init`` writes is one that validates, trains and was foretold to fit."""

import json
from pathlib import Path

import pytest
from tiny import tiny_model_folder

from mlxtune.errors import DataError, OutputExistsError, TrainingError, UsageError
from mlxtune.iteration.propose import Answers, propose_recipe
from mlxtune.iteration.run import run_recipe
from mlxtune.recipe.load import load_recipe

COLOURS = ("red", "green")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("propose") / "model", layers=4, hidden=32, heads=2, kv_heads=1)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    words = ["apple", "river", "stone", "cloud", "lamp", "door", "wolf", "seed", "coin", "rope"]
    said = [f"{one} and {other} at {number}" for number, one in enumerate(words) for other in words[:4]]
    lines = [json.dumps({"text": text, "label": COLOURS[number % 2]}) for number, text in enumerate(said)]
    path.write_text("\n".join(lines) + "\n")
    return path


def answers(rows: Path, model: Path, **changes) -> Answers:
    return Answers(**{"task": "classify", "data": rows, "model": str(model), "minutes": 5.0, **changes})


def test_what_is_written_validates_fits_and_trains(tmp_path: Path, rows: Path, model: Path):
    proposal = propose_recipe(answers(rows, model), tmp_path / "mine", device="cpu")
    assert proposal.recipe == tmp_path / "mine" / "recipe.yaml"
    loaded = load_recipe(proposal.recipe)
    loaded.check_files()
    recipe = loaded.recipe
    assert proposal.forecast.fits
    assert sum(proposal.rows.values()) == 40
    assert proposal.rows == {
        split: len((tmp_path / f"mine/data/{split}.jsonl").read_text().splitlines()) for split in proposal.rows
    }
    assert (recipe.name, recipe.evaluation.tasks[0].scorer, recipe.training.max_minutes) == ("mine", "choice", 5)
    assert recipe.data.max_seq_length == 128  # bytes are tokens here: these rows have more than 64
    result = run_recipe(proposal.recipe, ["training.max_steps=2"], device="cpu", run_dir=tmp_path / "run", score=False)
    assert result.steps == 2


def test_each_label_has_its_share_in_every_split(tmp_path: Path, rows: Path, model: Path):
    propose_recipe(answers(rows, model), tmp_path / "mine", device="cpu")
    for split in ("valid", "test"):
        found = [json.loads(line)["label"] for line in (tmp_path / f"mine/data/{split}.jsonl").read_text().splitlines()]
        assert abs(found.count("red") - found.count("green")) <= 1


def test_less_memory_trains_fewer_blocks_and_too_little_writes_nothing(tmp_path: Path, rows: Path, model: Path):
    whole = propose_recipe(answers(rows, model), tmp_path / "whole", device="cpu").forecast
    asked = answers(rows, model, memory_bytes=whole.peak_memory_bytes - 1)
    less = propose_recipe(asked, tmp_path / "less", device="cpu")
    assert less.forecast.fits
    assert less.forecast.peak_memory_bytes < whole.peak_memory_bytes
    with pytest.raises(TrainingError, match="the run would take"):
        propose_recipe(answers(rows, model, memory_bytes=1000), tmp_path / "none", device="cpu")
    assert not (tmp_path / "none").exists()


def test_rows_of_text_have_no_task(tmp_path: Path, model: Path):
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"line {number} " + chr(97 + number) * 9}) + "\n" for number in range(20))
    )
    proposal = propose_recipe(answers(path, model, task="write"), tmp_path / "mine", device="cpu")
    assert load_recipe(proposal.recipe).recipe.evaluation.tasks == ()


def test_a_model_is_named_from_where_one_stands_and_not_from_the_recipe(
    tmp_path: Path, rows: Path, model: Path, monkeypatch
):
    monkeypatch.chdir(model.parent)
    proposal = propose_recipe(answers(rows, Path("./model")), tmp_path / "deep/er/mine", device="cpu")
    assert load_recipe(proposal.recipe).recipe.model.source == str(model)


def test_nothing_is_overwritten_without_force(tmp_path: Path, rows: Path, model: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        propose_recipe(answers(rows, model), tmp_path / "mine", device="cpu")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"task": "sing"}, UsageError, "there is no task sing"),
        ({"minutes": 0.0}, UsageError, "0 minutes are no time"),
        ({"minutes": float("nan")}, UsageError, "nan minutes are no time"),
        ({"data": Path("gone.jsonl")}, UsageError, "the data file is not there"),
        ({"memory_bytes": -1}, UsageError, "no memory"),
    ],
)
def test_an_answer_that_is_none_is_refused_by_name(tmp_path: Path, rows: Path, model: Path, changes, error, told):
    with pytest.raises(error, match=told):
        propose_recipe(answers(rows, model, **changes), tmp_path / "mine", device="cpu")
    assert not (tmp_path / "mine").exists()


def test_rows_of_no_known_form_are_refused_with_their_columns(tmp_path: Path, model: Path):
    (tmp_path / "odd.jsonl").write_text('{"foo": 1, "bar": 2}\n' * 3)
    with pytest.raises(DataError, match="the rows fit no known form; keys found: bar, foo"):
        propose_recipe(answers(tmp_path / "odd.jsonl", model), tmp_path / "mine", device="cpu")
    assert not (tmp_path / "mine").exists()

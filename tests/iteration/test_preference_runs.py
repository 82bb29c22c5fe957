"""A run that learns from pairs: it learns, goes on exactly, is scored, and refuses what has no meaning for pairs."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from run_steps import adapter_bytes, stopping_after, train, without_timings
from tiny import tiny_recipe

from mlxtune.cache import cache_folder
from mlxtune.cli import main
from mlxtune.errors import DataError, RecipeError
from mlxtune.iteration.run import resume_run
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.metrics import read_metrics

WORDS = ["lamp", "kettle", "door", "chair", "radio", "clock", "stove", "phone"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Pairs of which the better answer is always the same."""
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    path = tiny_recipe(tmp_path)
    pairs = [{"prompt": f"My {word}?", "chosen": "yes, sir", "rejected": "no"} for word in WORDS]
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


KTO = "{type: kto, beta: 0.5}"
DPO = ("objective={type: dpo, beta: 0.5}", "training.max_steps=6", "training.batch_size=4", "evaluation.tasks=[]")
QUICK = ("training.learning_rate=0.02", "evaluation.every_steps=3", "checkpoint.every_steps=2", "training.epochs=9")


def steps(run_dir):
    return [line for line in read_metrics(run_dir / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("layers", ["all", "{top: 1}"])
@pytest.mark.parametrize(
    "objective", ["{type: dpo, beta: 0.5}", "{type: dpo, beta: 0.5, loss: ipo}", "{type: orpo}", KTO]
)
def test_the_better_answers_gain(recipe, tmp_path, objective, layers):
    train(recipe, tmp_path / "run", *DPO, *QUICK, f"objective={objective}", f"method.layers={layers}")
    lines = steps(tmp_path / "run")
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert lines[-1]["reward_margin"] > lines[0]["reward_margin"]
    assert lines[-1]["reward_accuracy"] == 1.0
    valid = [line["valid_loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "valid_loss" in line]
    assert len(valid) == 2
    assert valid[-1] < valid[0]


def test_it_begins_where_the_reference_is(recipe, tmp_path):
    train(recipe, tmp_path / "run", *DPO, *QUICK)
    first = steps(tmp_path / "run")[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert first["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert first["target_tokens"] == 4 * (len("yes, sir") + len("no") + 2 * len(["end of turn"]))


def test_kto_begins_where_nothing_is_gained(recipe, tmp_path):
    train(recipe, tmp_path / "run", *DPO, *QUICK, f"objective={KTO}")
    first, *_, last = steps(tmp_path / "run")
    assert first["loss"] == pytest.approx(0.5, abs=1e-5)
    assert first["kl"] == pytest.approx(0, abs=1e-4)
    assert last["kl"] > 0.01, "what it has learned to say it finds likelier under every prompt"


def test_the_reference_is_read_once_and_found_again(recipe, tmp_path):
    said = []
    watch = Watch(progress=lambda what, done, total: said.append(what))  # noqa: ARG005 - what is told
    read = SimpleNamespace(count=lambda: sum("held-out" in what for what in said))
    train(recipe, tmp_path / "one", *DPO, *QUICK, "data.valid=null", watch=watch)
    assert read.count() > 0
    assert len(list(cache_folder("references").iterdir())) == 1
    said.clear()
    train(recipe, tmp_path / "two", *DPO, *QUICK, "data.valid=null", watch=watch)
    assert read.count() == 0
    assert adapter_bytes(tmp_path / "one") == adapter_bytes(tmp_path / "two")


@pytest.mark.parametrize("objective", ["{type: dpo, beta: 0.5}", KTO])
@pytest.mark.parametrize("cache", ["kept", "gone"])
def test_a_stopped_run_comes_to_what_it_would_have_come_to(recipe, tmp_path, cache, objective):
    overrides = (*DPO, *QUICK, f"objective={objective}")
    train(recipe, tmp_path / "whole", *overrides)
    watch, _ = stopping_after(3)
    train(recipe, tmp_path / "parts", *overrides, watch=watch)
    if cache == "gone":  # the reference is read again, by the network that the run started from
        for path in cache_folder("references").iterdir():
            path.unlink()
    resume_run(tmp_path / "parts", device="cpu", score=False)
    assert adapter_bytes(tmp_path / "parts") == adapter_bytes(tmp_path / "whole")
    assert without_timings(tmp_path / "parts") == without_timings(tmp_path / "whole")


@pytest.mark.parametrize("objective", ["{type: dpo, beta: 0.5}", KTO])
def test_an_update_is_the_same_however_its_pairs_are_read(recipe, tmp_path, objective):
    plain = (*DPO, *QUICK, "method.dropout=0", f"objective={objective}", "training.learning_rate=0.001")
    train(recipe, tmp_path / "one", *plain, "training.batch_size=8")
    train(recipe, tmp_path / "four", *plain, "training.batch_size=2", "training.gradient_accumulation_steps=4")
    for one, four in zip(*(steps(tmp_path / name)[:2] for name in ("one", "four")), strict=True):
        for name in one.keys() & {"loss", "reward_margin", "grad_norm", "kl"}:
            assert one[name] == pytest.approx(four[name], rel=1e-3, abs=1e-4)


def test_base_and_tuned_are_scored_by_whom_they_prefer(recipe, tmp_path):
    for split in ("train", "valid", "test"):
        path = tmp_path / f"{split}.jsonl"
        pairs = [json.loads(line) for line in path.read_text().splitlines()]
        turned = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs]
        path.write_text("".join(json.dumps(pair) + "\n" for pair in turned))
    result = train(recipe, tmp_path / "run", *DPO, *QUICK, score=True)
    assert result.scores is not None
    assert result.scores["rows"] == len(WORDS)
    assert result.scores["headline"] == "preferred_a_token"
    base, tuned = ({name: one["mean"] for name, one in result.scores[model].items()} for model in ("base", "tuned"))
    assert (base["preferred_a_token"], tuned["preferred_a_token"]) == (0, 1)
    assert (base["preferred"], tuned["preferred"]) == (1, 1), "the better answer is shorter, and so likelier as a whole"
    assert result.scores["differences"]["preferred_a_token"]["verdict"] == "better"


def test_a_run_goes_on_from_another_and_is_measured_from_there(recipe, tmp_path):
    train(recipe, tmp_path / "one", *DPO, *QUICK)
    train(recipe, tmp_path / "two", *DPO, *QUICK, f"model.adapter={tmp_path / 'one'}", "method.dropout=0")
    assert steps(tmp_path / "two")[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.overflow=split", "both answers of a pair need their prompt"),
        ("data.overflow=truncate_left", "both answers of a pair need their prompt"),
        ("data.train_on=everything", "never the prompt"),
        ("data.replay={file: train.jsonl}", "other rows cannot be learned beside pairs"),
        ("data.train=[{path: train.jsonl, weight: 2.0}]", "pairs have no weights"),
        ("objective={type: dpo, loss: ipo, label_smoothing: 0.1}", "label_smoothing belongs to"),
        ("objective={type: orpo, loss: ipo}", "loss"),
        ("objective={type: dop}", "dop"),
    ],
)
def test_what_has_no_meaning_for_pairs_is_refused(recipe, override, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [*DPO, override])
    assert said in f"{caught.value} {caught.value.remedy}"


def test_rows_with_one_answer_are_refused(recipe, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"prompt": "Hi", "completion": "Hello"}\n')
    with pytest.raises(DataError, match="one answer alone") as caught:
        train(recipe, tmp_path / "run", *DPO)
    assert caught.value.where == f"{tmp_path / 'train.jsonl'}:1"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("overflow", ["drop", "truncate_right"])
def test_a_pair_stays_or_goes_as_one(recipe, tmp_path, overflow):
    long = {"prompt": "My lamp?", "chosen": "yes, sir", "rejected": "no " * 40}
    path = tmp_path / "train.jsonl"
    path.write_text(path.read_text() + json.dumps(long) + "\n")
    result = train(recipe, tmp_path / "run", *DPO, *QUICK, "data.max_seq_length=90", f"data.overflow={overflow}")
    train_facts = json.loads((result.run_dir / "data.json").read_text())["splits"]["train"]
    assert train_facts["rows"] == len(WORDS) + (overflow == "truncate_right")


def test_stats_and_plan_count_both_answers(recipe):
    def said(*command):
        result = CliRunner().invoke(main, [*command, str(recipe), *DPO, "--json", "--device", "cpu", "--quiet"])
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    stats, plan = said("data", "stats"), said("plan")
    answers = len(WORDS) * (len("yes, sir") + len("no") + 2 * len(["end of turn"]))
    assert stats["target_tokens"] == plan["target_tokens_an_epoch"] == answers
    assert stats["rows"] == plan["rows"] == len(WORDS)
    assert stats["epoch"]["batches"] == 2

"""Scores of a run and of a model: right, kept while they are current, and made anew when they are not."""

import json
import os

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from tiny import tiny_recipe, tiny_row

from mlxtune.cache import cache_folder
from mlxtune.data.render import Renderer
from mlxtune.data.source import find_source, read_examples
from mlxtune.errors import DataError, RunError, UsageError
from mlxtune.files import sha256_of
from mlxtune.iteration.score import evaluate
from mlxtune.iteration.scoring import one_model
from mlxtune.runs.folder import lock, open_run


def spied(told):
    return lambda what, *_: told.add(what.partition(",")[0])


def without_clock(scores):
    """All of it but what a clock and the memory said."""
    measured = ("tokens_per_s", "peak_memory_bytes")
    costs = {model: {k: v for k, v in cost.items() if k not in measured} for model, cost in scores["cost"].items()}
    return scores | {"cost": costs}


def losses_by_mlx_lm(model, adapter, rows):
    """Nats and targets of all rows, from mlx_lm's own network and full logits, in numpy."""
    network, tokenizer = mlx_lm.load(str(model), adapter_path=adapter and str(adapter))
    nats, targets = 0.0, 0
    for example in read_examples(find_source([(str(rows), 1.0)], "test")):
        row = Renderer(tokenizer).render(example, "completions")
        logits = np.array(network(mx.array(row.token_ids)[None])[0].astype(mx.float32), np.float64)
        likelihood = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        wanted = np.flatnonzero(row.is_target)
        nats -= likelihood[wanted - 1, row.token_ids[wanted]].sum()
        targets += len(wanted)
    return nats, targets


def test_the_losses_are_those_that_mlx_lm_gives_for_base_and_adapter(tiny_run):
    scores = evaluate(tiny_run, device="cpu")
    for name, adapter in (("base", None), ("tuned", tiny_run / "adapter")):
        nats, targets = losses_by_mlx_lm(tiny_run.parent / "model", adapter, tiny_run.parent / "test.jsonl")
        assert scores[name]["loss"]["mean"] == pytest.approx(nats / targets, rel=1e-4)
    assert scores["base"]["loss"]["mean"] > scores["tuned"]["loss"]["mean"]


def test_each_metric_has_its_interval_and_each_row_both_answers(tiny_run):
    scores = json.loads((tiny_run / "scores.json").read_text())
    assert (scores["split"], scores["rows"], scores["confidence"]) == ("test", 6, 0.95)
    assert scores["base"].keys() == scores["tuned"].keys()
    assert {"loss", "bits_per_byte", "token_accuracy", "order.valid_json", "order.field:said"} <= scores["tuned"].keys()
    for interval in scores["tuned"].values():
        assert interval["low"] <= interval["mean"] <= interval["high"]
        assert interval["count"] == 6
    samples = [json.loads(line) for line in (tiny_run / "samples.jsonl").read_text().splitlines()]
    assert [sample["where"] for sample in samples] == [f"{tiny_run.parent / 'test.jsonl'}:{i}" for i in range(1, 7)]
    assert samples[0].keys() == {"task", "where", "prompt", "reference", "base", "tuned", "against", "scores"}
    assert (samples[0]["prompt"], samples[0]["against"]) == ("Whisper test 0", {})
    assert json.loads(samples[0]["reference"]) == {"said": "test 0"}


def test_what_is_current_is_shown_and_nothing_is_written(tiny_run):
    paths = [tiny_run / name for name in ("scores.json", "samples.jsonl", "README.md")]
    before = [path.stat().st_mtime_ns for path in paths]
    told = set()
    scores = evaluate(str(tiny_run), device="cpu", progress=spied(told))
    assert scores == json.loads(paths[0].read_text())
    assert not [what for what in told if what.startswith("score")]
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_other_rows_are_scored_anew_and_the_card_follows(own_run):
    evaluate(own_run, device="cpu")
    rows = own_run.parent / "test.jsonl"
    rows.write_text("".join(json.dumps(tiny_row(f"other {i}")) + "\n" for i in range(3)))
    told = set()
    scores = evaluate(own_run, device="cpu", progress=spied(told))
    assert scores["rows"] == 3
    assert scores["basis"]["data_sha256"] == sha256_of(rows)
    assert {"score base", "score tuned"} <= told
    assert "on 3 test rows" in (own_run / "README.md").read_text()


def test_scores_of_a_base_are_taken_from_the_cache_unless_forced(own_run):
    evaluate(own_run, device="cpu")
    (own_run / "scores.json").unlink()
    told = set()
    before = evaluate(own_run, device="cpu", progress=spied(told))
    assert ("score base" in told, "score tuned" in told) == (False, True)
    told.clear()
    assert without_clock(evaluate(own_run, device="cpu", force=True, progress=spied(told))) == without_clock(before)
    assert {"score base", "score tuned"} <= told


def test_scores_that_other_code_gave_are_made_anew(own_run, monkeypatch):
    evaluate(own_run, device="cpu")
    monkeypatch.setattr(one_model, "scoring_sha256", lambda: "of the commit before")
    told = set()
    evaluate(own_run, device="cpu", progress=spied(told))
    assert {"score base", "score tuned"} <= told


def test_a_damaged_entry_of_the_cache_and_damaged_scores_are_made_anew(own_run):
    before = evaluate(own_run, device="cpu")
    (own_run / "scores.json").write_text("{")
    for entry in cache_folder("scores").iterdir():
        entry.write_text("{")
    assert without_clock(evaluate(own_run, device="cpu")) == without_clock(before)


def test_without_a_test_split_the_validation_split_is_scored_and_the_card_says_what_that_means(tmp_path):
    from mlxtune.iteration.run import run_recipe

    recipe = tiny_recipe(tmp_path)
    run_recipe(recipe, ["data.test=null", "training.max_steps=1"], device="cpu", run_dir=tmp_path / "run")
    scores = evaluate(tmp_path / "run", device="cpu")
    assert (scores["split"], scores["rows"]) == ("valid", 4)
    assert "chose the checkpoint" in (tmp_path / "run/README.md").read_text()


def test_a_run_without_held_out_rows_says_how_to_come_to_some(tmp_path):
    from mlxtune.iteration.run import run_recipe

    overrides = ["data.test=null", "data.valid=null", "training.max_steps=1"]
    run_recipe(tiny_recipe(tmp_path), overrides, device="cpu", run_dir=tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        evaluate(tmp_path / "run", device="cpu")
    assert "mlxtune data split" in caught.value.remedy


def test_a_run_whose_rows_are_gone_keeps_its_scores_and_says_where_they_are(own_run):
    evaluate(own_run, device="cpu")
    before = (own_run / "scores.json").read_bytes()
    (own_run.parent / "test.jsonl").unlink()
    with pytest.raises(DataError) as caught:
        evaluate(own_run, device="cpu")
    assert "scores.json" in caught.value.remedy
    assert (own_run / "scores.json").read_bytes() == before


def test_a_run_on_another_base_is_not_scored(own_run):
    config = own_run.parent / "model" / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    with pytest.raises(RunError, match="its hash differs"):
        evaluate(own_run, device="cpu")


def test_a_run_that_another_process_works_in_is_not_scored(own_run):
    with lock(open_run(own_run)), pytest.raises(RunError, match="another process"):
        evaluate(own_run, device="cpu")


def test_a_model_on_a_recipes_rows_has_the_scores_of_the_runs_base(tiny_run):
    scores = evaluate(tiny_run.parent / "model", recipe=tiny_run.parent / "recipe.yaml", device="cpu")
    assert scores["metrics"] == json.loads((tiny_run / "scores.json").read_text())["base"]
    assert (scores["rows"], scores["data"]) == (6, str(tiny_run.parent / "test.jsonl"))


def test_a_model_on_a_file_has_losses_and_no_tasks(tiny_run):
    scores = evaluate(tiny_run.parent / "model", data=os.fspath(tiny_run.parent / "valid.jsonl"), device="cpu")
    assert scores["metrics"].keys() == {"loss", "bits_per_byte", "token_accuracy"}
    assert scores["rows"] == 4


def test_a_model_says_how_far_its_confidence_can_be_believed(tiny_run):
    scores = evaluate(tiny_run.parent / "model", recipe=tiny_run.parent / "recipe.yaml", device="cpu")
    assert (
        scores["calibration"] == json.loads((tiny_run / "scores.json").read_text())["breakdown"]["calibration"]["base"]
    )


def test_rows_of_a_file_may_be_as_long_as_the_model_reads_wherever_its_config_says_so(own_run):
    config, rows = own_run.parent / "model" / "config.json", own_run.parent / "valid.jsonl"
    limit = '"max_position_embeddings": 2048'
    config.write_text(config.read_text().replace(limit, f'"text_config": {{{limit}}}'))
    rows.write_text(json.dumps(tiny_row("x" * 600)) + "\n")
    assert evaluate(own_run.parent / "model", data=rows, device="cpu")["rows"] == 1


def test_a_task_that_cannot_be_asked_of_the_rows_is_told_before_any_is(own_run):
    rows = own_run.parent / "test.jsonl"
    rows.write_text('{"prompt": "Whisper", "completion": "no JSON"}\n')
    told = set()
    for source, how in ((own_run, {}), (own_run.parent / "model", {"recipe": own_run.parent / "recipe.yaml"})):
        with pytest.raises(DataError) as caught:
            evaluate(source, **how, device="cpu", progress=spied(told))
        assert f"{rows}:1" in (caught.value.where, *caught.value.message.split(": "))
    assert not [what for what in told if what.startswith(("score", "read held-out"))]


@pytest.mark.parametrize("which", [{}, {"recipe": "recipe.yaml", "data": "test.jsonl"}])
def test_a_model_needs_one_place_to_take_rows_from(tiny_run, which):
    with pytest.raises(UsageError, match="one of a recipe and a data file"):
        evaluate(tiny_run.parent / "model", **which)


def test_a_run_brings_its_own_rows(tiny_run):
    with pytest.raises(UsageError, match="on its own recipe's rows"):
        evaluate(tiny_run, data=tiny_run.parent / "test.jsonl")


def test_rows_that_are_not_there_are_told_before_the_model_is_looked_for(tmp_path):
    with pytest.raises(DataError, match="the held-out rows are not there"):
        evaluate("no-such-model", data=tmp_path / "absent.jsonl")

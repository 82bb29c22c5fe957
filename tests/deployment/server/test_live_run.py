"""What the live view tells of runs in every state: from their files alone, and without changing any."""

import json
import os
import shutil

import pytest
from report_runs import make_run, metrics, sample, step

from mlxtune.deployment.server import live_run, live_samples
from mlxtune.deployment.server.live_run import LiveRun
from mlxtune.errors import RunError
from mlxtune.files import write_text
from mlxtune.iteration.diagnose import diagnose
from mlxtune.runs.control import ask, note_pause
from mlxtune.runs.folder import lock


@pytest.fixture
def training(tmp_path):
    """A run that this process is at work in."""
    run = make_run(tmp_path / "run", finished=False, scored=None, told=None, findings=None, lines=metrics(12))
    manifest = json.loads(run.manifest.read_text()) | {"plan": {"total_steps": 30, "max_minutes": None}}
    run.manifest.write_text(json.dumps(manifest))
    with lock(run):
        yield run


def add(run, *lines):
    with run.metrics.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_that_trains_tells_how_far_it_is(training):
    told = LiveRun(training.path).look()
    assert (told["state"], told["step"], told["total_steps"], told["share"]) == ("training", 12, 30, 12 / 30)
    assert told["seconds"] == 6.0
    assert told["seconds_left"] == pytest.approx(18 * (0.5 + 0.2 / 12))
    assert told["latest"]["loss"] == step(12)["loss"]
    assert told["best"] == {"step": 10, "valid_loss": 0.5}
    assert (told["wish"], told["paused_after"], told["findings"]) == (None, None, [])
    assert told["curves"].keys() == {
        *("loss", "valid_loss", "learning_rate", "grad_norm", "tokens_per_s", "peak_memory_bytes")
    }
    assert len(told["curves"]["loss"]) == 12
    json.dumps(told, allow_nan=False)


def test_curves_come_again_only_when_there_is_something_new(training):
    live = LiveRun(training.path)
    version = live.look()["version"]
    assert "curves" not in live.look(version)
    assert "curves" in live.look("another")
    add(training, step(13))
    told = live.look(version)
    assert len(told["curves"]["loss"]) == 13
    assert told["version"] != version


def test_steps_that_a_resumed_run_makes_again_take_the_place_of_the_old(training):
    live = LiveRun(training.path)
    version = live.look()["version"]
    lines = training.metrics.read_text().splitlines(keepends=True)
    training.metrics.write_text("".join(lines[:5]))
    add(training, *(step(number, loss=9.0, seconds=1.0) for number in range(6, 20)))
    told = live.look(version)
    assert told["step"] == 19
    assert [point[0] for point in told["curves"]["loss"]] == list(range(1, 20))
    assert told["seconds"] == 5 * 0.5 + 14
    assert told["version"] != version


def test_a_wish_is_told_until_it_is_met(training):
    live = LiveRun(training.path)
    live.ask("pause")
    assert (live.look()["state"], live.look()["wish"]) == ("training", "pause")
    note_pause(training, 12)
    told = live.look()
    assert (told["state"], told["wish"], told["paused_after"]) == ("paused", "pause", 12)
    assert told["paused_why"] is None
    note_pause(training, 12, "on battery (plug in)")
    assert live.look()["paused_why"] == "on battery (plug in)"
    live.ask(None)
    assert live.look()["wish"] is None


def test_a_run_that_nobody_works_in_cannot_be_asked(training, tmp_path):
    stopped = shutil.copytree(training.path, tmp_path / "stopped")
    (stopped / ".lock").unlink()
    (stopped / "control.json").write_text('{"wish": "stop"}')
    live = LiveRun(stopped)
    told = live.look()
    assert (told["state"], told["wish"], told["seconds_left"]) == ("stopped", None, None)
    assert told["resume"] == f"mlxtune train --resume {stopped}"
    with pytest.raises(RunError, match="no process works"):
        live.ask("pause")


def test_a_finished_run_shows_scores_findings_and_answers(tmp_path):
    told = LiveRun(make_run(tmp_path / "run").path).look()
    assert (told["state"], told["ended_by"], told["share"], told["seconds_left"]) == ("scored", "max_steps", 1.0, None)
    assert told["headline"] == {"metric": "triage.correct", "base": 0.1, "tuned": 0.8, "verdict": "better"}
    (finding,) = told["findings"]
    assert finding["sentence"] == "the validation loss rose after update 20"
    first = told["samples"][0]
    assert (first["base"], first["tuned"], first["reference"]) == ("no", "yes", "yes")


def test_nothing_in_the_folder_is_touched(tmp_path):
    run = make_run(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    LiveRun(run.path).look()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_answers_are_few_and_cut_and_read_again_when_they_change(tmp_path):
    many = [sample(f"test.jsonl:{number}", "x" * 5000, "y") for number in range(50)]
    run = make_run(tmp_path / "run", samples=many)
    live = LiveRun(run.path)
    told = live.look()
    assert len(told["samples"]) == live_samples.SHOWN
    assert len(told["samples"][0]["base"]) == live_samples.LONGEST_TEXT + 1
    run.samples.write_text(json.dumps(sample("test.jsonl:1", "one", "two")) + "\n")
    (one,) = live.look(told["version"])["samples"]
    assert (one["base"], one["tuned"]) == ("one", "two")


def answer_after(step, text, where="valid.jsonl:1"):
    """A line of valid_samples.jsonl."""
    return {"step": step, "where": where, "prompt": "my lamp?", "reference": "yes", "tuned": text}


def write_valid(run, *lines):
    """As a run that trains does: the file is replaced by another."""
    write_text(run.valid_samples, "".join(json.dumps(line) + "\n" for line in lines))


def test_while_a_run_trains_the_answers_of_its_latest_look_are_told_and_after_which_step(training):
    live = LiveRun(training.path)
    told = live.look()
    assert (told["samples"], told["samples_step"]) == ([], None)
    write_valid(training, answer_after(4, "no"), answer_after(4, "not yet", "valid.jsonl:2"))
    told = live.look(told["version"])
    assert [one["tuned"] for one in told["samples"]] == ["no", "not yet"]
    assert told["samples_step"] == 4
    texts = {"prompt": "my lamp?", "reference": "yes", "tuned": "no"}
    assert told["samples"][0] == {"task": None, "where": "valid.jsonl:1", "base": None, **texts}
    assert "samples" not in live.look(told["version"])
    write_valid(training, answer_after(8, "ah"), answer_after(8, "not now", "valid.jsonl:2"))  # of the very same size
    told = live.look(told["version"])
    assert ([one["tuned"] for one in told["samples"]], told["samples_step"]) == (["ah", "not now"], 8)


def test_answers_of_a_scoring_take_the_place_of_those_before(training):
    write_valid(training, answer_after(8, "yes"))
    live = LiveRun(training.path)
    version = live.look()["version"]
    training.samples.write_text(json.dumps(sample("test.jsonl:1", "one", "two")) + "\n")
    told = live.look(version)
    assert ([one["base"] for one in told["samples"]], told["samples_step"]) == (["one"], None)
    training.samples.unlink()
    assert live.look(told["version"])["samples_step"] == 8


@pytest.mark.parametrize("step", [None, "4", True, 4.5, [4]])
def test_a_step_that_is_none_is_not_told(training, step):
    write_valid(training, answer_after(step, "yes"))
    told = LiveRun(training.path).look()
    assert ([one["tuned"] for one in told["samples"]], told["samples_step"]) == (["yes"], None)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]\n7\n", b'{"base": 7, "tuned": {"a": 1}}\n', b"\xff\xfe\n", b"[" * 100_000]
)
def test_damaged_answers_hide_nothing_else(tmp_path, content):
    run = make_run(tmp_path / "run")
    run.samples.write_bytes(content)
    told = LiveRun(run.path).look()
    assert told["state"] == "scored"
    assert all(one["base"] is None for one in told["samples"])


def test_a_pipe_in_the_place_of_the_answers_is_not_waited_at(tmp_path):
    run = make_run(tmp_path / "run")
    run.samples.unlink()
    os.mkfifo(run.samples)
    live = LiveRun(run.path)
    assert live.look()["samples"] == []
    run.samples.unlink()
    write_valid(run, answer_after(4, "yes"))
    version = live.look()["version"]
    os.mkfifo(run.samples)
    told = live.look(version)
    assert (told["samples"], told["samples_step"]) == ([], None)


def test_a_folder_that_goes_and_comes_back_is_told(training, tmp_path):
    live = LiveRun(training.path)
    live.look()
    away = training.path.rename(tmp_path / "away")
    told = live.look()
    assert (told["state"], told["path"]) == ("gone", str(training.path))
    away.rename(training.path)
    assert len(live.look()["curves"]["loss"]) == 12


def test_a_manifest_that_is_damaged_is_told(training):
    live = LiveRun(training.path)
    training.manifest.write_text("{")
    told = live.look()
    assert told["state"] == "broken"
    assert "run.json" in told["why"]


def test_a_run_of_an_earlier_version_has_no_plan_and_no_end_in_sight(training):
    manifest = json.loads(training.manifest.read_text())
    for plan in (None, [], {"total_steps": "many"}):
        training.manifest.write_text(json.dumps(manifest | {"plan": plan}))
        told = LiveRun(training.path).look()
        assert (told["total_steps"], told["share"], told["seconds_left"]) == (None, None, None)


def test_trouble_shows_while_the_run_still_trains_and_is_not_looked_for_each_second(training, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live_run.time, "monotonic", lambda: now[0])
    live = LiveRun(training.path)
    assert live.look()["findings"] == []
    add(training, *({"step": number, "skipped": "loss", "seconds": 0.5, "rows": ["a"]} for number in (13, 14)))
    told = live.look()
    assert (told["findings"], told["skipped"]) == ([], 2)
    now[0] += live_run.FINDINGS_EVERY_S
    (finding,) = live.look()["findings"]
    assert (finding["severity"], finding["key"]) == ("problem", "training.learning_rate")


def test_a_run_that_still_falls_is_not_told_that_it_ended_too_early(training):
    training.metrics.unlink()
    add(training, *(step(number, loss=3.0 - number / 20) for number in range(1, 50)))
    assert [finding.kind for finding in diagnose(training)] == ["underfitting"]  # as it is told of one that has ended
    assert LiveRun(training.path).look()["findings"] == []


def test_wishes_of_a_page_are_those_of_the_folder(training):
    ask(training, "stop")
    assert LiveRun(training.path).look()["wish"] == "stop"

"""`mlxtune watch` as a person calls it: once, with something wrong, and as a process beside another that trains."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx2
import pytest
from report_runs import make_run, metrics
from tiny import tiny_recipe

from mlxtune.cli import main
from mlxtune.runs.folder import lock

LONG = ["data.test=null", "training.epochs=null", "training.max_steps=1000000", "training.learning_rate=1.0e-3"]


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["watch", *map(str, arguments)])
    return stopped.value.code, *capsys.readouterr()


@pytest.fixture
def start():
    """Start ``mlxtune`` with some arguments; none is left when the test ends."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "mlxtune", "--device", "cpu", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, **pipes, env=os.environ | {"MLXTUNE_BLAS_THREADS": "1"}))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_once_tells_in_a_few_lines(capsys, tmp_path):
    run = make_run(tmp_path / "run", finished=False, scored=None, findings=None, lines=metrics(12))
    manifest = json.loads(run.manifest.read_text()) | {"plan": {"total_steps": 30, "max_minutes": None}}
    run.manifest.write_text(json.dumps(manifest))
    with lock(run):
        code, out, err = said(capsys, run.path, "--once")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "support-triage: training, step 12 of 30, about 9 s left"
    assert "loss 0.846  best valid loss 0.500 (step 10)" in out
    code, out, _ = said(capsys, run.path, "--once")
    assert "stopped, step 12 of 30\n" in out
    assert f"mlxtune train --resume {run.path}" in out


def test_once_with_json_is_one_document(capsys, tmp_path):
    run = make_run(tmp_path / "run")
    code, out, _ = said(capsys, run.path, "--once", "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["state"], told["step"], told["findings"][0]["severity"]) == ("scored", 30, "hint")
    assert "samples" not in told


def test_what_is_no_run_is_told(capsys, tmp_path):
    code, _, err = said(capsys, tmp_path / "nothing")
    assert code == 1
    assert "there is no such run" in err
    code, _, err = said(capsys, tmp_path, "--once")
    assert code == 1
    assert "holds no run" in err


def test_once_and_open_do_not_go_together(capsys, tmp_path):
    code, _, err = said(capsys, make_run(tmp_path / "run").path, "--once", "--open")
    assert code == 2
    assert "--open is for the page" in err


def test_pause_go_on_and_stop_reach_a_training_process(start, tmp_path):
    run_dir = tmp_path / "run"
    training = start("train", tiny_recipe(tmp_path), *LONG, "--run-dir", run_dir)
    while not (run_dir / "metrics.jsonl").exists():
        assert training.poll() is None, training.communicate()
        time.sleep(0.05)
    watching = start("--json", "watch", run_dir)
    address, key = json.loads(watching.stdout.readline())["address"].split("/#")

    with httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:

        def wish(what):
            assert http.post("/live/wish", json={"wish": what}).status_code == 200

        def until(is_so):
            while not is_so(told := http.get("/live/news").json()):
                assert training.poll() is None, training.communicate()
                time.sleep(0.05)
            return told

        wish("pause")
        step = until(lambda told: told["state"] == "paused")["paused_after"]
        assert http.get("/live/news").json()["step"] == step
        assert (run_dir / "checkpoints" / f"step_{step:06d}").is_dir()
        wish("go_on")
        until(lambda told: told["state"] == "training" and told["step"] > step)
        wish("stop")
        out, err = training.communicate(timeout=60)
        assert training.returncode == 130
        assert f"go on with: mlxtune train --resume {run_dir}" in out
        assert f"paused after step {step}" in err
        assert "the pause is over" in err
        assert http.get("/live/news").json()["state"] == "stopped"
        assert http.post("/live/wish", json={"wish": "pause"}).status_code == 409

    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "Traceback" not in err
    assert key not in err

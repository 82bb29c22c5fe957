"""``mlxtune runs``: what it prints, as tables and as JSON, and that showing deletes nothing."""

import io
import json
import subprocess
import sys

import pytest
from run_folders import make_run, scores, write
from tiny import tiny_recipe

from mlxtune.cli import main

TRAIN = """
import sys
from mlxtune.iteration.run import run_recipe
from mlxtune.iteration.watch import Watch
def measured(line):
    print("step", flush=True)
    sys.stdin.readline()
run_recipe(sys.argv[1], device="cpu", run_dir=sys.argv[2], score=False, watch=Watch(measured=measured))
"""


@pytest.fixture
def runs(tmp_path):
    """A folder with a scored run, a stopped one, and a damaged one."""
    folder = tmp_path / "runs"
    first = make_run(folder / "first")
    write(first / "scores.json", scores())
    write(
        first / "findings.json",
        [
            {
                "kind": "k",
                "severity": "problem",
                "sentence": "it is odd",
                "remedy": "mend it",
                "evidence": {},
                "key": "training.epochs",
            }
        ],
    )
    make_run(folder / "second", finished=False, steps=12, started="2026-11-25T10:15:00+00:00")
    (make_run(folder / "third") / "run.json").write_text("{")
    return folder


def test_list_shows_each_run_in_a_line_and_what_is_broken(run, runs):
    code, out, _ = run("runs", "list", runs)
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["second", "stopped", "12"]
    assert lines[2].split()[:3] == ["first", "scored", "30"]
    assert "sort.exact 25.0 -> 75.0 %" in lines[2]
    assert "1 problem" in lines[2]
    assert lines[3].startswith("broken   third: cannot be read: run.json is not JSON")


def test_list_as_json_has_all_of_it(run, runs):
    code, out, _ = run("runs", "list", runs, "--json")
    data = json.loads(out)
    assert code == 0
    assert [(one["name"], one["state"], one["steps"]) for one in data["runs"]] == [
        ("mine", "stopped", 12),
        ("mine", "scored", 30),
    ]
    assert data["runs"][1]["headline"] == {"metric": "sort.exact", "base": 0.25, "tuned": 0.75, "verdict": "better"}
    assert [one["path"] for one in data["broken"]] == [str(runs / "third")]


def test_a_terminal_without_the_signs_gets_ascii(runs, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    with pytest.raises(SystemExit):
        main(["runs", "list", str(runs)])
    shown.flush()
    line = shown.buffer.getvalue().decode("ascii").splitlines()[2]  # pyright: ignore[reportAttributeAccessIssue]
    assert "##**++===--..__" in line
    assert "\\u" not in line


def test_a_name_with_escapes_of_the_terminal_is_spelled_out(run, runs):
    make_run(runs / "odd\x1b[31m[bold]")
    code, out, _ = run("runs", "list", runs)
    assert code == 0
    assert "odd\\x1b[31m[bold]" in out.replace("\n", "")
    assert "\x1b" not in out


def test_show_tells_of_one_run(run, runs):
    code, out, _ = run("runs", "show", runs / "second")
    assert code == 0
    assert "tiny-model" in out
    code, out, _ = run("runs", "show", runs / "second", "--json")
    data = json.loads(out)
    assert (data["state"], data["settings"]["method"]["rank"]) == ("stopped", 8)
    assert data["disk_bytes"]["checkpoints"] > 1000


def test_show_of_a_damaged_run_says_what_is_wrong(run, runs):
    code, out, err = run("runs", "show", runs / "third")
    assert (code, out) == (1, "")
    assert "run.json is not JSON" in err
    assert "hint:" in err


def test_compare_writes_a_page_once_and_again_with_force(run, runs, tmp_path):
    make_run(runs / "fourth")
    page = tmp_path / "page.html"
    arguments = ("runs", "compare", runs / "second", runs / "fourth", "--html", page)
    assert run(*arguments)[0] == 0
    assert page.read_text().startswith("<!doctype html>")
    assert run(*arguments)[0] == 2
    code, out, _ = run(*arguments, "--force", "--json")
    assert code == 0
    assert json.loads(out)["html"] == str(page)


def test_prune_shows_what_would_go_and_deletes_only_with_yes(run, runs):
    code, out, _ = run("runs", "prune", runs, "--keep", 1)
    assert code == 0
    assert "nothing is gone yet" in out
    assert {path.name for path in runs.iterdir()} == {"first", "second", "third"}
    (named,) = json.loads(run("runs", "prune", runs, "--keep", 1, "--json")[1])["candidates"]
    code, out, _ = run("runs", "prune", runs, "--keep", 1, "--yes", "--json")
    data = json.loads(out)
    assert (code, data["done"], data["gone"]) == (0, True, [named["path"]])
    assert {path.name for path in runs.iterdir()} == {"first", "second", "third"} - {named["path"].rpartition("/")[2]}


def test_prune_wants_to_be_told_what_may_go(run, runs):
    code, _, err = run("runs", "prune", runs, "--yes")
    assert code == 2
    assert "nothing says what may go" in err
    assert len(list(runs.iterdir())) == 3


@pytest.mark.parametrize("days", ["1e12", "inf", "nan"])
def test_prune_wants_a_number_of_days(run, runs, days):
    code, _, err = run("runs", "prune", runs, "--older-than", days, "--yes")
    assert code == 2
    assert "is no number of days" in err
    assert len(list(runs.iterdir())) == 3


def test_prune_leaves_a_run_alone_that_is_still_training(run, tmp_path):
    """A real run, in a process of its own, in the middle of its steps; it then trains on to its end."""
    recipe, place = tiny_recipe(tmp_path / "recipe"), tmp_path / "runs" / "busy"
    command = [sys.executable, "-c", TRAIN, str(recipe), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        try:
            assert training.stdin is not None
            assert training.stdout is not None
            assert training.stdout.readline() == "step\n"
            data = json.loads(run("runs", "list", tmp_path / "runs", "--json")[1])
            assert (data["runs"][0]["state"], data["runs"][0]["process"]) == ("training", training.pid)
            for more in ((), ("--checkpoints",)):
                code, out, _ = run("runs", "prune", tmp_path / "runs", "--keep", 0, "--yes", "--json", *more)
                assert (code, json.loads(out)["gone"]) == (0, [])
            training.stdin.close()  # every further line is read as empty: no more waiting
            training.stdout.read()
            assert training.wait() == 0
        finally:
            training.kill()
    assert (place / "adapter" / "adapters.safetensors").exists()
    assert run("runs", "prune", tmp_path / "runs", "--keep", 0, "--yes")[0] == 0
    assert not place.exists()

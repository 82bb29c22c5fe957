"""A run that is killed (SIGKILL) at any point and resumed in another process ends as the undisturbed one, bit for bit.

Points, as child.py names them, are all that a run changes on the disk. Those below are chosen for what could go wrong
there; `make test-slow` takes every point with something else on the disk than at the point before it.
"""

import itertools
import shutil
from pathlib import PurePosixPath

import pytest
from durability.runs import assert_whole, child, contents, finish, kill

POINTS = [
    "opening: rename (new) to (run)",
    "1 lines: half a line",
    "2 lines: rename .valid_samples.jsonl.part to valid_samples.jsonl",
    "5 lines: write .valid_samples.jsonl.part",
    "3 lines: rename checkpoints/.step_000002.part to checkpoints/step_000002",
    "9 lines: write checkpoints/.latest.json.part",
    "6 lines: remove checkpoints/step_000002/trainer_state.json",
    "9 lines: write checkpoints/.step_000006.part/optimizer.safetensors",
    "9 lines: rename .adapter.part to adapter",
    "9 lines: rename .run.json.part to run.json",
    "9 lines: write .scores.json.part",
]


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "work" / "run"


def test_the_undisturbed_run_has_all_that_could_go_wrong(undisturbed):
    run_dir, ended = undisturbed
    assert ended.code == 0, ended.stderr
    lines = contents(run_dir)["metrics.jsonl"]
    assert [(line["step"], "valid_loss" in line) for line in lines] == [
        *((1, False), (2, False), (2, True), (3, False), (4, False), (4, True), (5, False), (6, False), (6, True))
    ]
    assert len({line["tokens"] for line in lines if "tokens" in line}) > 1  # windows of other sizes
    assert max(line["grad_norm"] for line in lines if "grad_norm" in line) > 1.0  # clipping has a say


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_killed_and_resumed_is_the_undisturbed_one(recipe, undisturbed, run_dir, point):
    kill(recipe, run_dir, point)
    assert_whole(run_dir)
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_a_run_that_is_killed_again_and_again_is_the_undisturbed_one(recipe, undisturbed, run_dir):
    """Also while it is being resumed; each time the next process gets in at once."""
    for point in ("4 lines: half a line", "opening: write metrics.jsonl", "8 lines: half a line"):
        kill(recipe, run_dir, point)
        assert_whole(run_dir)
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_nothing_gets_its_name_before_it_is_on_the_medium_and_its_name_follows(undisturbed):
    """A power cut, unlike a kill, loses what was not flushed: no process can show it, the order of the calls can."""
    _, ended = undisturbed
    events = [point.split(": ", 1)[1].split(" #")[0].split(" ") for _, point in ended.points]
    unflushed: set[str] = set()
    for (what, *paths), following in itertools.pairwise(events):
        if what == "write" and paths != [".lock"]:
            unflushed.add(paths[0])
        elif what == "flush":
            unflushed.discard(paths[0])
        elif what == "rename":
            part, _, path = paths
            assert not [name for name in unflushed if PurePosixPath(name).is_relative_to(part)]
            if path.startswith("checkpoints/step_"):
                assert "metrics.jsonl" not in unflushed
            if path != "(run)":  # whose own folder is none of the run's
                parent = str(PurePosixPath(path).parent)
                if following[0] == "rename" and str(PurePosixPath(following[-1]).parent) == parent:
                    continue  # files that belong together: one flush follows the last of them
                assert following == ["flush", "(run)" if parent == "." else parent]


@pytest.mark.slow
def test_killed_at_every_point(recipe, undisturbed, tmp_path):
    _, ended = undisturbed
    points = [
        name
        for (before, _), (digest, name) in itertools.pairwise([("", ""), *ended.points])
        if digest != before or "half a line" in name
    ]
    assert len(points) > 90
    expected = contents(undisturbed[0])
    for point in points:
        run_dir = tmp_path / "work" / "run"
        kill(recipe, run_dir, point)
        assert_whole(run_dir)
        finish(recipe, run_dir)
        assert contents(run_dir) == expected, point
        shutil.rmtree(run_dir.parent)
    print(f"killed at {len(points)} points")  # noqa: T201 - shown by pytest -s


@pytest.mark.slow
def test_killed_at_every_point_of_a_resume(recipe, undisturbed, tmp_path):
    """From a run that was killed with lines to be cut, half-written parts to be cleared and latest.json behind."""
    killed = tmp_path / "killed"
    kill(recipe, killed / "run", "6 lines: write checkpoints/.latest.json.part")
    kill(recipe, killed / "run", "7 lines: half a line")
    (killed / "run" / "checkpoints" / "latest.json").write_text('{"step": 3, "folder": "step_000003"}\n')
    (killed / "run" / ".run.json.0123abcd").write_text("{")
    traced = shutil.copytree(killed, tmp_path / "traced")
    points = [name for _, name in child(recipe, traced / "run", trace=True).points if name.startswith("opening")]
    assert len(points) > 10
    for point in points:
        run_dir = shutil.copytree(killed, tmp_path / "work") / "run"
        kill(recipe, run_dir, point)
        assert_whole(run_dir)
        finish(recipe, run_dir)
        assert contents(run_dir) == contents(undisturbed[0]), point
        shutil.rmtree(run_dir.parent)
    print(f"killed at {len(points)} points of a resume")  # noqa: T201 - shown by pytest -s


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for the CPU with g++")
def test_with_compiled_steps_too(recipe, tmp_path, monkeypatch):
    """Compiled steps have other last bits than uncompiled ones, and the same from one process to the next."""
    (tmp_path / "kernels").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "kernels"))
    whole, struck = tmp_path / "whole" / "run", tmp_path / "work" / "run"
    assert child(recipe, whole, compiled=True).code == 0
    assert list((tmp_path / "kernels").rglob("*.so"))
    for signal, point in (
        ("SIGINT", "0 lines: batch #2"),
        ("SIGKILL", "3 lines: flush checkpoints"),
        ("SIGKILL", "6 lines: half a line"),
        ("SIGINT", "6 lines: batch #2"),
        ("SIGKILL", "7 lines: half a line"),
        ("SIGKILL", "9 lines: rename .run.json.part to run.json"),
    ):
        ended = child(recipe, struck, compiled=True, **{signal: point})
        assert ended.code == {"SIGINT": 130, "SIGKILL": -9}[signal], f"{point}\n{ended.stderr}"
    assert child(recipe, struck, compiled=True).code == 0
    assert contents(struck) == contents(whole)

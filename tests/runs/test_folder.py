"""A run folder is whole or absent, its owner's alone, and one process's at a time."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlxtune.errors import OutputExistsError, RunError
from mlxtune.files import sha256_of
from mlxtune.runs.folder import RunFolder, create_run, is_run_folder, lock, open_run

MANIFEST = {"name": "tiny", "device": {"kind": "cpu"}, "versions": {}, "inputs": {"train_on": "completions"}}


def new_run(run_dir, **changes):
    settings = {"recipe_text": "name: tiny\n", "resolved": {"name": "tiny"}, "manifest": MANIFEST}
    return create_run("tiny", run_dir=run_dir, **(settings | changes))


def test_a_new_run_has_its_recipe_as_written_and_as_resolved_and_its_manifest(tmp_path):
    run = new_run(tmp_path / "deep" / "run")
    assert run.recipe.read_text() == "name: tiny\n"
    assert json.loads(run.resolved.read_text()) == {"name": "tiny"}
    manifest = run.read_manifest()
    assert manifest["inputs"] == {"recipe.resolved.json": sha256_of(run.resolved), "train_on": "completions"}
    assert {path.name for path in run.path.iterdir()} == {
        "checkpoints",
        "logs",
        "recipe.resolved.json",
        "recipe.yaml",
        "run.json",
    }
    assert not run.is_finished


def test_it_is_readable_by_its_owner_alone_also_where_an_open_folder_was(tmp_path):
    (tmp_path / "run").mkdir(mode=0o755)
    run = new_run(tmp_path / "run")
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


def test_a_folder_with_something_in_it_is_no_place_for_a_run(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(OutputExistsError) as caught:
        new_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert "--resume" not in caught.value.remedy


def test_an_existing_run_is_named_as_one_to_resume(tmp_path):
    run = new_run(tmp_path / "run")
    before = run.manifest.read_bytes()
    with pytest.raises(OutputExistsError) as caught:
        new_run(run.path)
    assert f"--resume {run.path}" in caught.value.remedy
    assert run.manifest.read_bytes() == before


def test_what_fails_while_a_run_is_made_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        new_run(tmp_path / "run", manifest=MANIFEST | {"seconds": float("nan")})
    assert list(tmp_path.iterdir()) == []


MAKE = """
import json, os, signal, sys
from pathlib import Path
from mlxtune.runs import folder

def at_the_manifest(path, value):
    if path.name == "run.json":
        print("half made", flush=True)
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdin.readline()
    real(path, value)

real, folder.write_json = folder.write_json, at_the_manifest
manifest = json.loads(sys.argv[3])
folder.create_run("tiny", run_dir=Path(sys.argv[1]), recipe_text="name: tiny", resolved={}, manifest=manifest)
"""


def making(run_dir, what):
    """A process that makes a run and, when it is half made, kills itself or waits for a line on its standard input."""
    command = [sys.executable, "-c", MAKE, str(run_dir), what, json.dumps(MANIFEST)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_a_killed_process_left_half_made_is_cleared_when_the_next_run_is_made_beside_it(tmp_path):
    with making(tmp_path / "run", "kill") as killed:
        killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = hidden(tmp_path)
    assert (left / "recipe.yaml").exists()
    new_run(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_what_another_process_is_just_making_is_not_cleared(tmp_path):
    with making(tmp_path / "run", "wait") as maker:
        try:
            assert maker.stdout is not None
            assert maker.stdout.readline() == "half made\n"
            new_run(tmp_path / "other")
            assert len(hidden(tmp_path)) == 1
            maker.communicate("go on\n", timeout=60)
        finally:
            maker.kill()
    assert maker.returncode == 0
    assert open_run(tmp_path / "run").read_manifest()["name"] == "tiny"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("content", [[], ["config.json"], ["run.json"], ["checkpoints/step_1"], ["checkpoints", "x"]])
def test_hidden_folders_that_are_no_half_made_runs_are_left_alone(tmp_path, content):
    (tmp_path / ".model.0badcafe").mkdir()
    for name in content:
        (tmp_path / ".model.0badcafe" / name).mkdir(parents=True)
    new_run(tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {".model.0badcafe", "run"}


def test_runs_of_one_name_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [new_run(None) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.parent.name == "runs" and run.path.name.startswith("tiny-2") for run in runs)


@pytest.mark.parametrize("path", ["absent", "."])
def test_a_folder_that_holds_no_run_is_not_opened(tmp_path, path):
    assert not is_run_folder(tmp_path / path)
    with pytest.raises(RunError, match=r"no such run|holds no run"):
        open_run(tmp_path / path)


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "{}", '{"name": "x", "inputs": {}}'])
def test_a_damaged_manifest_is_an_error_of_the_run(tmp_path, content):
    run = new_run(tmp_path / "run")
    run.manifest.write_text(content)
    with pytest.raises(RunError) as caught:
        run.read_manifest()
    assert caught.value.where == str(run.manifest)


@pytest.mark.parametrize("content", ["", "[]", '{"base": {}}'])
def test_scores_that_are_not_as_they_were_written_count_as_none(tmp_path, content):
    run = new_run(tmp_path / "run")
    assert run.read_scores() is None
    run.scores.write_text(content)
    assert run.read_scores() is None


def test_a_run_without_an_adapter_says_how_to_finish_it(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(RunError) as caught:
        run.finished_adapter()
    assert caught.value.remedy == f"finish it: mlxtune train --resume {run.path}"


def test_a_lock_keeps_others_out_and_names_the_process_that_has_it(tmp_path):
    run = RunFolder(tmp_path)
    for _ in range(2):  # the second time it is free again
        with lock(run):
            for _ in range(2):  # he who was refused has changed nothing
                with pytest.raises(RunError, match=f"process {os.getpid()}\\)"), lock(run):
                    pass


def read_only(monkeypatch, number):
    """Let the system refuse to open any file that is to be written, as it does where nobody may write."""
    real = Path.open

    def refusing(self, mode="r", *arguments, **settings):
        if mode not in ("r", "rb"):
            raise OSError(number, os.strerror(number), str(self))
        return real(self, mode, *arguments, **settings)

    monkeypatch.setattr(Path, "open", refusing)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_who_writes_nothing_needs_no_lock_where_nobody_may_write(tmp_path, monkeypatch, number):
    read_only(monkeypatch, number)
    entered = []
    with lock(RunFolder(tmp_path), to_write=False):
        entered.append(1)
    assert entered
    with pytest.raises(OSError, match=os.strerror(number)) as caught, lock(RunFolder(tmp_path)):
        pass
    assert caught.value.filename == str(tmp_path / ".lock")


def test_who_writes_nothing_is_kept_out_too_where_he_could_write(tmp_path):
    run = RunFolder(tmp_path)
    with lock(run), pytest.raises(RunError, match="another process"), lock(run, to_write=False):
        pass


def test_another_refusal_is_told_to_him_too(tmp_path, monkeypatch):
    read_only(monkeypatch, errno.EMFILE)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)), lock(RunFolder(tmp_path), to_write=False):
        pass

"""A disk that is full, or that may not be written to: one sentence, where, the way out; and the run goes on later."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from durability.runs import SETTINGS, assert_whole, contents, finish

from mlxtune.cli import main
from mlxtune.cli.failure import report_failure
from mlxtune.training.checkpoint import newest_checkpoint


def told(*arguments: object) -> dict[str, str]:
    """What ``mlxtune train ARGUMENTS`` says when it fails."""
    result = CliRunner().invoke(main, ["train", *map(str, arguments), "--json", "--quiet", "--device", "cpu"])
    assert (result.exit_code, result.stdout) == (1, "")
    return json.loads(result.stderr)["error"]


class FullFile:
    """A file on a full disk: half of what is written fits."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """Has no room left from the nth time on that a file with a certain name is opened to be written."""

    def __init__(self, name: str, times: int):
        self.name, self.times, self.is_full = name, times, False

    def opens(self, path: Path, file):
        if self.name in path.name:
            self.times -= 1
            self.is_full = self.is_full or self.times == 0
        return FullFile(file) if self.is_full else file


@pytest.fixture
def disk_full_at(monkeypatch):
    """A function: let the disk be full from then on; what it returns frees it."""

    def fill(name: str, times: int):
        disk, real = Disk(name, times), Path.open

        def path_open(self: Path, mode: str = "r", *arguments, **settings):
            file = real(self, mode, *arguments, **settings)
            return file if mode in ("r", "rb") else disk.opens(self, file)

        monkeypatch.setattr(Path, "open", path_open)
        return monkeypatch.undo

    return fill


@pytest.mark.parametrize(
    ("name", "times", "saved"),
    [
        ("metrics.jsonl", 2, None),
        ("metrics.jsonl", 8, 4),
        ("optimizer.safetensors", 2, 2),
        ("SHA256SUMS", 3, 3),
        ("latest.json", 4, 6),
        ("adapter_model.safetensors", 1, 6),
        ("run.json", 2, 6),
        ("attempt_1.log", 20, 4),
    ],
)
def test_a_run_that_fills_the_disk_says_so_and_goes_on_when_there_is_room(
    recipe, undisturbed, tmp_path, disk_full_at, name, times, saved
):
    run_dir = tmp_path / "run"
    there_is_room = disk_full_at(name, times)
    error = told(recipe, *SETTINGS, "--run-dir", run_dir)
    there_is_room()
    assert error["type"] == "OSError"
    assert error["message"] == "No space left on device"
    assert Path(error["where"]).is_relative_to(run_dir)
    assert name in Path(error["where"]).name
    assert "make room" in error["remedy"]
    assert "--resume" in error["remedy"]
    assert_whole(run_dir)
    newest = newest_checkpoint(run_dir / "checkpoints")
    assert (newest and newest.name) == (saved and f"step_{saved:06d}")
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_a_full_disk_does_not_hide_what_ended_the_run(tmp_path):
    from mlxtune.runs.log import attempt_log

    (tmp_path / "logs").mkdir()

    def fail():
        with attempt_log(tmp_path / "logs"):
            (tmp_path / "logs").rmdir()  # nothing can be written there any more
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "choose a place that you can write to"),
        (errno.EACCES, "choose a place that you can write to"),
    ],
)
def test_what_the_system_refuses_is_told_in_a_sentence_with_its_place_and_the_way_out(capsys, number, remedy):
    assert report_failure(OSError(number, os.strerror(number), "runs/a/run.json"), as_json=False, debug=False) == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == f"error: {os.strerror(number)}"
    assert second == "  at: runs/a/run.json"
    assert third.startswith("  hint: ")
    assert remedy in third


def test_a_run_folder_that_cannot_be_written_to_is_left_as_it_is(recipe, undisturbed, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere; the next test has a disk that is read-only for all")
    run_dir = shutil.copytree(undisturbed[0], tmp_path / "run")
    shutil.rmtree(run_dir / "adapter")  # so that there is something to do
    paths = [run_dir, *(path for path in run_dir.rglob("*") if path.is_dir())]
    for path in paths:
        path.chmod(0o500)
    error = told("--resume", run_dir)
    for path in paths:
        path.chmod(0o700)
    assert error["type"] == "PermissionError"
    assert Path(error["where"]).is_relative_to(run_dir)
    assert "right to write" in error["remedy"]
    assert not list(run_dir.rglob(".*.*"))
    finish(recipe, run_dir)
    assert contents(run_dir) == contents(undisturbed[0])


def test_on_a_disk_of_its_own_that_is_too_small_and_then_read_only(recipe, undisturbed, tmp_path):
    """The same with the system's own refusals: a small disk in memory, which no other process sees."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    try:
        subprocess.run([*namespace, *mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this system lets a user mount no disk of their own: {error}")
    script = Path(__file__).with_name("small_disk.py")
    command = [*namespace, sys.executable, str(script), str(recipe), str(undisturbed[0]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["full", "full", "full", "read-only", "read-only", "the same"]

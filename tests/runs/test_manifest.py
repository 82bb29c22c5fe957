"""What made a run: found, written down, and compared when the run goes on."""

import platform
import shutil
import subprocess

import pytest

from mlxtune.errors import RunError
from mlxtune.runs.manifest import git_commit, refuse_changes, versions


def test_what_is_the_same_may_go_on_and_nothing_else(tmp_path):
    same = {"a": {"b": [1]}}
    assert refuse_changes(same, {"a": {"b": [1]}}, where=tmp_path) is None
    with pytest.raises(RunError):
        refuse_changes(same, {"a": {"b": [1, 2]}}, where=tmp_path)


def test_every_difference_is_listed_with_its_key_and_both_values(tmp_path):
    before = {"training": {"epochs": 2, "batch_size": 4}, "data": {"test": None}, "gone": 1}
    now = {"training": {"epochs": 3, "batch_size": 4}, "data": {"test": "x.jsonl"}}
    with pytest.raises(RunError) as caught:
        refuse_changes(before, now, where=tmp_path)
    assert caught.value.message == (
        "what this run was started with has changed: data.test was nothing, is x.jsonl; gone was 1, is nothing; "
        "training.epochs was 2, is 3"
    )
    assert caught.value.where == str(tmp_path)


def test_of_a_hash_enough_is_shown_to_compare(tmp_path):
    with pytest.raises(RunError, match=r"train was sha256 aaaaaaaaaaaa, is sha256 bbbbbbbbbbbb$"):
        refuse_changes({"train": "a" * 64}, {"train": "b" * 64}, where=tmp_path)


def test_versions_are_those_of_this_process():
    found = versions()
    assert found["python"] == platform.python_version()
    assert {"mlxtune", "mlx", "mlx-lm", "numpy"} <= found.keys()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_told_with_a_mark_where_files_differ_from_it(tmp_path):
    assert git_commit(tmp_path) is None

    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    git("add", ".")
    git("commit", "-m", "x")
    commit = git("rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    (tmp_path / "recipe.yaml").write_text("name: y\n")
    assert git_commit(tmp_path) == f"{commit}+changes"

"""A run folder is whole or absent, its owner's alone, and one process's at a time."""

import json
import os
import stat

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

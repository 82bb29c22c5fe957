"""A run is folded into a folder of its own, and only onto the base that it was trained on."""

import mlx_lm
import pytest

from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.errors import OutputExistsError, RunError, UsageError
from mlxtune.runs.prompting import read_prompting


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_result_is_a_model_folder_that_knows_how_it_is_asked(tiny_run, tmp_path):
    report = fuse_run(str(tiny_run), str(tmp_path / "out"), device="cpu", dtype="float16")
    assert (report.out, report.dtype) == (tmp_path / "out", "float16")
    mlx_lm.load(str(tmp_path / "out"))
    assert read_prompting(tmp_path / "out") == read_prompting(tiny_run / "adapter")
    assert read_prompting(tmp_path / "out").system == "Secretly."


def test_a_taken_place_is_told_before_the_model_is_looked_for(own_run, tmp_path):
    (own_run.parent / "model" / "config.json").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(OutputExistsError):
        fuse_run(own_run, tmp_path / "out", device="cpu")


def test_force_replaces_what_is_there_but_never_the_run_or_its_base(own_run):
    project = own_run.parent
    (project / "out").mkdir()
    (project / "out" / "mine").touch()
    fuse_run(own_run, project / "out", device="cpu", force=True)
    assert "mine" not in names(project / "out")
    before = names(own_run), names(project / "model")
    for place in (own_run, project / "model", project):
        with pytest.raises(UsageError, match="is there, and is not replaced"):
            fuse_run(own_run, place, device="cpu", force=True)
    assert (names(own_run), names(project / "model")) == before


def test_a_base_that_changed_is_refused_and_nothing_is_left(own_run):
    config = own_run.parent / "model" / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    before = names(own_run.parent)
    with pytest.raises(RunError, match="its hash differs"):
        fuse_run(own_run, own_run.parent / "out", device="cpu")
    assert names(own_run.parent) == before


def test_a_run_that_is_not_finished_is_refused(own_run):
    (own_run / "adapter").rename(own_run / "away")
    with pytest.raises(RunError, match="no adapter yet") as caught:
        fuse_run(own_run, own_run.parent / "out", device="cpu")
    assert "--resume" in caught.value.remedy


def test_a_run_that_was_moved_and_whose_rows_are_gone_is_still_fused(own_run):
    for rows in own_run.parent.glob("*.jsonl"):
        rows.unlink()
    moved = own_run.rename(own_run.parent / "moved")
    assert fuse_run(moved, own_run.parent / "out", device="cpu").out.is_dir()

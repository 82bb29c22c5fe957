"""`mlxtune data build`: what it prints, and how it fails."""

import json

import pytest
from tiny import tiny_model_folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("# Leave\n\n" + "Everybody has leave in summer and in winter. " * 3)
    (tmp_path / "documents" / "b.bin").write_bytes(b"\0")
    return tmp_path / "documents"


def test_build_says_what_was_read_and_what_was_not(run, tmp_path, folder):
    model = tiny_model_folder(tmp_path / "model")
    out = tmp_path / "out.jsonl"
    arguments = ["data", "build", folder, "--out", out, "--task", "continue", "--model", model]
    code, said, _ = run(*arguments, "--json")
    report = json.loads(said)
    assert code == 0
    assert (report["rows"], report["passages"]) == (1, 1)
    assert [one["file"] for one in report["read"]] == ["a.md"]
    assert report["refused"][0]["reason"] == ".bin files are not read"
    assert out.stat().st_mode & 0o777 == 0o600
    code, said, err = run(*arguments)
    assert (code, said) == (2, "")
    assert "--force" in err
    code, said, _ = run(*arguments, "--force")
    assert code == 0
    assert "1 row of 1 passage (" in said
    assert "b.bin: .bin files are not read" in said


def test_rows_built_into_a_synced_folder_draw_a_warning(run, tmp_path, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "OneDrive").mkdir()
    model = tiny_model_folder(tmp_path / "model")
    out = tmp_path / "OneDrive" / "rows.jsonl"
    code, _, err = run("data", "build", folder, "--out", out, "--task", "continue", "--model", model)
    assert code == 0
    assert "OneDrive" in err
    assert "choose a place outside of it" in err


def test_a_model_drafts_and_what_it_babbles_is_dropped_with_the_reason(run, tmp_path, folder):
    model = tiny_model_folder(tmp_path / "model")
    out = tmp_path / "out.jsonl"
    code, said, err = run(
        "data", "build", folder, "--out", out, "--task", "summarize", "--model", model, "--device", "cpu"
    )
    assert code == 0
    assert "not kept: 1 because " in said
    assert "nothing was kept" in err
    assert out.read_text() == ""


def test_build_without_a_readable_file_fails(run, tmp_path, folder):
    (folder / "a.md").unlink()
    model = tiny_model_folder(tmp_path / "model")
    code, said, err = run("data", "build", folder, "--out", tmp_path / "o", "--task", "continue", "--model", model)
    assert (code, said) == (1, "")
    assert "none of the 1 files could be read: b.bin: .bin files are not read" in err

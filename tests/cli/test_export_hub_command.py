"""`mlxtune export hub`: shows what would go, and uploads only when told to."""

import json

import pytest
from hub_server import TOKEN, asked_hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with asked_hub(tmp_path / "hf", monkeypatch) as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def test_without_upload_it_shows_files_card_and_who_may_read(run, tiny_run, hub):
    code, out, err = run("export", "hub", tiny_run, "org/tiny")

    assert code == 0
    assert "would upload adapter to org/tiny (private)" in out
    assert "adapter_model.safetensors" in out
    assert "  library_name: peft" in out
    assert "nothing was uploaded: add --upload" in err
    assert hub.requests == []


def test_with_upload_it_says_where_it_is(run, tiny_run, hub):
    code, out, err = run("export", "hub", tiny_run, "org/tiny", "--upload", "--base-license", "mit", "--json")

    assert code == 0, err
    report = json.loads(out)
    assert report["uploaded"]["page"] == "https://huggingface.co/org/tiny"
    assert (report["private"], report["licence"], report["found"]) == (True, "mit", {})
    assert {file["name"] for file in report["files"]} <= hub.files_of("org/tiny").keys()
    assert TOKEN not in out + err


def test_findings_refuse_it_with_the_way_out(run, tiny_run, tmp_path):
    terms = tmp_path / "terms.txt"
    terms.write_text("whisper\n")

    code, _, err = run("export", "hub", tiny_run, "org/tiny", "--terms", terms)
    accepted, _, _ = run("export", "hub", tiny_run, "org/tiny", "--terms", terms, "--accept-findings")

    assert (code, accepted) == (1, 0)
    assert "mlxtune data scan" in err
    assert "--accept-findings" in err


def test_there_is_one_way_to_upload(run, tiny_run, hub):
    code, _, err = run("export", "hub", tiny_run, "org/tiny", "--yes", "--base-license", "mit")

    assert code == 2
    assert "--yes" in err
    assert hub.requests == []

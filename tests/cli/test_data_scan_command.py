"""`mlxtune data scan`: exit code 3 where something is found, and nothing of it in full."""

import json

import pytest
from tiny import tiny_recipe

EMAIL = "jane.doe@example.org"


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": f"I am {EMAIL}", "completion": "Hello Quillfeather"}) + "\n")
    return file


def test_a_file_with_private_data_ends_with_3_and_shows_places_and_masks(run, rows):
    code, out, err = run("data", "scan", rows)

    assert code == 3
    assert f"{rows}:1 prompt: e-mail address j…@e….org" in out
    assert "regions US, GB" in out
    assert EMAIL not in out + err


def test_as_json_each_finding_has_file_and_line(run, rows, tmp_path):
    terms = tmp_path / "terms.txt"
    terms.write_text("quillfeather\n")

    code, out, _ = run("data", "scan", rows, "--terms", terms, "--regions", "gb,de", "--json")

    report = json.loads(out)
    assert (code, report["found"], report["counts"]) == (3, 2, {"email": 1, "term": 1})
    assert report["regions"] == ["GB", "DE"]
    assert [(one["kind"], one["file"], one["line"], one["field"]) for one in report["findings"]] == [
        ("email", str(rows), 1, "prompt"),
        ("term", str(rows), 1, "completion"),
    ]


def test_a_recipe_without_private_data_ends_with_0(run, tmp_path):
    code, out, _ = run("data", "scan", tiny_recipe(tmp_path), "--json")

    report = json.loads(out)
    assert (code, report["found"], report["rows"]) == (0, 0, 22)
    assert [file.rpartition("/")[2] for file in report["files"]] == ["train.jsonl", "valid.jsonl", "test.jsonl"]


def test_a_text_file_is_scanned_line_by_line(run, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text(f"Hello.\n\n{EMAIL}\n")

    code, out, _ = run("data", "scan", file)

    assert code == 3
    assert f"{file}:3: e-mail address" in out


def test_redact_writes_a_copy_and_never_over_a_file(run, rows, tmp_path):
    copy = tmp_path / "copy.jsonl"

    code, out, _ = run("data", "scan", rows, "--redact", copy)
    again, _, err = run("data", "scan", rows, "--redact", copy)

    assert (code, again) == (3, 2)
    assert json.loads(copy.read_text())["prompt"] == "I am [EMAIL_1]"
    assert f"wrote {copy}" in out
    assert "--force" in err


@pytest.mark.parametrize("regions", ["", ",", " , "])
def test_an_empty_list_of_regions_is_a_usage_error(run, rows, regions):
    code, _, err = run("data", "scan", rows, "--regions", regions)

    assert code == 2
    assert "empty" in err


def test_an_unknown_region_is_a_usage_error(run, rows):
    code, _, err = run("data", "scan", rows, "--regions", "US,XX")

    assert code == 2
    assert "'XX'" in err

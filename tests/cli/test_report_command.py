"""``mlxtune report``: a page for any run, what it says on standard output, and a browser only where asked for."""

import json

import pytest
from report_runs import make_run

from mlxtune.iteration import reporting


def test_the_verdict_and_the_place_are_printed(run, tmp_path):
    made = make_run(tmp_path / "run")
    code, out, _ = run("report", made.path)
    assert code == 0
    assert out.startswith("Better: on 60 unseen test rows")
    assert f"report: {made.report}" in out
    assert made.report.is_file()


def test_as_json_it_is_one_line(run, tmp_path):
    made = make_run(tmp_path / "run")
    code, out, _ = run("report", made.path, "--json")
    assert code == 0
    assert out.count("\n") == 1
    told = json.loads(out)
    assert told["path"] == str(made.report)
    assert told["tone"] == "better"
    assert told["verdict"].startswith("Better: ")


@pytest.mark.parametrize("started", [True, False])
def test_a_browser_is_asked_for_the_file_only_where_wanted(run, tmp_path, monkeypatch, started):
    asked = []
    monkeypatch.setattr("webbrowser.open", lambda url: asked.append(url) or started)
    made = make_run(tmp_path / "run")
    run("report", made.path)
    assert asked == []
    code, _, err = run("report", made.path, "--open")
    assert asked == [made.report.as_uri()]
    assert code == 0
    assert ("no browser could be started" in err) != started


def test_a_folder_without_a_run_is_an_error_with_a_remedy(run, tmp_path):
    code, out, err = run("report", tmp_path)
    assert (code, out) == (1, "")
    assert "this folder holds no run" in err
    assert "hint:" in err


@pytest.mark.parametrize("name", ["run.json", "recipe.resolved.json"])
@pytest.mark.parametrize("content", ["", "{", "3", "[" * 100_000])
def test_a_run_whose_first_files_are_damaged_is_an_error_with_a_remedy(run, tmp_path, name, content):
    made = make_run(tmp_path / "run")
    (made.path / name).write_text(content)
    code, out, err = run("report", made.path)
    assert (code, out) == (1, "")
    assert name in err
    assert "hint: put the file back" in err


def test_a_run_whose_rows_have_gone_is_told_why_the_data_are_missing(run, tmp_path):
    made = make_run(tmp_path / "run", told=None)
    code, out, _ = run("report", made.path)
    assert code == 0
    assert "Better: " in out
    assert "what is told of the data" in made.report.read_text(encoding="utf-8")


def test_a_real_run_has_its_report_when_training_ends(own_run):
    page = (own_run / "report.html").read_text(encoding="utf-8")
    assert "Not measured: the run was trained, and not scored" in page
    assert 'id="data"' in page


def test_a_run_that_lost_its_facts_gets_them_back(own_run):
    (own_run / "data.json").unlink()
    reporting.report_run(own_run)
    assert json.loads((own_run / "data.json").read_text())["splits"]["train"]["rows"] == 12
    assert 'id="data"' in (own_run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["data.json", "findings.json"])
def test_what_is_damaged_is_made_again_as_the_page_says(own_run, name):
    made = own_run / name
    before = made.read_text()
    made.write_text(before[: len(before) // 2])
    reporting.report_run(own_run)
    assert made.read_text() == before
    assert f"{name} is damaged" not in (own_run / "report.html").read_text(encoding="utf-8")


def test_a_scored_run_says_its_verdict_in_its_report(tiny_run):
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert 'class="verdict-box' in page
    assert 'id="scores"' in page
    assert 'id="generations"' in page

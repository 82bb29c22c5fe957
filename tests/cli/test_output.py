"""Where a command's words go: data to standard output, everything else to standard error."""

import json
import math
from pathlib import Path

import pytest

from mlxtune.cli.output import Output
from mlxtune.cli.progress import Bars, Lines, ProgressView, amount, choose_view


def test_data_are_text_for_people_and_one_line_of_json_for_programs(capsysbinary: pytest.CaptureFixture[bytes]):
    data = {"path": Path("/a/b"), "text": "zwei\nZeilen, übrigens"}
    Output().show(data, "two lines")
    Output(json=True).show(data, "two lines")
    plain, line, rest = capsysbinary.readouterr().out.split(b"\n")
    assert (plain, rest) == (b"two lines", b"")
    assert json.loads(line.decode("utf-8")) == {"path": "/a/b", "text": "zwei\nZeilen, übrigens"}


def test_a_path_that_is_not_unicode_is_still_json(capsysbinary: pytest.CaptureFixture[bytes]):
    Output(json=True).show({"path": Path("/a/\udcff")}, "")
    assert json.loads(capsysbinary.readouterr().out) == {"path": "/a/\udcff"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_does_not_know_is_refused(value: float):
    with pytest.raises(ValueError, match="JSON"):
        Output(json=True).show({"loss": value}, "")


def test_what_has_no_json_form_is_refused():
    with pytest.raises(TypeError, match="Output has no JSON form"):
        Output(json=True).show({"x": Output()}, "")


def test_strings_in_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]):
    from rich.table import Table

    table = Table("name")
    table.add_row("[red]a[/nonsense] :smile:")
    Output().show({}, table)
    assert "[red]a[/nonsense] :smile:" in capsys.readouterr().out


def test_a_note_goes_to_standard_error_unless_quiet(capsys: pytest.CaptureFixture[str]):
    Output().note("told")
    Output(quiet=True).note("untold")
    assert capsys.readouterr() == ("", "told\n")


# --- progress


@pytest.mark.parametrize(
    ("done", "total", "unit", "said"),
    [
        (3, 10, "rows", "3/10 rows"),
        (3, 10, "", "3/10"),
        (3, 0, "steps", "3 steps"),
        (12_540_000, 98_362_432, "bytes", "12.5/98.4 MB"),
    ],
)
def test_an_amount_has_its_unit(done: int, total: int, unit: str, said: str):
    assert amount(done, total, unit) == said


def told_by_lines(moves: list[tuple[float, str, int, int]]) -> list[str]:
    lines: list[str] = []
    clock = iter([at for at, *_ in moves])
    view = Lines(lines.append, clock=lambda: next(clock))
    for _, what, done, total in moves:
        view(what, done, total)
    return lines


def test_plain_lines_come_at_the_start_at_the_end_and_every_five_seconds():
    moves = [(0.5 * step, "train: steps", step, 30) for step in range(31)]
    assert told_by_lines(moves) == [
        "train: 0/30 steps",
        "train: 10/30 steps, about 10 s left",
        "train: 20/30 steps, about 5 s left",
        "train: 30/30 steps",
    ]


def test_work_inside_other_work_has_its_own_lines():
    moves = [
        (0.0, "train: steps", 1, 3),
        (1.0, "validate: rows", 5, 10),
        (2.0, "validate: rows", 10, 10),
        (3.0, "train: steps", 2, 3),
        (3.5, "validate: rows", 5, 10),
        (4.0, "train: steps", 3, 3),
    ]
    told = [
        "train: 1/3 steps",
        "validate: 5/10 rows",
        "validate: 10/10 rows",
        "validate: 5/10 rows",
        "train: 3/3 steps",
    ]
    assert told_by_lines(moves) == told


def test_a_detail_stands_on_the_line_that_comes_next():
    lines: list[str] = []
    view = Lines(lines.append, clock=lambda: 0.0)
    view.detail("loss 2.00")
    view("train: steps", 1, 2)
    view("validate: rows", 1, 1)
    assert lines == ["train: 1/2 steps  loss 2.00", "validate: 1/1 rows"]


def test_the_outermost_bar_stays_as_a_line(capsys: pytest.CaptureFixture[str]):
    view = Bars()
    view("train: steps", 1, 2)
    view("validate: rows", 10, 10)
    view.detail("loss 2.00")
    view("train: steps", 2, 2)
    view.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert "validate" not in err
    assert err.split()[0] == "train"
    assert "2/2 steps" in err
    assert "loss 2.00" in err


def test_showing_data_closes_the_bar_first(capsys: pytest.CaptureFixture[str]):
    output = Output(view=Bars())
    output.progress("wait: rows", 1, 0)
    output.show({}, "data")
    out, err = capsys.readouterr()
    assert out == "data\n"
    assert "wait" in err


def test_the_view_fits_where_standard_error_goes(monkeypatch: pytest.MonkeyPatch):
    assert type(choose_view(quiet=True)) is ProgressView
    assert type(choose_view(quiet=False)) is Lines
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert type(choose_view(quiet=False)) is Bars
    monkeypatch.setenv("TERM", "dumb")
    assert type(choose_view(quiet=False)) is Lines

"""Splitting a file: which rows stay together, what shares they get, and what moves none of them."""

import csv
import gzip
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxtune.data.split import SPLITS, split_file, split_of
from mlxtune.data.split_keys import GOLDEN
from mlxtune.errors import DataError, UsageError

WRITES = settings(max_examples=15, deadline=None)  # each example writes and flushes several files


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def places(folder):
    """Of each row, as it was written, its split."""
    found = {}
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            assert found.setdefault(line, split) == split
    return found


def split_rows(tmp_path_factory, rows, **options):
    """Of each row the split that it came to, and the lines that fill what would be empty."""
    folder = tmp_path_factory.mktemp("split")
    report = split_file(write(folder / "all.jsonl", rows), folder / "out", **options)
    place = places(folder / "out")
    assert sum(report.rows.values()) == len(rows)
    assert place.keys() == {json.dumps(row) for row in rows}
    return [place[json.dumps(row)] for row in rows], report


def family(number, members):
    """Rows that are near-duplicates of each other and of no other family's."""
    words = [f"f{number}w{n}" for n in range(30)]
    return [{"text": " ".join([*words[:29], f"m{member}"])} for member in members]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=30, max_size=80, unique=True), st.data())
@WRITES
def test_near_duplicates_never_part_and_rows_added_later_never_move_them(tmp_path_factory, members, data):
    rows = [row for number, member in members for row in family(number, [member])]
    old = data.draw(st.integers(20, len(rows)))
    before, first = split_rows(tmp_path_factory, rows[:old])
    after, second = split_rows(tmp_path_factory, rows)
    assert len({(number, split) for (number, _), split in zip(members, after, strict=True)}) == len(
        {number for number, _ in members}
    )
    for line, (place, now) in enumerate(zip(before, after, strict=False), start=1):
        filling = {members[moved - 1][0] for moved in (*first.moved, *second.moved)}
        assert place == now or members[line - 1][0] in filling


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=40, max_size=90), st.data())
@WRITES
def test_groups_never_straddle_and_never_move(tmp_path_factory, keys, data):
    rows = [{"text": f"row {n}", "patient": f"p{key}" if as_text else key} for n, (key, as_text) in enumerate(keys)]
    old = data.draw(st.integers(30, len(rows)))
    try:
        before, first = split_rows(tmp_path_factory, rows[:old], group_by="patient")
    except DataError:  # fewer than three groups
        return
    after, second = split_rows(tmp_path_factory, rows, group_by="patient")
    of_group = {}
    for row, split in zip(rows, after, strict=True):
        assert of_group.setdefault(row["patient"], split) == split
    filling = {rows[line - 1]["patient"] for line in (*first.moved, *second.moved)}
    for row, place, now in zip(rows, before, after, strict=False):
        assert place == now or row["patient"] in filling


@given(st.lists(st.sampled_from("abc"), min_size=60, max_size=120), st.data())
@WRITES
def test_rows_added_at_the_end_move_none_of_a_stratified_split(tmp_path_factory, classes, data):
    rows = [{"text": f"row {n}", "label": label} for n, label in enumerate(classes)]
    old = data.draw(st.integers(50, len(rows)))
    before, first = split_rows(tmp_path_factory, rows[:old], stratify="label")
    after, second = split_rows(tmp_path_factory, rows, stratify="label")
    for line, (place, now) in enumerate(zip(before, after, strict=False), start=1):
        assert place == now or line in (*first.moved, *second.moved)


def test_each_class_has_its_shares_to_within_two_rows(tmp_path_factory):
    labels = np.random.default_rng(3).choice(["rare", "some", "most", 7], 3000, p=[0.02, 0.08, 0.8, 0.1])
    rows = [{"text": f"row {n}", "label": label} for n, label in enumerate(labels.tolist())]
    place, _ = split_rows(tmp_path_factory, rows, stratify="label", test=0.15, valid=0.05)
    totals = Counter(labels.tolist())
    for split, share in (("test", 0.15), ("valid", 0.05)):
        counts = Counter(label for label, where in zip(labels.tolist(), place, strict=True) if where == split)
        for label, total in totals.items():
            assert abs(counts[label] - share * total) <= 2


def test_multiples_of_the_golden_ratio_fill_every_share_evenly():
    points = (0.3 + GOLDEN * np.arange(20_000)) % 1
    for share in (0.01, 0.1, 0.37):
        counts = np.cumsum(points < share)
        assert np.abs(counts - share * np.arange(1, len(points) + 1)).max() < 3


def test_shares_are_those_asked_for_on_average():
    keys = [f"{n * 2**64 // 1000:016x}" for n in range(1000)]
    counts = Counter(split_of(key, test=0.25, valid=0.05) for key in keys)
    assert counts == {"test": 250, "valid": 50, "train": 700}


def test_a_split_without_a_share_is_not_written(tmp_path):
    path = write(tmp_path / "all.jsonl", [{"text": f"row {n}"} for n in range(40)])
    report = split_file(path, tmp_path / "out", valid=0)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["test.jsonl", "train.jsonl"]
    assert sum(report.rows.values()) == 40
    assert "valid" not in report.rows


def test_a_new_row_that_links_two_old_ones_brings_the_younger_to_the_older(tmp_path_factory):
    words = [f"w{n}" for n in range(40)]
    older, younger, link = words[:32], words[8:], words[4:36]
    rows = [{"text": " ".join(part)} for part in (older, younger)] + [{"text": f"row {n}"} for n in range(40)]
    before, _ = split_rows(tmp_path_factory, rows)
    after, report = split_rows(tmp_path_factory, [*rows, {"text": " ".join(link)}])
    assert report.alike == 2
    assert report.largest == 3
    assert after[1] == after[-1] == after[0] == before[0]
    assert after[2:-1] == before[2:]


def test_rows_that_ask_the_same_stay_together_whatever_they_answer(tmp_path_factory):
    rows = [{"prompt": f"question number {n % 30}", "completion": f"{n}"} for n in range(90)]
    place, report = split_rows(tmp_path_factory, rows)
    assert all(place[n] == place[n % 30] for n in range(90))
    assert (report.duplicates, report.alike, report.largest) == (0, 60, 3)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"test": 0.5, "valid": 0.5}, "nothing is left to train on"),
        ({"test": 0.0, "valid": 0.0}, "nothing is held out"),
        ({"test": -0.1}, "a share of -0.1 is none"),
        ({"valid": float("nan")}, "a share of nan is none"),
        ({"valid": 1.0}, "a share of 1 is none"),
        ({"similarity": 0.3}, "a similarity of 0.3 is out of range"),
        ({"similarity": float("nan")}, "out of range"),
    ],
)
def test_shares_that_make_no_split_are_refused_before_the_file_is_read(tmp_path, shares, said):
    with pytest.raises(UsageError, match=said):
        split_file(tmp_path / "not there.jsonl", tmp_path / "out", **shares)


@pytest.mark.parametrize("option", ["group_by", "stratify"])
def test_a_column_that_no_row_has_is_refused_with_those_that_there_are(tmp_path, option):
    path = write(tmp_path / "all.jsonl", [{"text": f"row {n}", "who": "x"} for n in range(9)])
    with pytest.raises(DataError, match="no row has a column 'patient'") as caught:
        split_file(path, **{option: "patient"})
    assert "text, who" in caught.value.remedy


@pytest.mark.parametrize("value", [[1], {"a": 1}, 0.5, None, ""])
@pytest.mark.parametrize("option", ["group_by", "stratify"])
def test_a_group_or_class_that_is_no_plain_value_is_refused_with_its_line(tmp_path, option, value):
    rows = [{"text": f"row {n}", "who": "x"} for n in range(9)]
    path = write(tmp_path / "all.jsonl", [*rows, {"text": "last", "who": value}])
    with pytest.raises(DataError, match="the column 'who' is ") as caught:
        split_file(path, **{option: "who"})
    assert caught.value.where == f"{path}:10"
    assert not (tmp_path / "all").exists()


def test_a_row_without_the_column_is_refused_with_its_line(tmp_path):
    path = write(tmp_path / "all.jsonl", [{"text": f"row {n}", "who": "x"} for n in range(9)] + [{"text": "last"}])
    with pytest.raises(DataError, match="the column 'who' is missing"):
        split_file(path, group_by="who")


def test_more_values_than_classes_can_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mlxtune.data.split_keys.CLASSES", 5)
    path = write(tmp_path / "all.jsonl", [{"text": f"row {n}", "id": n} for n in range(9)])
    with pytest.raises(DataError, match="the column 'id' has more than 5 values"):
        split_file(path, stratify="id")


def test_one_group_alone_cannot_be_split(tmp_path):
    path = write(tmp_path / "all.jsonl", [{"text": f"row {n}", "who": "x"} for n in range(9)])
    with pytest.raises(DataError, match="the file has 9 different rows that hang together in 1 set"):
        split_file(path, group_by="who")


def test_groups_of_one_are_split_as_rows_are(tmp_path_factory):
    rows = [{"text": f"row {n}", "id": n} for n in range(200)]
    _, report = split_rows(tmp_path_factory, rows, group_by="id")
    assert report.largest == 1
    assert 5 <= report.rows["test"] <= 40


def test_rows_of_other_kinds_of_files_become_lines_of_json(tmp_path):
    rows = [{"text": f'row {n}, "so"', "who": "x"} for n in range(20)]
    table = tmp_path / "all.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "who"])
        writer.writeheader()
        writer.writerows(rows)
    split_file(table)
    assert places(tmp_path / "all").keys() == {json.dumps(row) for row in rows}


def test_packed_lines_are_copied_as_they_were_before_they_were_packed(tmp_path):
    lines = [b'{ "text":"row %d" }\r\n' % n for n in range(20)]
    path = tmp_path / "all.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(lines)))
    split_file(path)
    written = [(tmp_path / "all" / f"{split}.jsonl").read_bytes() for split in SPLITS]
    assert sorted(b"".join(written).splitlines(keepends=True)) == sorted(lines)


def test_a_file_that_changes_while_it_is_split_leaves_nothing_behind(tmp_path):
    path = write(tmp_path / "all.jsonl", [{"text": f"row {n}"} for n in range(50)])

    def grow(what, done, total):
        if what.startswith("write"):
            write(path, [{"text": f"row {n}"} for n in range(60)])

    with pytest.raises(DataError, match="the file was changed while it was split"):
        split_file(path, tmp_path / "out", progress=grow)
    assert not (tmp_path / "out").exists()

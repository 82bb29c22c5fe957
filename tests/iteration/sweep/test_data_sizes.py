"""Parts of the training rows: nested, the same whatever order the file is in, and trained for as long as the whole."""

import json

import pytest

from mlxtune.data.source import find_source
from mlxtune.errors import UsageError
from mlxtune.iteration.sweep.data_sizes import (
    overrides_of_part,
    part_folder,
    points_of,
    read_shares,
    write_parts,
)
from mlxtune.recipe.load import load_recipe

SHARES = (0.1, 0.3, 1.0)


def rows_of(folder, name="0.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def source_of(*paths):
    return find_source([(str(path), 1.0) for path in paths], "train")


def write_rows(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "train.jsonl", [f"row {number}" for number in range(50)])


def test_shares_are_percentages_smallest_first():
    assert read_shares("100%, 10%,30 %") == (0.1, 0.3, 1.0)
    assert read_shares("12.5%,50%") == (0.125, 0.5)


@pytest.mark.parametrize("text", ["10%", "10%,10%", "0%,50%", "50%,120%", "10,30", "10%;30%", "", "10%,x%", "-10%,50%"])
def test_what_makes_no_curve_is_refused(text):
    with pytest.raises(UsageError) as refused:
        read_shares(text)
    assert refused.value.where == "--data-sizes"


def test_every_part_of_a_seed_is_in_the_next_larger_one(rows, tmp_path):
    assert write_parts(tmp_path / "parts", source_of(rows), (0.1, 0.3, 0.6, 1.0), [7, 8]) == 50
    for seed in (7, 8):
        parts = [rows_of(part_folder(tmp_path / "parts", share, seed)) for share in (0.1, 0.3, 0.6)]
        assert [len(part) for part in parts] == [5, 15, 30]
        texts = [{row["text"] for row in part} for part in parts]
        assert texts[0] < texts[1] < texts[2]


def test_another_seed_takes_other_rows(rows, tmp_path):
    write_parts(tmp_path / "parts", source_of(rows), SHARES, [7, 8])
    seven, eight = (rows_of(part_folder(tmp_path / "parts", 0.3, seed)) for seed in (7, 8))
    assert seven != eight


def test_which_rows_a_part_has_goes_by_what_they_say_and_not_by_where_they_stand(rows, tmp_path):
    write_parts(tmp_path / "parts", source_of(rows), SHARES, [7, 8])
    texts = [f"row {number}" for number in range(50)]
    texts.sort(key=lambda text: text[::-1])
    write_parts(tmp_path / "others", source_of(write_rows(tmp_path / "mixed.jsonl", texts)), SHARES, [7, 8])
    for share in (0.1, 0.3):
        ours, theirs = (
            {row["text"] for row in rows_of(part_folder(tmp_path / name, share, 7))} for name in ("parts", "others")
        )
        assert ours == theirs


def test_rows_of_any_kind_of_file_come_out_as_lines_of_json_with_all_their_columns(tmp_path):
    table = tmp_path / "train.csv"
    table.write_text("prompt,completion,note\n" + "".join(f'"a, {n}",b {n},c\n' for n in range(10)))
    write_parts(tmp_path / "parts", source_of(table), (0.5, 1.0), [1, 2])
    part = rows_of(part_folder(tmp_path / "parts", 0.5, 1))
    assert len(part) == 5
    assert all(set(row) == {"prompt", "completion", "note"} and row["prompt"].startswith("a, ") for row in part)


def test_of_several_files_a_share_is_one_of_all_rows(tmp_path):
    few = write_rows(tmp_path / "few.jsonl", [f"few {number}" for number in range(4)])
    many = write_rows(tmp_path / "many.jsonl", [f"many {number}" for number in range(36)])
    write_parts(tmp_path / "parts", source_of(few, many), (0.25, 1.0), [1, 2])
    folder = part_folder(tmp_path / "parts", 0.25, 1)
    assert sum(len(rows_of(folder, path.name)) for path in folder.iterdir()) == 10


def test_shares_that_are_the_same_rows_are_refused(tmp_path):
    rows = write_rows(tmp_path / "train.jsonl", ["a", "b", "c"])
    with pytest.raises(UsageError, match="of 3 rows these shares are 1, 1, 3 rows"):
        write_parts(tmp_path / "parts", source_of(rows), (0.1, 0.3, 1.0), [1, 2])


def test_trials_go_seed_by_seed_so_that_a_whole_curve_is_there_first():
    assert points_of((0.1, 1.0), (7, 8)) == (
        {"share": 0.1, "seed": 7},
        {"share": 1.0, "seed": 7},
        {"share": 0.1, "seed": 8},
        {"share": 1.0, "seed": 8},
    )


def test_each_part_is_trained_for_as_many_updates_as_the_whole_and_looked_at_ten_times(tmp_path):
    rows = write_rows(tmp_path / "train.jsonl", [f"row {number}" for number in range(20)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: a\nmodel: {source: ./model}\ndata: {train: {path: train.jsonl, weight: 2}, valid: train.jsonl}\n"
    )
    write_parts(tmp_path / "parts", source_of(rows), (0.5, 1.0), [7, 8])
    base = load_recipe(recipe).recipe
    part = load_recipe(recipe, overrides_of_part(tmp_path / "parts", base, {"share": 0.5, "seed": 8}, steps=60)).recipe
    assert (part.seed, part.training.epochs, part.training.max_steps, part.evaluation.every_steps) == (8, None, 60, 6)
    assert [(file.path, file.weight) for file in part.data.train] == [(str(tmp_path / "parts/seed_8/50/0.jsonl"), 2)]
    whole = load_recipe(recipe, overrides_of_part(tmp_path / "parts", base, {"share": 1.0, "seed": 8}, steps=60)).recipe
    assert whole.data == base.data

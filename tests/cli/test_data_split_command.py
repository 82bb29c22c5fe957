"""`mlxtune data split`: what it prints, and how it fails."""

import json

import pytest


def test_split_says_where_the_rows_went(run, tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n % 60}"}) + "\n" for n in range(61)))
    code, out, _ = run("data", "split", path, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["folder"] == str(tmp_path / "all")
    assert sum(said["rows"].values()) == 61
    assert said["duplicates"] == 1
    code, out, err = run("data", "split", path)
    assert (code, out) == (2, "")
    assert "--force" in err
    code, out, _ = run("data", "split", path, "--force")
    assert code == 0
    assert f"{said['rows']['train']} train" in out
    assert "1 row repeats another" in out


def test_split_tells_which_lines_were_moved_to_fill_a_split(run, tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(3)))
    code, out, err = run("data", "split", path, "--out", tmp_path / "out")
    assert code == 0
    assert "1 train, 1 valid, 1 test" in out
    assert "moved so that no split is empty" in err


def test_split_keeps_groups_together_and_says_how_large_they_are(run, tmp_path):
    path = tmp_path / "all.jsonl"
    rows = [{"text": f"row {n}", "who": "big" if n < 30 else f"w{n}"} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run("data", "split", path, "--group-by", "who", "--valid", "0", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["largest"] == 30
    assert said["rows"].keys() == {"train", "test"}
    assert "30 of 60 rows hang together" in err
    parts = [path.read_text() for path in (tmp_path / "all").iterdir()]
    assert sorted('"big"' in part for part in parts) == [False, True]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--test", "0.6", "--valid", "0.5"], 2, "nothing is left to train on"),
        (["--test", "nan"], 2, "a share of nan is none"),
        (["--group-by", "nobody"], 1, "no row has a column 'nobody'"),
        (["--stratify", "list"], 1, "the column 'list' is a list"),
        (["--group-by", "list"], 1, "hint: give each row a text or a whole number there, or choose another column"),
    ],
)
def test_split_refuses_what_cannot_be_done_and_writes_nothing(run, tmp_path, arguments, code, said):
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}", "list": [n]}) + "\n" for n in range(30)))
    ended, out, err = run("data", "split", path, *arguments)
    assert (ended, out) == (code, "")
    assert said in err
    assert "hint:" in err
    assert not (tmp_path / "all").exists()


def test_split_reads_rows_as_a_recipe_says(run, tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"sentence": f"row {n}", "tag": "x"}) + "\n" for n in range(30)))
    code, _, err = run("data", "split", path)
    assert code == 1
    assert "data.columns" in err
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: a\nmodel: {source: m}\ndata: {train: all.jsonl, columns: {prompt: sentence, completion: tag}}\n"
    )
    code, out, _ = run("data", "split", path, "--recipe", recipe, "--json")
    assert code == 0
    assert sum(json.loads(out)["rows"].values()) == 30


def test_split_says_what_the_rows_were_taken_for_and_names_a_few_of_many_moved_lines(run, tmp_path):
    path = tmp_path / "all.jsonl"
    rows = [{"text": f"row {n}", "who": str(n % 3)} for n in range(90)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run("data", "split", path, "--group-by", "who", "--similarity", "1")
    assert code == 0
    assert "read as text: 90 of the first 90 rows have 'text'; not used: who" in out
    moved = next(line for line in err.splitlines() if "moved so that" in line)
    assert "more;" in moved
    assert moved.count(",") == 19


@pytest.mark.parametrize(("name", "said"), [(".", "this is a folder"), ("hf://datasets/a/b", "a data set of the hub")])
def test_split_takes_one_file(run, name, said):
    code, out, err = run("data", "split", name)
    assert (code, out) == (2, "")
    assert f"{said}, and one file is split" in err

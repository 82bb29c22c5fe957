"""`mlxtune data validate`: every problem with its place and remedy, on a terminal and as JSON; exit codes."""

import json

import pytest
from tiny import tiny_model_folder

LONG = "my card was swallowed by the machine outside the station this morning and nobody answers the telephone"


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe of a tiny model with the rows given for each split."""
    tiny_model_folder(tmp_path / "model")

    def write(source="./model", **splits):
        for split, lines in splits.items():
            rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
            (tmp_path / f"{split}.jsonl").write_text("".join(row + "\n" for row in rows))
        files = ", ".join(f"{split}: {split}.jsonl" for split in splits)
        path = tmp_path / "recipe.yaml"
        path.write_text(f"name: tiny\nmodel: {{source: {source}}}\ndata: {{{files}}}\n")
        return path

    return write


def test_good_data_end_with_zero_and_a_line_that_says_what_was_checked(run, recipe):
    path = recipe(train=[{"text": "one"}, {"text": "two"}], valid=[{"text": "three"}])
    code, out, _ = run("data", "validate", path)
    assert code == 0
    assert "no problems in 3 rows (2 train, 1 valid)" in out
    assert "checked: rows, their form, repeats in and across splits; with" in out
    assert "not checked" not in out


def test_problems_are_grouped_and_counted_and_end_with_three(run, recipe, tmp_path):
    bad = [{"prompt": f"question {n}", "completion": 3} for n in range(7)]
    path = recipe(
        train=[*bad, {"prompt": LONG, "completion": "a"}], test=[{"prompt": f"{LONG} now", "completion": "a"}]
    )
    code, out, _ = run("data", "validate", path)
    assert code == 3
    assert f"  {tmp_path / 'train.jsonl'}:5: " in out
    assert f"  {tmp_path / 'train.jsonl'}:6: " not in out
    assert "  and 2 more" in out
    assert "error: test leak, 1" in out
    assert f"is nearly {tmp_path / 'train.jsonl'}:8 (train)" in out
    assert "hint: take one of the two out" in out
    assert "8 problems in 9 rows (8 train, 1 test)" in out


def test_json_has_every_finding_with_file_line_kind_message_and_remedy(run, recipe, tmp_path):
    path = recipe(train=["{", *({"text": f"row {n}"} for n in range(30)), {"text": 5}, {"text": "row 3"}])
    code, out, _ = run("data", "validate", path, "--json")
    said = json.loads(out)
    assert code == 3
    assert (said["errors"], said["warnings"]) == (2, 1)
    assert said["rows"] == {"train": 33}
    assert said["not_checked"] == []
    places = {(one["severity"], one["line"]) for one in said["findings"]}
    assert places == {("error", 1), ("error", 32), ("warning", 33)}
    for one in said["findings"]:
        assert one["file"] == str(tmp_path / "train.jsonl")
        assert one["message"]
        assert one["remedy"]
    assert sum(group["count"] for group in said["groups"]) == 3


def test_warnings_alone_end_with_zero(run, recipe):
    code, out, _ = run("data", "validate", recipe(train=[{"text": "one"}, {"text": "one"}]))
    assert code == 0
    assert "warning: train duplicate, 1" in out
    assert "no problems, 1 warning in 2 rows" in out


def test_a_key_of_the_recipe_can_be_changed(run, recipe):
    path = recipe(train=[{"text": "x" * 600}, {"text": "y"}])
    assert run("data", "validate", path)[0] == 3
    code, out, _ = run("data", "validate", path, "data.max_seq_length=1000")
    assert code == 0
    code, out, _ = run("data", "validate", path, "data.overflow=drop")
    assert code == 0
    assert "warning: train dropped, 1" in out


def test_without_its_model_what_needs_it_is_not_checked_and_that_is_said(run, recipe, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")
    path = recipe(source="nobody/nothing", train=[{"text": "x" * 9999}], test=[{"text": "x" * 9999}])
    code, out, _ = run("data", "validate", path)
    assert code == 3
    assert "error: test leak, 1" in out
    assert "too long" not in out
    assert "not checked: what the chat template makes of them" in out


def test_a_bare_file_is_checked_too(run, recipe, tmp_path):
    recipe(train=["[1]"])
    code, out, _ = run("data", "validate", tmp_path / "train.jsonl", f"model.source={tmp_path / 'model'}")
    assert code == 3
    assert "train.jsonl:" in out


def test_a_file_that_is_not_there_ends_with_its_name(run, tmp_path, recipe):
    path = recipe(train=[{"text": "a"}])
    (tmp_path / "train.jsonl").unlink()
    code, out, err = run("data", "validate", path)
    assert (code, out) == (2, "")
    assert "train.jsonl" in err


@pytest.mark.parametrize("command", ["validate", "stats", "inspect", "split"])
def test_a_bare_file_that_is_not_there_is_no_problem_of_its_rows(run, tmp_path, command):
    code, out, err = run("data", command, tmp_path / "rows.jsonl")
    assert (code, out) == (1, "")
    assert "there is no such file" in err
    assert f"at: {tmp_path / 'rows.jsonl'}" in err


def test_it_says_what_the_rows_were_taken_for_and_what_is_not_used(run, recipe, tmp_path):
    path = recipe(train=[{"text": "one", "category": "a"}], valid=[{"prompt": "two", "completion": "b"}])
    code, out, _ = run("data", "validate", path)
    assert code == 0
    assert "train is read as text: the row has 'text'; not used: category\n" in out
    assert "valid is read as prompt_completion: the row has 'prompt' and 'completion'\n" in out
    said = json.loads(run("data", "validate", path, "--json")[1])
    assert said["files"][0] == {
        "split": "train",
        "file": str(tmp_path / "train.jsonl"),
        "form": "text",
        "form_chosen_because": "text: the row has 'text'; not used: category",
    }


PAIR = {"prompt": "Is it in?", "chosen": "yes", "rejected": "no"}
ANSWER = {"prompt": "Is it in?", "completion": "yes"}


@pytest.mark.parametrize(
    ("objective", "row", "said"),
    [
        ("sft", PAIR, "objective: sft learns one answer"),
        ("dpo", ANSWER, "the row has one answer alone"),
        ("dpo", PAIR, None),
        ("sft", ANSWER, None),
    ],
)
def test_rows_that_the_objective_does_not_learn_from_are_problems(run, recipe, objective, row, said):
    path = recipe(train=[row])
    code, out, _ = run("data", "validate", path, f"objective={{type: {objective}}}")
    assert code == (0 if said is None else 3)
    assert "error: train objective, 1" in out or said is None
    assert (said or "no problems in 1 row") in out


def test_a_file_of_pairs_has_no_objective_to_refuse_them(run, recipe, tmp_path):
    recipe(train=[PAIR])
    code, out, _ = run("data", "validate", tmp_path / "train.jsonl", "model.source=" + str(tmp_path / "model"))
    assert code == 0, out

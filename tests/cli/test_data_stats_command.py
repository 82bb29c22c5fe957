"""`mlxtune data stats`: its numbers are those of training, and it says what to look at."""

import gzip
import json

import pytest
from tiny import tiny_recipe, tiny_row

from mlxtune.cli.recipe_or_file import LONGEST, holds_rows, recipe_of
from mlxtune.data.store.token_cache import LEAST_ROWS
from mlxtune.errors import RecipeError
from mlxtune.iteration.opening import splits_of
from mlxtune.iteration.run import run_recipe
from mlxtune.models.catalogue import CATALOGUE
from mlxtune.runs.metrics import read_metrics


@pytest.fixture
def stats(run):
    """What the command says as JSON."""

    def command(*arguments):
        code, out, err = run("data", "stats", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return command


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_epoch_of_training_writes_the_tokens_and_targets_that_are_foretold(stats, tmp_path):
    recipe = tiny_recipe(tmp_path)
    settings = ["training.epochs=1", "training.batch_size=5"]
    told = stats(recipe, *settings)
    result = run_recipe(recipe, settings, device="cpu", run_dir=tmp_path / "run", score=False)
    lines = [line for line in read_metrics(result.run_dir / "metrics.jsonl") if "loss" in line]
    for name in ("tokens", "target_tokens"):
        trained = sum(line[name] for line in lines)
        assert (told[name], told["splits"]["train"][name], told["epoch"][name]) == (trained, trained, trained)
    assert told["epoch"]["batches"] == len(lines) == 3


def test_how_the_files_are_read_is_told(stats, recipe, tmp_path):
    text = "".join(json.dumps(tiny_row(str(number))) + "\n" for number in range(3))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode("utf-16")))
    places = f"[{tmp_path / 'rows.jsonl.gz'}, {recipe.parent / 'train.jsonl'}]"
    told = stats(recipe, f"data.train={places}")
    assert told["splits"]["train"]["kinds_of_files"] == ["jsonl, gzip, UTF-16-LE", "jsonl, UTF-8"]
    assert told["splits"]["valid"]["kinds_of_files"] == ["jsonl, UTF-8"]


def test_every_split_has_its_counts_and_the_training_rows_are_told_first(stats, recipe):
    told = stats(recipe)
    assert {split: counts["rows"] for split, counts in told["splits"].items()} == {"train": 12, "valid": 4, "test": 6}
    assert (told["rows"], told["format"]) == (12, "chat")
    train = told["splits"]["train"]
    assert train["file"] == str(recipe.parent / "train.jsonl")
    assert train["target_share"] == train["target_tokens"] / train["tokens"]
    assert sum(part["rows"] for part in train["histogram"]) == 12
    assert told["overlaps"] == []


def test_a_recipe_without_valid_and_test_has_one_split(stats, recipe):
    assert list(stats(recipe, "data.valid=null", "data.test=null")["splits"]) == ["train"]


def test_a_file_of_rows_is_told_of_with_the_tokenizer_that_is_named(stats, recipe):
    told = stats(recipe.parent / "train.jsonl", f"model.source={recipe.parent / 'model'}")
    wanted = stats(recipe)
    assert list(told["splits"]) == ["train"]
    for name in ("rows", "format", "tokens", "target_tokens"):
        assert told[name] == wanted[name]


def test_a_file_of_rows_stands_for_a_recipe_of_defaults_with_the_default_model(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"text": "once"}])
    made = recipe_of(str(path), ["data.train_on=everything"])
    assert [str(file.path) for file in made.data.train] == [str(path)]
    assert (made.data.train_on, splits_of(made.data)) == ("everything", ["train"])
    assert made.model.source == CATALOGUE[0].name
    with pytest.raises(RecipeError, match="train_om is not a key") as caught:
        recipe_of(str(path), ["data.train_om=everything"])
    assert caught.value.where == "override data.train_om=everything"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.jsonl", "name: x", True),
        ("rows.ndjson", "", True),
        ("recipe.yaml", '{"text": "a"}\n', False),
        ("rows.json", '\n{"text": "a"}\n{"text": "b"}\n', True),
        ("rows.json", '[{"text": "a"}]', True),
        ("recipe.json", '{"name": "x", "model": {"source": "m"}}', False),
        ("recipe.json", '{\n"name": "x"\n}', False),
        ("recipe", "# a recipe\nname: x\n", False),
        ("empty", "", False),
        ("missing.jsonl", None, True),
        ("support-triage", None, False),
    ],
)
def test_rows_are_told_from_recipes_by_name_or_first_line(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert holds_rows(tmp_path / name) is expected


def test_repeats_and_rows_of_another_split_are_counted_and_named(run, stats, recipe, tmp_path):
    train = write(tmp_path / "train.jsonl", [tiny_row(text) for text in "abca"])
    test = write(tmp_path / "test.jsonl", [tiny_row(text) for text in "xb"])
    settings = [f"data.train={train}", f"data.test={test}", "data.valid=null"]
    told = stats(recipe, *settings)
    assert told["splits"]["train"]["repeats"] == {
        "rows": 1,
        "findings": [{"file": str(train), "line": 4, "message": f"says what {train}:1 says"}],
    }
    assert told["overlaps"] == [
        {
            "split": "test",
            "with": "train",
            "rows": 1,
            "findings": [{"file": str(test), "line": 2, "message": f"says what {train}:2 says"}],
        }
    ]
    _, out, _ = run("data", "stats", recipe, *settings)
    assert "train: 1 row is the same as an earlier one" in out
    assert "test: 1 row is in train too" in out


def test_rows_that_training_would_refuse_or_drop_are_counted_and_a_few_named(run, stats, recipe, tmp_path):
    train = write(tmp_path / "train.jsonl", [tiny_row("a" * length) for length in (1, *[200] * 30)])
    settings = [f"data.train={train}", "data.valid=null", "data.test=null", "data.max_seq_length=300"]
    told = stats(recipe, *settings)["splits"]["train"]
    assert (told["rows"], told["too_long"]["rows"], len(told["too_long"]["findings"])) == (31, 30, 20)
    assert told["too_long"]["findings"][0]["line"] == 2
    told = stats(recipe, *settings, "data.overflow=drop")["splits"]["train"]
    assert (told["rows_read"], told["rows"], told["dropped"]["rows"], told["too_long"]["rows"]) == (31, 1, 30, 0)
    _, out, _ = run("data", "stats", recipe, *settings)
    assert "train: 30 rows are longer than data.max_seq_length, 300 tokens: training refuses them" in out
    assert f"{train}:6: " in out
    assert f"{train}:7: " not in out
    assert "and 25 more" in out


def answering(question, answer):
    return {"prompt": question, "completion": answer}


def test_classes_scripts_languages_and_odd_characters_are_counted_and_the_first_rows_named(
    run, stats, recipe, tmp_path
):
    english = "what is the price of this and who is it for"
    rows = [answering(f"{english} {number}", "price") for number in range(6)]
    rows += [answering("Сколько это стоит?", "price"), answering("Wo ist das und wie ist es mit der Karte?", "place")]
    rows += [answering(f"where\u00a0is it\u200b? {misread('é')} <br>", "place") for _ in range(2)]
    train = write(tmp_path / "train.jsonl", rows)
    settings = [f"data.train={train}", "data.valid=null", "data.test=null"]
    told = stats(recipe, *settings)["splits"]["train"]
    assert told["classes"] == {
        "count": 2,
        "rows": 10,
        "most_share": 0.7,
        "counts": [{"class": "price", "rows": 7}, {"class": "place", "rows": 3}],
    }
    assert [(script["name"], script["rows"]) for script in told["scripts"]] == [("Latin", 9), ("Cyrillic", 1)]
    assert told["scripts"][1]["findings"] == [{"file": str(train), "line": 7, "message": "written in Cyrillic"}]
    assert [(language["name"], language["rows"]) for language in told["languages"]] == [("English", 6), ("German", 1)]
    assert 0.9 < told["letter_shares"]["Latin"] < 1
    assert sum(told["letter_shares"].values()) == pytest.approx(1)
    odd = {oddity["kind"]: oddity for oddity in told["oddities"]}
    assert {kind: (found["rows"], found["count"]) for kind, found in odd.items()} == dict.fromkeys(
        ("invisible", "mojibake", "html", "unusual_white_space"), (2, 2)
    )
    assert odd["unusual_white_space"]["findings"][0] == {
        "file": str(train),
        "line": 9,
        "message": "U+00A0 NO-BREAK SPACE",
    }
    _, out, _ = run("data", "stats", recipe, *settings)
    for line in (
        "train: 2 classes; the most frequent has 70.0% of the rows",
        "  price 7, place 3",
        "train: 1 row seems to be in Cyrillic, most are in Latin",
        "train: 1 row seems to be in German, most are in English",
        "train: 2 rows have invisible characters (2)",
        f"  {train}:9: U+200B ZERO WIDTH SPACE",
        f"  {train}:9: '<br>'",
    ):
        assert line in out
    assert "\u200b" not in out


def misread(text):
    return text.encode().decode("latin-1")


def test_rows_that_are_like_another_are_counted_within_and_across_splits(run, stats, recipe, tmp_path):
    question = "why was I charged twice for the same coffee at the station this morning"
    others = ["how do I close it", "where is the nearest branch", "which of the cards can be used abroad"]
    train = write(
        tmp_path / "train.jsonl", [answering(text, "a") for text in (question, *others, f"{question} please")]
    )
    test = write(tmp_path / "test.jsonl", [answering(f"so {question}", "a"), answering(others[0], "b")])
    settings = [f"data.train={train}", f"data.test={test}", "data.valid=null"]
    told = stats(recipe, *settings)
    like = f"is 92% like what {train}:1 says"  # 12 of 13 groups of three words
    assert told["splits"]["train"]["near_repeats"] == {
        "rows": 1,
        "findings": [{"file": str(train), "line": 5, "message": like}],
    }
    across = told["near_overlaps"]
    assert [(found["split"], found["with"], found["rows"]) for found in across] == [("test", "train", 2)]
    assert across[0]["findings"][1] == {"file": str(test), "line": 2, "message": f"asks what {train}:2 asks"}
    _, out, _ = run("data", "stats", recipe, *settings)
    assert "train: 1 row is like an earlier one" in out
    assert "test: 2 rows are like one in train, so not all of test is unseen" in out


def test_of_many_classes_the_most_frequent_and_the_rarest_are_named(run, recipe, tmp_path):
    rows = [answering(f"{number} of {name}", name) for number in range(1, 13) for name in "abcdefghijkl"[number - 1 :]]
    train = write(tmp_path / "train.jsonl", rows)
    _, out, _ = run("data", "stats", recipe, f"data.train={train}", "data.valid=null", "data.test=null")
    assert f"train: 12 classes; the most frequent has {12 / 78:.1%} of the rows" in out
    assert "  most    l 12, k 11, j 10, i 9, h 8" in out
    assert "  fewest  e 5, d 4, c 3, b 2, a 1" in out


def test_a_person_reads_counts_a_histogram_and_an_epoch(run, stats, recipe):
    told = stats(recipe)
    code, out, _ = run("data", "stats", recipe)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["rows", "12", "4", "6"] in lines
    assert ["target", "tokens", *(f"{split['target_tokens']:,}" for split in told["splits"].values())] in lines
    assert any(line and set(line[-2]) == {"#"} for line in lines if len(line) > 3)
    epoch = told["epoch"]
    assert f"{told['tokens']:,} tokens, {told['target_tokens']:,} targets, 3 batches" in out
    assert f"saved     {epoch['prefix_saved_share']:.0%} of the tokens" in out
    assert f"{epoch['padding_share']:.1%} of what is read is padding" in out


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(None, 1, "there is no such file"), ("", 1, "no rows"), ('{"a": 1}\n', 1, "fit no known form")],
)
def test_a_file_that_cannot_be_counted_is_refused_with_its_place(run, recipe, tmp_path, content, code, said):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    found, out, err = run("data", "stats", path, f"model.source={recipe.parent / 'model'}")
    assert (found, out) == (code, "")
    assert said in err
    assert str(path) in err


def test_what_is_kept_of_rows_is_listed_and_cleared(run, stats, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    train = write(tmp_path / "train.jsonl", [tiny_row(str(number)) for number in range(LEAST_ROWS)])
    settings = [f"data.train={train}", "data.valid=null", "data.test=null"]
    first = stats(recipe, *settings)
    assert [entry["kind"] for entry in json.loads(run("cache", "list", "--json")[1])["entries"]] == ["tokens"]
    assert stats(recipe, *settings) == first
    assert json.loads(run("cache", "clear", "tokens", "--json")[1])["entries"] == 1
    assert json.loads(run("cache", "list", "--json")[1])["entries"] == []


def test_stats_say_what_the_rows_were_taken_for_and_what_is_not_used(run, recipe, tmp_path):
    train = write(tmp_path / "rows.jsonl", [{"text": "one", "category": "a"}])
    code, out, _ = run("data", "stats", recipe, f"data.train={train}", "data.valid=null", "data.test=null")
    assert code == 0
    assert "train is read as text: the row has 'text'; not used: category" in out


def test_a_list_of_rows_in_one_line_is_told_by_its_beginning(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "' + "a" * LONGEST + '"}]')
    assert holds_rows(path) is True

"""Which files are a split's: by the card, by names; what could be meant in several ways is refused with candidates."""

import pytest

from mlxtune.data.reading.layout import files_of_split
from mlxtune.errors import DataError


def found(names, split="train", card="", config=""):
    return files_of_split(names, split, card, where="data", config=config)


def refused(names, split="train", card="", config="") -> DataError:
    with pytest.raises(DataError) as caught:
        found(names, split, card, config)
    assert caught.value.remedy
    return caught.value


HUB = ["README.md", ".gitattributes", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
HUB += ["data/validation-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (HUB, "train", HUB[2:4]),
        (HUB, "valid", HUB[4:5]),
        (HUB, "test", HUB[5:]),
        (["train.jsonl", "dev.jsonl", "test.jsonl", "schema.json"], "valid", ["dev.jsonl"]),
        (["my_train_set.csv", "eval.csv"], "train", ["my_train_set.csv"]),
        (["train/b.txt", "train/a.txt", "test/a.txt", "notes.md"], "train", ["train/a.txt", "train/b.txt"]),
        (["b.jsonl", "a.jsonl", "README.md", "LICENSE.txt"], "train", ["a.jsonl", "b.jsonl"]),
        (["b.jsonl", "a.jsonl"], "test", ["a.jsonl", "b.jsonl"]),
        (["a.md", "sub/b.txt", "README.md"], "train", ["a.md", "sub/b.txt"]),
        (["README.md"], "train", ["README.md"]),
        (["constraint.jsonl", "latest.jsonl"], "train", ["constraint.jsonl", "latest.jsonl"]),  # no words of splits
        (
            ["train/data-00000-of-00001.arrow", "train/state.json", "train/dataset_info.json", "dataset_dict.json"],
            "train",
            ["train/data-00000-of-00001.arrow"],
        ),
    ],
)
def test_files_are_told_by_their_names(names, split, expected):
    assert found(names, split) == expected


@pytest.mark.parametrize(
    ("names", "split", "said"),
    [
        (["train.jsonl", "valid.jsonl"], "test", "files of train and valid, and none of test"),
        ([], "train", "no files of rows"),
        (["a.pdf", ".hidden.jsonl"], "train", "no files of rows"),
        (["a.jsonl", "b.csv"], "train", "files of several kinds: a.jsonl, b.csv"),
        (["train_test.jsonl"], "train", "the words of several splits: train, test"),
        (["train.jsonl", "train.jsonl.gz"], "train", "'train.jsonl' is there twice"),
        (HUB[:3], "train", "of 2 parts of 'data/train-of-00002.parquet' there are 1"),
        (["en/train/0.parquet", "fr/train/0.parquet"], "train", "several configurations: en, fr"),
    ],
)
def test_what_is_not_there_or_could_be_meant_in_two_ways_is_refused(names, split, said):
    assert said in refused(names, split).message


def card(configs):
    return f"---\nlicense: mit\nconfigs:\n{configs}\n---\n# Data\n"


ONE = card(
    "- config_name: default\n  data_files:\n  - split: train\n    path: 'rows/*.jsonl'\n  - {split: dev, path: d.csv}"
)
TWO = card("- {config_name: en, data_files: en.jsonl}\n- {config_name: fr, data_files: [fr.jsonl, more/**.jsonl]}")
NAMES = ["README.md", "rows/a.jsonl", "rows/b.jsonl", "rows/deep/c.jsonl", "d.csv", "en.jsonl", "fr.jsonl"]
NAMES += ["more/deep/x.jsonl"]


def test_files_that_the_card_names_are_taken():
    assert found(NAMES, "train", ONE) == ["rows/a.jsonl", "rows/b.jsonl"]
    assert found(NAMES, "valid", ONE) == ["d.csv"]
    assert found(NAMES, "train", TWO, config="fr") == ["fr.jsonl", "more/deep/x.jsonl"]
    assert found(NAMES, "train", card("- {config_name: x, data_dir: rows}")) == NAMES[1:4]


@pytest.mark.parametrize(
    ("text", "config", "split", "said"),
    [
        (ONE, "", "test", "its card names files of dev and train, and none of test"),
        (TWO, "", "train", "several configurations: en, fr"),
        (TWO, "de", "train", "no configuration 'de', but en, fr"),
        (card("- {config_name: x, data_files: gone-*.jsonl}"), "", "train", "gone-*.jsonl"),
        (card("- {config_name: x, data_files: ../../etc/passwd}"), "", "train", "files that are not in it"),
        (card("- {config_name: x, data_files: 'https://x.org/a.jsonl'}"), "", "train", "files that are not in it"),
        (card("- {config_name: x, data_files: /etc/passwd}"), "", "train", "files that are not in it"),
        ("---\nconfigs: [\n---\n", "", "train", "cannot be read as YAML"),
    ],
)
def test_a_card_that_leads_nowhere_astray_or_two_ways_is_refused(text, config, split, said):
    assert said in refused(NAMES, split, text, config).message


@pytest.mark.parametrize("text", ["# No head", "---\nlicense: mit\n---\n", "---\nconfigs: 3\n---\n"])
def test_a_card_without_configs_says_nothing(text):
    assert found(["a.jsonl"], card=text) == ["a.jsonl"]

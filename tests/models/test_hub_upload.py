"""A folder onto the hub: one commit, private unless asked otherwise, to a server here that speaks its protocol."""

import pytest
from hub_server import LARGE, TOKEN, asked_hub
from huggingface_hub import HfApi

from mlxtune.errors import ModelError, NetworkError, OutputExistsError, UsageError
from mlxtune.models.hub_upload import upload

CARD = "---\nlicense: mit\n---\n# tiny\n"


@pytest.fixture
def hub(tmp_path, cache, monkeypatch):
    with asked_hub(tmp_path / "hf", monkeypatch) as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "model.safetensors").write_bytes(b"\x01" * (LARGE + 1))
    (folder / "sub" / "a.json").write_text("{}")
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_repository_is_private_and_holds_the_folder_after_one_commit(hub, folder):
    told = []

    done = upload(folder, "org/tiny", message="m", progress=lambda *step: told.append(step))

    repository = hub.repositories["org/tiny"]
    files = hub.files_of("org/tiny")
    assert {name: files[name] for name in contents(folder)} == contents(folder)
    assert (repository.private, done.private, done.created) == (True, True, True)
    assert (len(repository.commits), done.commit) == (2, repository.branches["main"])
    assert done.page == "https://huggingface.co/org/tiny"
    size = sum(map(len, contents(folder).values()))
    assert told[-1] == ("upload org/tiny: bytes", size, size)


def test_the_token_goes_to_the_hub_and_never_to_the_store(hub, folder):
    upload(folder, "org/tiny", message="m")

    assert {request.token for request in hub.requests if request.server == "hub"} == {f"Bearer {TOKEN}"}
    assert {request.token for request in hub.requests if request.server == "store"} == {None}
    assert "mlxtune/" in hub.requests[0].agent


def test_public_is_public(hub, folder):
    done = upload(folder, "org/tiny", public=True, message="m")

    assert (hub.repositories["org/tiny"].private, done.private) == (False, False)


def test_a_repository_with_files_takes_a_commit_only_if_forced_and_loses_the_model_it_had(hub, folder):
    hub.add("org/tiny", {"adapter.safetensors": b"old", "notes.txt": b"mine"}, private=True)

    with pytest.raises(OutputExistsError, match="has files") as caught:
        upload(folder, "org/tiny", message="m")
    done = upload(folder, "org/tiny", force=True, message="m")

    assert "--force" in (caught.value.remedy or "")
    assert set(hub.files_of("org/tiny")) == {"notes.txt", *contents(folder)}
    assert (done.private, done.created) == (True, False)


def test_an_empty_repository_that_broke_off_is_gone_on_with(hub, folder):
    hub.refusals["/commit/"] = (500, "")
    with pytest.raises(NetworkError, match="500"):
        upload(folder, "org/tiny", message="m")
    hub.refusals.clear()

    done = upload(folder, "org/tiny", message="m")

    assert not done.created
    assert sum(request.method == "PUT" for request in hub.requests) == 1  # the large file came through the first time


def test_what_is_to_be_public_does_not_go_into_a_private_repository(hub, folder):
    hub.add("org/tiny", {".gitattributes": b""}, private=True)

    with pytest.raises(UsageError, match="is private") as caught:
        upload(folder, "org/tiny", public=True, message="m")

    assert "--public" in (caught.value.remedy or "")
    assert set(hub.files_of("org/tiny")) == {".gitattributes"}


def test_what_is_private_does_not_go_into_a_public_repository(hub, folder):
    hub.add("org/tiny", {"notes.txt": b"mine"})

    with pytest.raises(UsageError, match="public"):
        upload(folder, "org/tiny", force=True, message="m")

    assert set(hub.files_of("org/tiny")) == {"notes.txt"}


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (401, "Invalid credentials in Authorization header", "does not accept the token"),
        (403, "Forbidden", "may not write to org/tiny"),
        (402, "Payment required", "no more room"),
        (429, "Slow down", "answers 429"),
        (500, "", "answers 500"),
    ],
)
def test_a_refusal_is_a_sentence(hub, folder, status, message, said):
    hub.refusals["/api/repos/create"] = (status, message)

    with pytest.raises((ModelError, NetworkError), match=said) as caught:
        upload(folder, "org/tiny", message="m")

    assert caught.value.remedy
    assert TOKEN not in f"{caught.value} {caught.value.remedy}"


def test_a_wrong_token_and_none_are_told_apart(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ModelError, match="does not accept"):
        upload(folder, "org/tiny", message="m")
    asked = len(hub.requests)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelError, match="there is no token") as caught:
        upload(folder, "org/tiny", message="m")

    assert "HF_TOKEN" in (caught.value.remedy or "")
    assert len(hub.requests) == asked
    assert "org/tiny" not in hub.repositories


def test_a_card_that_the_hub_refuses_is_told_and_nothing_is_committed(hub, folder):
    (folder / "README.md").write_text("---\ntags: []\n---\n")

    with pytest.raises(ModelError, match='"license" is required'):
        upload(folder, "org/tiny", message="m")

    assert set(hub.files_of("org/tiny")) == {".gitattributes"}


@pytest.mark.parametrize("name", ["no spaces/here", "a/b/c", "org/-x-", "org/a..b"])
def test_a_name_that_the_hub_does_not_allow_is_refused(hub, folder, name):
    with pytest.raises(UsageError, match="no name"):
        upload(folder, name, message="m")


def test_offline_nothing_is_asked(hub, folder, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")

    with pytest.raises(NetworkError, match="the upload to org/tiny needs the hub, and the network is off"):
        upload(folder, "org/tiny", message="m")

    assert hub.requests == []


def test_a_server_that_is_gone_is_told(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(NetworkError, match="cannot be reached"):
        upload(folder, "org/tiny", message="m")


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own way to call httpx2
def test_the_server_here_takes_what_huggingface_hub_itself_uploads(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    api = HfApi(endpoint=hub.url, token=TOKEN)

    api.create_repo("org/tiny", private=True)
    api.upload_folder(repo_id="org/tiny", folder_path=folder)

    assert set(hub.files_of("org/tiny")) == {".gitattributes", *contents(folder)}

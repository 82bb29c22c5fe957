"""A model of the hub: fetched once, whole, at one commit, from a server here that speaks the hub's protocol."""

import json
import threading
from pathlib import Path

import mlx.core as mx
import pytest
from hub_server import asked_hub
from huggingface_hub import constants, hf_hub_download, snapshot_download
from tiny import tiny_model_folder, tiny_recipe

from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import DeviceError, MlxtuneError, ModelError, NetworkError
from mlxtune.models.convert import convert
from mlxtune.models.hub import (
    HubName,
    cached_snapshot,
    choose_companions,
    choose_weights,
    describe,
    fetch_snapshot,
    parse_hub_name,
)
from mlxtune.models.load import open_model
from mlxtune.models.source import find_model, hash_of_folder, locate
from mlxtune.models.write import write_weights
from mlxtune.network import open_hub

NAME = HubName("org/tiny")
TINY = ["LICENSE", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as they are: a model, and all that nobody needs or wants of it."""
    folder = tiny_model_folder(tmp_path_factory.mktemp("hub") / "model")
    (folder / "LICENSE").write_text("Apache-2.0")
    (folder / "README.md").write_text("# tiny")
    (folder / "modeling_tiny.py").write_text("raise SystemExit")
    for name in ("pytorch_model.bin", "consolidated.safetensors", "original/consolidated.00.pth", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x80" * 30_000)
    return folder


@pytest.fixture
def hub(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    with asked_hub(tmp_path / "hf", monkeypatch) as hub:
        yield hub


def refused(name: HubName | str = NAME) -> MlxtuneError:
    """The error that fetching raises."""
    hub_name = name if isinstance(name, HubName) else HubName(name)
    with pytest.raises(MlxtuneError) as caught:
        fetch_snapshot(hub_name)
    return caught.value


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("org/name", HubName("org/name")),
        ("mlx-community/Qwen3-0.6B-4bit", HubName("mlx-community/Qwen3-0.6B-4bit")),
        ("org/name@v1.0", HubName("org/name", "v1.0")),
        ("org/name@refs/pr/1", HubName("org/name", "refs/pr/1")),
        ("./org/name", None),
        ("../name", None),
        ("/org/name", None),
        ("org/name/more", None),
        ("org/name@../../x", None),
        ("name", None),
    ],
)
def test_a_name_on_the_hub_has_an_owner_and_perhaps_a_revision(source, name):
    assert parse_hub_name(source) == name


def test_only_what_a_model_needs_is_fetched_at_one_commit_and_never_asked_for_again(hub, model):
    commit = hub.add("org/tiny", model)

    first = fetch_snapshot(NAME)

    assert (first.commit, first.already_there) == (commit, False)
    assert sorted(path.name for path in first.path.iterdir()) == TINY
    for name in TINY:
        assert (first.path / name).read_bytes() == (model / name).read_bytes()
    asked = len(hub.requests)
    assert not any(name in path for path in hub.paths() for name in (".bin", ".py", "consolidated", "onnx", "README"))

    for name in (NAME, HubName("org/tiny", commit)):
        again = fetch_snapshot(name)
        assert (again.path, again.commit, again.already_there) == (first.path, commit, True)
    assert len(hub.requests) == asked


def test_every_way_to_a_model_takes_a_name_on_the_hub(hub, model, tmp_path):
    commit = hub.add("org/tiny", model)

    found = find_model("org/tiny")
    assert (found.source, found.revision, found.already_there) == ("org/tiny", commit, False)
    assert found.sha256 == hash_of_folder(model)  # as of a folder of the user's own
    open_model(found.path, CPU_FLOAT32)
    assert find_model("org/tiny@main").already_there
    assert find_model("org/tiny", quantize=(4, 32)).revision == commit
    assert convert("org/tiny", tmp_path / "out", bits=8)["quantization"]["bits"] == 8
    assert locate("org/tiny").kind == "hub"


def test_two_at_once_fetch_once(hub, model):
    hub.add("org/tiny", model)
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch_snapshot(NAME).path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found) == 3
    assert [request.server for request in hub.requests].count("store") == 1


def test_a_folder_of_that_name_goes_before_the_hub(hub, model, tmp_path):
    folder = tiny_model_folder(tmp_path / "org" / "tiny")

    assert find_model("org/tiny", base=tmp_path).path == folder
    assert hub.requests == []


def test_main_stays_where_it_was_until_the_newest_is_asked_for(hub, model, tmp_path):
    old = hub.add("org/tiny", model)
    fetch_snapshot(NAME)
    new = hub.add("org/tiny", tiny_model_folder(tmp_path / "new", seed=1))

    assert fetch_snapshot(NAME).commit == old
    newest = fetch_snapshot(NAME, newest=True)
    assert (newest.commit, newest.already_there) == (new, False)
    assert fetch_snapshot(NAME).commit == new
    assert fetch_snapshot(NAME, newest=True).already_there
    # What a run recorded is what a resumed run gets.
    assert find_model("org/tiny", revision=old).sha256 == hash_of_folder(model)


def test_what_another_program_has_fetched_is_used_as_it_is(hub, model):
    hub.add("org/tiny", model)
    with open_hub("a test"):
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            hf_hub_download("org/tiny", name, endpoint=hub.url, cache_dir=constants.HF_HUB_CACHE)
    asked = len(hub.requests)

    assert fetch_snapshot(NAME).already_there
    assert len(hub.requests) == asked


def test_what_is_fetched_here_is_a_snapshot_for_other_programs(hub, model):
    hub.add("org/tiny", model)
    ours = fetch_snapshot(NAME)

    theirs = snapshot_download("org/tiny", local_files_only=True, cache_dir=constants.HF_HUB_CACHE)

    assert Path(theirs) == ours.path


@pytest.mark.parametrize("missing", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_snapshot_that_lacks_a_file_is_not_taken_for_whole(hub, model, missing, monkeypatch):
    hub.add("org/tiny", model)
    folder = fetch_snapshot(NAME).path
    (folder / missing).unlink()
    assert cached_snapshot(NAME) is None

    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")
    error = refused()
    assert isinstance(error, NetworkError)
    assert "a part of the model org/tiny (" in error.message
    monkeypatch.delenv("MLXTUNE_OFFLINE")
    assert (fetch_snapshot(NAME).path / missing).read_bytes() == (model / missing).read_bytes()


def test_offline_what_is_missing_is_named_and_nothing_is_asked(hub, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")

    error = refused()

    assert error.message == "the model org/tiny is not on this machine, and the network is off"
    assert "--offline" in str(error.remedy)
    assert hub.requests == []


def test_the_hubs_own_switch_is_heeded_too(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert "HF_HUB_OFFLINE forbids the hub" in refused().message
    assert hub.requests == []


@pytest.mark.parametrize("token", [None, "hf_anotherSecret"])
def test_a_gated_model_is_refused_with_its_licence_page(hub, model, monkeypatch, token):
    hub.add("org/tiny", model, gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)

    error = refused()

    assert isinstance(error, ModelError)
    assert "org/tiny is gated" in error.message
    assert "https://huggingface.co/org/tiny" in str(error.remedy)
    assert "HF_TOKEN" in str(error.remedy)
    assert "Secret" not in f"{error!r} {error.__cause__!r} {error.remedy}"


@pytest.mark.parametrize("private", [True, False])
def test_a_model_that_is_private_or_not_there_is_refused_with_a_way_out(hub, model, private):
    if private:
        hub.add("org/tiny", model, private=True)

    error = refused()

    assert "there is no folder org/tiny, and the hub shows no model of that name" in error.message
    assert "HF_TOKEN" in str(error.remedy)


def test_an_unknown_revision_is_named(hub, model):
    hub.add("org/tiny", model)

    assert refused(HubName("org/tiny", "v9")).message == "org/tiny has no revision v9"


def test_a_tag_and_a_commit_are_revisions(hub, model):
    commit = hub.add("org/tiny", model)
    hub.repositories["org/tiny"].branches["v1/final"] = commit

    assert fetch_snapshot(HubName("org/tiny", "v1/final")).commit == commit
    asked = len(hub.requests)
    assert fetch_snapshot(HubName("org/tiny", "v1/final")).already_there
    assert len(hub.requests) == asked


def test_a_name_that_the_hub_forbids_is_refused(hub):
    assert "no name that the hub allows" in refused("org/a--b").message


@pytest.mark.parametrize(
    ("files", "sentence", "remedy"),
    [
        (["config.json", "pytorch_model.bin"], "pickled weights only (pytorch_model.bin)", "safetensors"),
        (["config.json", "consolidated.00.pth"], "pickled weights only", "safetensors"),
        (["a.Q4_K_M.gguf", "a.Q8_0.gguf"], "holds 2 GGUF files", "give its path"),
        (["adapter_config.json", "adapter_model.safetensors"], "no weights in transformers", "base model"),
        (["params.json", "consolidated.safetensors"], "no weights in transformers", "saved for transformers"),
        (
            ["config.json", "model-00001-of-00002.safetensors"],
            "lacks a part of its weights: model-00002-of",
            "revision",
        ),
        (["README.md"], "no weights in transformers", "saved for transformers"),
    ],
)
def test_a_repository_without_usable_weights_is_refused_before_anything_is_fetched(hub, files, sentence, remedy):
    hub.add("org/tiny", dict.fromkeys(files, b"{}"))

    error = refused()

    assert sentence in error.message
    assert remedy in str(error.remedy)
    assert error.where == "https://huggingface.co/org/tiny"
    assert hub.paths() == ["GET /api/models/org/tiny/revision/main?blobs=true"]


def test_a_model_that_cannot_be_used_is_refused_before_its_weights_are_fetched(hub, model):
    files = {"config.json": b'{"model_type": "nonsense"}', "model.safetensors": b"x" * 30_000}
    hub.add("org/tiny", files)

    assert "no class for the model type nonsense" in refused().message
    assert not any(request.server == "store" for request in hub.requests)


def test_code_of_a_repository_is_neither_fetched_nor_run(hub, model, tmp_path):
    config = json.loads((model / "config.json").read_text()) | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.name in TINY}
    files |= {"config.json": json.dumps(config).encode(), "evil.py": f"open({str(tmp_path / 'ran')!r}, 'w')".encode()}
    hub.add("org/tiny", files)

    open_model(find_model("org/tiny").path, CPU_FLOAT32)

    assert not (tmp_path / "ran").exists()
    assert not any("evil" in path for path in hub.paths())


def test_a_model_larger_than_the_disk_is_refused_before_its_weights_are_fetched(hub, model):
    hub.add("org/tiny", model, listed_sizes={"model.safetensors": 10**18})

    error = refused()

    assert isinstance(error, DeviceError)
    assert "takes 1000000000.0 GB more" in error.message
    assert "HF_HOME" in str(error.remedy)
    assert not any(request.server == "store" for request in hub.requests)


def test_a_repository_with_one_gguf_file_is_that_model(hub, tiny_gguf):
    commit = hub.add("org/tiny", {"tiny.Q4_1.gguf": tiny_gguf.read_bytes(), "README.md": b"# tiny"})

    found = find_model("org/tiny")
    asked = len(hub.requests)
    again = find_model("org/tiny")

    assert (found.revision, found.already_there, again.already_there) == (commit, False, True)
    assert found.sha256 == find_model(str(tiny_gguf)).sha256
    assert len(hub.requests) == asked
    open_model(found.path, CPU_FLOAT32)


def test_a_model_in_shards_comes_without_the_copy_beside_them(hub, tmp_path):
    folder = tiny_model_folder(tmp_path / "model")
    weights = mx.load(str(folder / "model.safetensors"))
    write_weights(folder, list(weights.items()), count=len(weights), shard_bytes=100_000)
    hub.add("org/tiny", folder)

    found = find_model("org/tiny")

    shards = sorted(path.name for path in found.path.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards == sorted(path.name for path in folder.glob("model-*.safetensors"))
    open_model(found.path, CPU_FLOAT32)


def test_shards_are_those_of_the_index():
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]

    assert choose_weights([*names, "model.safetensors"], names, "org/x") == names
    assert choose_weights([*names, "model.safetensors"], None, "org/x") == ["model.safetensors"]
    assert choose_weights(names, None, "org/x") == names
    with pytest.raises(ModelError, match="lacks a part"):
        choose_weights(names[:1], names, "org/x")


def test_a_hostile_index_names_no_file_outside(hub, model):
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.name in TINY}
    index = {"weight_map": {"a": "../../../model.safetensors"}}
    hub.add("org/tiny", files | {"model.safetensors.index.json": json.dumps(index).encode()})

    assert "no name of a weights file" in refused().message


def test_a_hostile_listing_names_no_file_outside():
    names = ["../tokenizer.json", "a/tokenizer.json", "/etc/tokenizer.json", "tokenizer.py", "tokenizer.json"]

    assert choose_companions(names) == ["tokenizer.json"]
    assert choose_companions(["additional_chat_templates/a.jinja", "x/y.jinja"]) == [
        "additional_chat_templates/a.jinja"
    ]


def test_a_model_is_described_before_and_after_it_is_fetched(hub, model):
    commit = hub.add("org/tiny", model)
    size = sum((model / name).stat().st_size for name in TINY)

    before = describe(NAME)
    fetch_snapshot(NAME)
    asked = len(hub.requests)
    after = describe(NAME)

    assert (before["licence"], before["revision"], before["size_bytes"]) == ("apache-2.0", commit, size)
    assert before["cached"] is None
    assert Path(after["cached"]).name == after["revision"] == commit
    assert after["size_bytes"] == size
    assert len(hub.requests) == asked


def test_a_recipe_takes_a_name_on_the_hub(hub, tmp_path):
    from mlxtune.iteration.run import run_recipe

    recipe = tiny_recipe(tmp_path)
    hub.add("org/tiny", tmp_path / "model")

    result = run_recipe(
        recipe, ["model.source=org/tiny", "training.max_steps=1"], device="cpu", run_dir=tmp_path / "run", score=False
    )

    recorded = json.loads((result.run_dir / "run.json").read_text())["inputs"]["model"]
    assert recorded["source"] == "org/tiny"
    assert recorded["sha256"] == hash_of_folder(tmp_path / "model")

"""What a user may call a model, and the local folder that it becomes."""

import json
import threading
from pathlib import Path

import mlx_lm
import pytest
from tiny import tiny_model_folder

from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import ModelError, NetworkError, UsageError
from mlxtune.models.catalogue import CATALOGUE
from mlxtune.models.load import open_model
from mlxtune.models.source import find_model, hash_of_folder, locate

NAME = CATALOGUE[0].name


def test_a_local_folder_is_taken_as_it_is(tmp_path):
    folder = tiny_model_folder(tmp_path / "model")

    found = find_model(str(folder))

    assert found.path == folder
    assert found.already_there
    assert found.sha256 == hash_of_folder(folder)


def test_a_relative_path_is_relative_to_base(tmp_path):
    folder = tiny_model_folder(tmp_path / "models" / "mine")

    assert find_model("models/mine", base=tmp_path).path == folder
    assert find_model("./mine", base=tmp_path / "models").path == folder


def test_the_hash_of_a_folder_follows_weights_config_and_tokenizer_and_nothing_else(tmp_path):
    folder = tiny_model_folder(tmp_path / "model")
    before = hash_of_folder(folder)

    (folder / "README.md").write_text("hello")
    assert hash_of_folder(folder) == before
    seen = {before}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        seen.add(hash_of_folder(folder))
    assert len(seen) == 5


def test_a_gguf_file_is_converted_into_the_cache_once(cache, tiny_gguf):
    first = find_model(str(tiny_gguf))
    second = find_model(str(tiny_gguf))

    assert first.path.is_relative_to(cache)
    assert not first.already_there
    assert second.already_there
    assert (second.path, second.sha256) == (first.path, first.sha256)
    open_model(first.path, CPU_FLOAT32)


def test_the_same_file_under_another_name_gives_the_same_hash(cache, tiny_gguf, tmp_path):
    copy = tmp_path / "other.gguf"
    copy.write_bytes(tiny_gguf.read_bytes())

    assert find_model(str(copy)).sha256 == find_model(str(tiny_gguf)).sha256


def test_two_at_once_convert_once(cache, tiny_gguf):
    found = []
    threads = [threading.Thread(target=lambda: found.append(find_model(str(tiny_gguf)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(model.already_there for model in found) == [False, True, True, True]
    assert len({model.path for model in found}) == 1
    mlx_lm.load(str(found[0].path))


def test_a_damaged_gguf_leaves_nothing_in_the_cache(cache, tiny_gguf, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:5000])

    with pytest.raises(ModelError) as caught:
        find_model(str(cut))

    assert caught.value.where == str(cut)
    assert [path for path in (cache / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_wanted_quantization_is_made_once_and_kept_apart(cache, tmp_path):
    folder = tiny_model_folder(tmp_path / "model")

    first = find_model(str(folder), quantize=(4, 32))
    second = find_model(str(folder), quantize=(4, 32))
    other = find_model(str(folder), quantize=(8, 32))

    assert json.loads((first.path / "config.json").read_text())["quantization"]["bits"] == 4
    assert (first.already_there, second.already_there) == (False, True)
    assert first.path == second.path != other.path
    assert len({first.sha256, other.sha256, hash_of_folder(folder)}) == 3


def test_what_is_stored_as_wanted_is_not_converted(cache, tmp_path):
    folder = tiny_model_folder(tmp_path / "model", quantized=True)

    assert find_model(str(folder), quantize=(4, 32)).path == folder
    assert find_model(str(folder), quantize=(4, 64)).path != folder


def test_an_impossible_quantization_is_refused_before_anything_is_read():
    with pytest.raises(UsageError, match="7 bits in groups of 32"):
        find_model("nowhere", quantize=(7, 32))


def test_a_local_folder_goes_before_a_catalogue_name(tmp_path):
    folder = tiny_model_folder(tmp_path / NAME)

    assert locate(NAME, base=tmp_path).kind == "folder"
    (folder / "config.json").unlink()
    assert locate(NAME, base=tmp_path).kind == "catalogue"  # a folder of that name, but no model


def test_a_catalogue_model_that_is_not_there_needs_the_network(cache, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")

    with pytest.raises(NetworkError, match=f"the model {NAME} is not on this machine"):
        find_model(NAME)

    assert not list((cache / "models").glob(f"{NAME}*"))


@pytest.mark.parametrize(
    ("source", "sentence", "remedy"),
    [
        ("smollm2-135m", "no model 'smollm2-135m'", f"did you mean {NAME}"),
        ("xyz", "no model 'xyz'", "mlxtune models list"),
        ("./mine", "no such file or folder", "check the path"),
        ("/no/such/place", "no such file or folder", "check the path"),
        ("model.gguf", "no such file or folder", "check the path"),
        ("models/model.gguf", "no such file or folder", "check the path"),
        ("models/of/mine", "no such file or folder", "check the path"),
        ("org/name@../x", "no such file or folder", "check the path"),
    ],
)
def test_what_is_not_there_is_refused_with_a_way_out(tmp_path, source, sentence, remedy):
    with pytest.raises(ModelError, match=sentence) as caught:
        find_model(source, base=tmp_path)

    assert remedy in str(caught.value.remedy)


@pytest.mark.parametrize("source", ["mlx-community/Qwen3-0.6B-4bit", "org/name@refs/pr/1"])
def test_a_name_that_is_no_folder_here_is_one_of_the_hub(tmp_path, source):
    assert locate(source, base=tmp_path).kind == "hub"


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04")

    with pytest.raises(ModelError, match=r"a folder, or a \.gguf file"):
        find_model("model.safetensors", base=tmp_path)
    with pytest.raises(ModelError, match="this is no GGUF file"):
        find_model("model.gguf", base=tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ModelError, match=r"there is no config\.json"):
        find_model("empty", base=tmp_path)

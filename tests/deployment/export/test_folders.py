"""Folders for other programs: the adapter's own bytes, and an MLX model where LM Studio looks."""

import json
import shutil

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.utils import load_adapters, load_model

from mlxtune.deployment.export.gguf import export_gguf
from mlxtune.deployment.export.lmstudio import UNTRIED, export_lmstudio, find_models_dir
from mlxtune.deployment.export.peft import export_peft
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.errors import OutputExistsError, UsageError


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_adapter_is_copied_byte_by_byte_and_opens_in_mlx_lm(tiny_run, tmp_path):
    report = export_peft(tiny_run, tmp_path / "out")

    assert contents(tmp_path / "out") == contents(tiny_run / "adapter")
    model = tiny_run.parent / "model"
    assert report.base_model == str(model)
    assert report.cannot_open == {}
    network, _ = load_model(model)
    load_adapters(network, str(tmp_path / "out"))
    assert sum("lora_a" in module for module in network.modules()) == 14


def test_what_only_one_program_opens_is_said(own_run, tmp_path):
    config = own_run / "adapter" / "adapter_config.json"
    told = {key: value for key, value in json.loads(config.read_text()).items() if key != "lora_parameters"}
    config.write_text(json.dumps(told | {"mlxtune": {"not_for": {"mlx-lm": "ranks differ by layer"}}}))
    (own_run / "adapter" / "adapters.safetensors").unlink()

    report = export_peft(own_run, tmp_path / "out")

    assert report.cannot_open == {"mlx-lm": "ranks differ by layer"}
    assert contents(tmp_path / "out") == contents(own_run / "adapter")


def test_nothing_is_replaced_that_is_not_meant(tiny_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()

    with pytest.raises(OutputExistsError):
        export_peft(tiny_run, tmp_path / "out")
    with pytest.raises(UsageError, match="the adapter is there"):
        export_peft(tiny_run, tiny_run, force=True)
    with pytest.raises(UsageError, match="there is no adapter to export"):
        export_peft(tiny_run.parent / "model", tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("write", [export_peft, fuse_run])
def test_force_never_replaces_the_base_or_the_file_it_came_from(write, own_run, tmp_path):
    model, gguf = own_run.parent / "model", tmp_path / "g" / "base.gguf"
    export_gguf(model, gguf)
    for source, out in ((model, model), (gguf, gguf.parent)):
        with pytest.raises(UsageError, match="the base model is there, and is not replaced"):
            write(source, out, adapter=own_run / "adapter", force=True)
    assert (model / "config.json").is_file()
    assert gguf.is_file()


def test_an_adapter_of_mlx_lm_alone_is_written_for_peft_too(tiny_run, tmp_path):
    adapter, model = tmp_path / "theirs", tiny_run.parent / "model"
    adapter.mkdir()
    config = json.loads((tiny_run / "adapter" / "adapter_config.json").read_text())
    kept = ("fine_tune_type", "num_layers", "lora_parameters")
    (adapter / "adapter_config.json").write_text(json.dumps({key: config[key] for key in kept}))
    shutil.copyfile(tiny_run / "adapter" / "adapters.safetensors", adapter / "adapters.safetensors")

    report = export_peft(model, tmp_path / "out", adapter=adapter)

    assert (report.cannot_open, report.base_model) == ({}, str(model))
    for file in ("adapters.safetensors", "adapter_model.safetensors"):
        ours, theirs = (mx.load(str(folder / file)) for folder in (tmp_path / "out", tiny_run / "adapter"))
        assert ours.keys() == theirs.keys()
        assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)


def test_lm_studio_finds_an_mlx_folder_by_publisher_and_name(tiny_run, tmp_path):
    report = export_lmstudio(tiny_run, home=tmp_path, device="cpu")

    assert report.out == tmp_path / ".lmstudio" / "models" / "mlxtune" / "run"
    assert (report.system, report.notes) == ("Secretly.", [UNTRIED])
    mlx_lm.load(str(report.out))


def test_lm_studios_own_settings_say_where_it_looks(tmp_path):
    assert find_models_dir(tmp_path) == tmp_path / ".lmstudio" / "models"
    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    assert find_models_dir(tmp_path) == tmp_path / ".cache" / "lm-studio" / "models"
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'gone'}\n")
    assert find_models_dir(tmp_path) == tmp_path / ".cache" / "lm-studio" / "models"
    (tmp_path / "moved").mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'moved'}\n")
    assert find_models_dir(tmp_path) == tmp_path / "moved" / "models"
    (tmp_path / "moved" / "settings.json").write_text('{"downloadsFolder": "/elsewhere"}')
    assert str(find_models_dir(tmp_path)) == "/elsewhere"
    (tmp_path / "moved" / "settings.json").write_text("[]")
    assert find_models_dir(tmp_path) == tmp_path / "moved" / "models"


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe/x"])
def test_a_pointer_of_lm_studio_that_says_nothing_is_passed_over(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".lmstudio-home-pointer").write_bytes(content)

    assert find_models_dir(tmp_path) == tmp_path / ".lmstudio" / "models"


def test_one_place_is_named_for_lm_studio(tiny_run, tmp_path):
    with pytest.raises(UsageError, match="both"):
        export_lmstudio(tiny_run, tmp_path / "out", models_dir=tmp_path / "models")
    assert not any(tmp_path.iterdir())

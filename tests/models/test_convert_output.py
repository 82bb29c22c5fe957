"""Where converting writes: a failure leaves what was there, and what is read is never replaced."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
from tiny import tiny_model_folder

from mlxtune.errors import DeviceError, ModelError, OutputExistsError, UsageError
from mlxtune.models.convert import convert as convert_on
from mlxtune.models.safetensors import validate_weights

convert = partial(convert_on, device="cpu")


@pytest.fixture
def floats(tmp_path):
    return tiny_model_folder(tmp_path / "floats")


@pytest.fixture
def quantized(tmp_path):
    return tiny_model_folder(tmp_path / "quantized", quantized=True)


@pytest.mark.parametrize("options", [{}, {"bits": 4}, {"dtype": "float32"}])
@pytest.mark.parametrize("kind", ["floats", "tiny_gguf"])
def test_a_disk_too_small_is_found_before_anything_is_written(tmp_path, request, monkeypatch, kind, options):
    source = request.getfixturevalue(kind)
    needed = convert(str(source), tmp_path / "fits", **options)["bytes"]
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    with pytest.raises(DeviceError, match=r"GB are needed, and .* GB are free on this disk") as caught:
        convert(str(source), tmp_path / "new" / "out", **options)

    assert caught.value.where == str(tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_measure_that_fails_leaves_nothing(tmp_path, floats):
    def fail(part):
        raise ModelError(f"cannot read {part}")

    with pytest.raises(ModelError, match="cannot read"):
        convert(str(floats), tmp_path / "out", bits=4, measure=lambda _: fail)

    assert [path.name for path in tmp_path.iterdir()] == ["floats"]


def test_an_existing_output_is_kept_unless_forced(tmp_path, floats, quantized):
    convert(str(floats), tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    with pytest.raises(OutputExistsError):
        convert(str(quantized), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before

    convert(str(quantized), tmp_path / "out", force=True)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]["bits"] == 4


def test_a_source_that_lies_in_the_output_is_not_replaced(tmp_path, floats):
    before = sorted(floats.iterdir())
    for out in (floats, tmp_path):
        with pytest.raises(UsageError, match="the source is there, and is not replaced"):
            convert(str(floats), out, bits=4, force=True)
    assert sorted(floats.iterdir()) == before


def test_a_gguf_that_lies_in_the_output_is_not_replaced(tmp_path, write_gguf):
    (tmp_path / "models").mkdir()
    write_gguf(tmp_path / "models" / "x.gguf")
    with pytest.raises(UsageError, match="the source is there, and is not replaced"):
        convert(str(tmp_path / "models" / "x.gguf"), tmp_path / "models", force=True)
    assert (tmp_path / "models" / "x.gguf").is_file()


def test_a_failed_conversion_leaves_a_forced_output_as_it_was(tmp_path, floats, tiny_gguf):
    convert(str(floats), tmp_path / "out")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:-200])

    with pytest.raises(ModelError):
        convert(str(cut), tmp_path / "out", force=True)

    validate_weights(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.gguf", "floats", "out"]

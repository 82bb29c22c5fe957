"""Safetensors: read as the format's own library reads them, refused wherever header and file disagree."""

import json
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from mlxtune.errors import ModelError
from mlxtune.models.safetensors import BYTES_PER_VALUE, INDEX, validate_safetensors, validate_weights

TENSORS = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16), "empty": np.zeros((0, 3), np.int8)}


def write(path: Path, header: object, data: bytes = b"") -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)
    return path


def info(dtype: str = "F32", shape: object = (1,), begin: object = 0, end: object = 4) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_shapes_and_types_are_those_the_formats_own_library_reads(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})

    ours = validate_safetensors(path)

    with safe_open(path, framework="np") as theirs:
        expected = {name: theirs.get_slice(name) for name in theirs.keys()}  # noqa: SIM118 - not a dict
        assert {name: (t.dtype, list(t.shape)) for name, t in ours.items()} == {
            name: (tensor.get_dtype(), tensor.get_shape()) for name, tensor in expected.items()
        }
    assert ours["a"].byte_count == 24


@pytest.mark.parametrize("dtype", BYTES_PER_VALUE)
def test_mlx_reads_every_type_that_is_let_through(tmp_path, dtype):
    size = 3 * BYTES_PER_VALUE[dtype]
    path = write(tmp_path / "x.safetensors", {"a": info(dtype, [3], 0, size)}, bytes(size))

    assert validate_safetensors(path)["a"].shape == (3,)
    assert mx.load(str(path))["a"].shape == (3,)


@pytest.mark.parametrize(
    ("header", "data", "sentence"),
    [
        (b"", b"", "not JSON"),
        (b"{", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b"\xff\xfe", b"", "not UTF-8"),
        ([], b"", "not a JSON object"),
        (b'{"a": {}, "a": {}}', b"", "twice"),
        ({"a": 3}, b"", "lacks its type"),
        ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4), "lacks its type"),
        ({"a": info("F64", [1], 0, 8)}, bytes(8), "type F64, which MLX does not read"),
        ({"a": info(["F32"])}, bytes(4), "which MLX does not read"),
        ({"a": info(shape=3)}, bytes(4), "impossible shape"),
        ({"a": info(shape=[-1])}, bytes(4), "impossible shape"),
        ({"a": info(shape=[True])}, bytes(4), "impossible shape"),
        ({"a": info(shape=[1.0])}, bytes(4), "impossible shape"),
        ({"a": info(shape=[1] * 9)}, bytes(4), "impossible shape"),
        ({"a": info(shape=[2**40, 0], end=0)}, b"", "impossible shape"),
        ({"a": info(shape=[2])}, bytes(4), "not as many bytes"),
        ({"a": info(begin=-4, end=0)}, bytes(4), "not as many bytes"),
        ({"a": info(begin="0")}, bytes(4), "not as many bytes"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(4), "not as many bytes"),
        ({"a": info(), "b": info()}, bytes(4), "overlaps"),
        ({"a": info(), "b": info(begin=8, end=12)}, bytes(12), "leaves a gap"),
        ({"a": info(begin=4, end=8)}, bytes(8), "leaves a gap"),
        ({"a": info()}, bytes(5), "end at byte"),
        ({"a": info()}, bytes(3), "end at byte"),
    ],
)
def test_a_header_that_is_not_true_of_the_file_is_refused(tmp_path, header, data, sentence):
    path = write(tmp_path / "bad.safetensors", header, data)

    with pytest.raises(ModelError, match=sentence) as caught:
        validate_safetensors(path)

    assert caught.value.where == str(path)
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"\x01", struct.pack("<Q", 2**63), struct.pack("<Q", 3) + b"{}"])
def test_a_header_longer_than_the_file_is_refused(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)

    with pytest.raises(ModelError, match="header"):
        validate_safetensors(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "whole.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            validate_safetensors(path)


def test_a_flipped_bit_in_the_header_is_refused_or_harmless(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]

    for place in range(8 + length):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        try:
            tensors = validate_safetensors(path)
        except ModelError:
            continue
        assert sum(tensor.byte_count for tensor in tensors.values()) == len(whole) - 8 - length


def shards(folder: Path, index: dict[str, str] | None = None) -> None:
    save_file({"a": TENSORS["a"]}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": TENSORS["b"]}, folder / "model-00002-of-00002.safetensors")
    weight_map = index or {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_shards_and_index_that_agree_are_read_as_one(tmp_path):
    shards(tmp_path)

    assert set(validate_weights(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard_is_named(tmp_path, with_index):
    shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    if not with_index:
        (tmp_path / INDEX).unlink()

    with pytest.raises(ModelError, match=r"missing model-00002-of-00002\.safetensors"):
        validate_weights(tmp_path)


def test_an_index_that_names_another_tensor_is_refused(tmp_path):
    shards(tmp_path, {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"})

    with pytest.raises(ModelError, match="disagree on 2 tensors, such as b"):
        validate_weights(tmp_path)


def test_an_index_cannot_point_out_of_the_folder(tmp_path):
    shards(tmp_path, {"a": "../model.safetensors"})

    with pytest.raises(ModelError, match="no name of a weights file"):
        validate_weights(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000])
def test_a_damaged_index_is_refused(tmp_path, content):
    shards(tmp_path)
    (tmp_path / INDEX).write_text(content)

    with pytest.raises(ModelError, match=r"weight_map|no name|cannot be read"):
        validate_weights(tmp_path)


def test_a_weights_file_that_the_index_does_not_list_is_refused(tmp_path):
    shards(tmp_path)
    save_file({"a": TENSORS["a"]}, tmp_path / "model.safetensors")

    with pytest.raises(ModelError, match=r"model\.safetensors does not belong"):
        validate_weights(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "model.safetensors")
    save_file({"a": TENSORS["a"]}, tmp_path / "model_copy.safetensors")

    with pytest.raises(ModelError, match="tensor a is also in"):
        validate_weights(tmp_path)


def test_pickled_weights_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")

    with pytest.raises(ModelError, match="pickled") as caught:
        validate_weights(tmp_path)

    assert "safetensors" in str(caught.value.remedy)


def test_a_folder_without_weights_says_so(tmp_path):
    with pytest.raises(ModelError, match="no weights"):
        validate_weights(tmp_path)

"""Writing a model folder: shards that other readers put together, and a config that says what is quantized how."""

import json

import mlx.core as mx
import pytest
from safetensors import safe_open

from mlxtune.models.safetensors import INDEX, validate_weights
from mlxtune.models.write import copy_companions, quantization_config, write_weights


def test_one_small_file_has_no_index(tmp_path):
    total = write_weights(tmp_path, [("a", mx.ones(4)), ("b", mx.ones(2))], count=2)

    assert total == 24
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_shards_hold_to_the_limit_and_the_index_finds_each_tensor(tmp_path):
    moves = []
    tensors = [(f"t{i}", mx.full((10,), i)) for i in range(5)] + [("large", mx.ones(100))]

    write_weights(tmp_path, tensors, count=6, shard_bytes=90, progress=lambda *move: moves.append(move))

    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)
    ]
    assert set(validate_weights(tmp_path)) == {name for name, _ in tensors}
    weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    assert mx.load(str(tmp_path / weight_map["t3"]))["t3"].tolist() == [3.0] * 10
    assert [done for _, done, _ in moves] == [1, 2, 3, 4, 5, 6]


TYPES = [mx.bool_, mx.uint8, mx.int8, mx.uint16, mx.int32, mx.uint32, mx.int64, mx.float16, mx.bfloat16, mx.float32]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("count", [1, 40])
def test_what_is_written_is_read_back_to_the_last_bit_and_safetensors_opens_it(tmp_path, dtype, count):
    draw = mx.random.randint(0, 100, (4, 6), key=mx.random.key(3)).astype(dtype)
    tensors = {"a": draw, "turned": draw.T, "part": draw[1:3, ::2], "one": draw[0, 0], "none": draw[:0], "é": draw[0]}

    # also where there are more tensors than were foreseen, and the header outgrows its room
    write_weights(tmp_path, tensors.items(), count=count)

    path = tmp_path / "model.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert {name: tensor.shape for name, tensor in validate_weights(tmp_path).items()} == {
        name: array.shape for name, array in tensors.items()
    }
    found = dict(mx.load(str(path)))
    assert all(found[name].dtype == dtype and mx.array_equal(found[name], tensors[name]).item() for name in tensors)
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "mlx"}
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == {  # noqa: SIM118 - no mapping
            name: array.shape for name, array in tensors.items()
        }


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32], ids=str)
def test_a_tensor_is_written_in_its_own_shape(tmp_path, monkeypatch, dtype):
    """MLX counts a dimension in 32 bits: one of 2 GiB, made flat or cut into bytes, would end the process."""
    shapes = []
    monkeypatch.setattr(mx, "eval", lambda array: shapes.append(array.shape))

    write_weights(tmp_path, [("turned", mx.ones((6, 4), dtype).T)], count=1)

    assert shapes == [(4, 6)]


def test_the_commonest_setting_stands_once_and_the_others_by_layer():
    four, eight = {"bits": 4, "group_size": 32, "mode": "affine"}, {"bits": 8, "group_size": 32, "mode": "affine"}

    assert quantization_config({"a": four, "b": eight, "c": four}) == four | {"b": eight}
    assert quantization_config({}) is None


@pytest.mark.parametrize("name", ["tokenizer.json", "merges.txt", "chat_template.jinja", "LICENSE.txt", "mlxtune.json"])
def test_what_belongs_to_a_model_is_copied_and_links_become_files(tmp_path, name):
    (tmp_path / "blob").write_text("content")
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    (source / name).symlink_to(tmp_path / "blob")
    (source / "model.py").write_text("")

    copy_companions(source, target)

    assert [path.name for path in target.iterdir()] == [name]
    assert not (target / name).is_symlink()

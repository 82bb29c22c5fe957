"""Model folders that somebody made to harm: refused in one sentence, at once, in little memory, without output."""

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tiny import tiny_model_folder

from mlxtune.cli import main
from mlxtune.errors import ModelError
from mlxtune.models.safetensors import HEADER_LIMIT, INDEX, TensorInfo, validate_safetensors, validate_weights

FILE = "model.safetensors"
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]


def tensor(begin: int = 0, end: int = 4, *, shape: object = (1,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(folder: Path, header: object, data: bytes = bytes(4), *, length: int | None = None) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / FILE).write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)


def cut(folder: Path, length: int) -> None:
    os.truncate(folder / FILE, length)


def write_sparse(folder: Path, length: int) -> None:
    """A file that claims a header nearly as long as itself, and takes no room on the disk."""
    (folder / FILE).write_bytes(struct.pack("<Q", length - 8) + b"{")
    os.truncate(folder / FILE, length)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_shards(folder: Path, weight_map: object, *, names: tuple[str, str] = ("a", "b")) -> None:
    (folder / FILE).unlink()
    for name, shard in zip(names, SHARDS, strict=True):
        save_file({name: np.zeros(2, np.float32)}, folder / shard)
    (folder / INDEX).write_text(weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map}))


def replace_by(folder: Path, make: Callable[[Path], object], name: str = FILE) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty file": (lambda f: cut(f, 0), "ends inside its header"),
    "cut in the length": (lambda f: cut(f, 5), "ends inside its header"),
    "cut in the header": (lambda f: cut(f, 300), "the header claims"),
    "cut in a tensor": (lambda f: cut(f, 200_000), "end at byte"),
    "a byte too many": (lambda f: write(f, {"a": tensor()}, bytes(5)), "end at byte 73 of a file of 74"),
    "a length of all ones": (lambda f: write(f, {}, length=2**64 - 1), "the header claims"),
    "a length beyond the file": (lambda f: write(f, {}, length=10), "the header claims"),
    "a header of 50 GB": (lambda f: write_sparse(f, 50 << 30), "the header claims"),
    "nested without end": (lambda f: write(f, b"[" * 1_000_000), "nested too deeply"),
    "no JSON": (lambda f: write(f, b"PK\x03\x04"), "not JSON"),
    "a name that is no UTF-8": (lambda f: write(f, b'{"a\xff": 1}'), "not UTF-8"),
    "a name that is no Unicode": (lambda f: write(f, {"\ud800": tensor()}), "is no Unicode"),
    "a name with commands for the terminal": (lambda f: write(f, {"\x1b[2J\n": 1}), "tensor \\x1b[2J\\n lacks"),
    "a name of a megabyte": (lambda f: write(f, {"a" * 1_000_000: 1}), "... lacks its type"),
    "a name twice": (lambda f: write(f, b'{"a": 1, "a": 2}'), "the key 'a' stands twice"),
    "metadata of another kind": (lambda f: write(f, {"__metadata__": {"a": [1]}, "a": tensor()}), "metadata"),
    "an entry of another kind": (lambda f: write(f, {"a": [1]}), "lacks its type"),
    "an entry with a number too large": (lambda f: write(f, b'{"a": {"x": 1e999}}'), "lacks its type"),
    "a number of a million digits": (lambda f: write(f, b'{"a": ' + b"9" * 1_000_000 + b"}"), "header cannot be read"),
    "an unknown type": (lambda f: write(f, {"a": tensor(dtype="F128")}), "type F128, which MLX does not read"),
    "a type that is none": (lambda f: write(f, {"a": tensor(dtype={"F": 32})}), "which MLX does not read"),
    "a shape that overflows": (lambda f: write(f, {"a": tensor(0, 0, shape=[2**31 - 1] * 8)}), "not as many bytes"),
    "a shape beyond MLX": (lambda f: write(f, {"a": tensor(0, 0, shape=[2**31, 0])}), "impossible shape"),
    "a negative shape": (lambda f: write(f, {"a": tensor(shape=[-1, -1])}), "impossible shape"),
    "a thousand dimensions": (lambda f: write(f, {"a": tensor(shape=[1] * 1000)}), "impossible shape"),
    "a shape that is none": (lambda f: write(f, {"a": tensor(shape="1")}), "impossible shape"),
    "a place before the file": (lambda f: write(f, {"a": tensor(-4, 0)}), "not as many bytes"),
    "a place after the file": (lambda f: write(f, {"a": tensor(2**62, 2**62 + 4)}), "leaves a gap"),
    "a place that ends before it begins": (lambda f: write(f, {"a": tensor(4, 0)}), "not as many bytes"),
    "tensors that overlap": (lambda f: write(f, {"a": tensor(), "b": tensor(2, 6)}, bytes(6)), "overlaps"),
    "tensors in one place": (lambda f: write(f, {"a": tensor(), "b": tensor()}), "overlaps"),
    "a gap to hide something in": (lambda f: write(f, {"a": tensor(4, 8)}, bytes(8)), "leaves a gap"),
    "a pipe": (lambda f: replace_by(f, os.mkfifo), "this is no file"),
    "a folder": (lambda f: replace_by(f, os.mkdir), "this is no file"),
    "a link to nowhere": (lambda f: replace_by(f, lambda p: p.symlink_to("nowhere")), "cannot be read: No such file"),
    "a link to itself": (lambda f: replace_by(f, lambda p: p.symlink_to(p)), "cannot be read"),
    "a device without end": (lambda f: replace_by(f, lambda p: p.symlink_to("/dev/zero")), "this is no file"),
    "an index out of the folder": (lambda f: write_shards(f, {"a": f"../{FILE}"}), "no name of a weights file"),
    "an index with an absolute path": (lambda f: write_shards(f, {"a": f"/etc/{FILE}"}), "no name of a weights file"),
    "an index with a path of Windows": (
        lambda f: write_shards(f, {"a": f"model..\\{FILE}"}),
        "no name of a weights file",
    ),
    "an index of other files": (lambda f: write_shards(f, {"a": "config.json"}), "no name of a weights file"),
    "an index to a shard that is not there": (
        lambda f: write_shards(f, {"a": SHARDS[0], "b": "model-x.safetensors"}),
        "missing model-x.safetensors",
    ),
    "an index that swaps the shards": (lambda f: write_shards(f, {"a": SHARDS[1], "b": SHARDS[0]}), "disagree on 2"),
    "an index without a tensor": (lambda f: write_shards(f, {"a": SHARDS[0], "c": SHARDS[1]}), "disagree on 2"),
    "a tensor in two shards": (
        lambda f: write_shards(f, {"a": SHARDS[0], "b": SHARDS[1]}, names=("a", "a")),
        f"tensor a is also in {SHARDS[0]}",
    ),
    "an index that is no JSON": (lambda f: write_shards(f, "{"), "the index of the weights cannot be read"),
    "an index that is a list": (lambda f: write_shards(f, "[]"), "has no weight_map"),
    "an index of pairs": (lambda f: write_shards(f, [[1, SHARDS[0]]]), "has no weight_map"),
    "an index that names nothing": (lambda f: write_shards(f, {}), "does not belong to the weights"),
    "an index without end": (
        lambda f: replace_by(f, lambda p: p.symlink_to("/dev/zero"), INDEX),
        "is no file, or one of",
    ),
    "an index that is a link to nowhere": (
        lambda f: replace_by(f, lambda p: p.symlink_to("nowhere"), INDEX),
        "the index of the weights is no file",
    ),
    "a shard of 99,999": (
        lambda f: (f / FILE).rename(f / "model-00001-of-99999.safetensors"),
        "missing model-00002-of-99999.safetensors",
    ),
    "pickled weights": (
        lambda f: (f / FILE).rename(f / "pytorch_model.bin"),
        "pickled (.bin), and opening those can run",
    ),
    "no weights": (lambda f: (f / FILE).unlink(), "there are no weights"),
    "a config with more layers": (lambda f: change_config(f, num_hidden_layers=3), "do not give a network"),
    "a config with a billion layers": (
        lambda f: change_config(f, num_hidden_layers=10**9),
        "is 1,000,000,000, and the",
    ),
    "a config with another width": (lambda f: change_config(f, hidden_size=128), "do not give a network"),
    "a config with a width beyond numbers": (lambda f: change_config(f, hidden_size=10**30), "do not give a network"),
    "a config without heads": (lambda f: change_config(f, num_attention_heads=0), "do not give a network"),
    "a config with an unknown rope": (
        lambda f: change_config(f, rope_scaling={"rope_type": "no such", "factor": 2.0}),
        "do not give a network",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_sentence_and_leaves_nothing(tmp_path, kind):
    harm, sentence = HOSTILE[kind]
    folder = tiny_model_folder(tmp_path / "model")
    harm(folder)

    result = CliRunner().invoke(main, ["convert", str(folder), str(tmp_path / "out"), "--device", "cpu"])

    error, place, hint = result.stderr.splitlines()
    assert result.exit_code == 1
    assert error.startswith("error: ")
    assert sentence in error
    assert len(error) < 500
    assert place.startswith(f"  at: {folder}")
    assert hint.startswith("  hint: ")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "piece",
    [b"[],", b"{},", b'{"":0},', b"0.5,", b"null,", b'"\\u1234",'],
    ids=["lists", "objects", "objects with a key", "floats", "nulls", "texts"],
)
def test_a_header_made_to_fill_memory_takes_less_than_a_gigabyte(tmp_path, piece):
    length = HEADER_LIMIT // 64
    write(tmp_path, b'{"a":[' + piece * (length // len(piece)) + b"0]}", b"")

    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="lacks its type"):
            validate_safetensors(tmp_path / FILE)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held * 64 < 1_000_000_000  # it grows with the length, and tracing is slow


def test_a_key_that_stands_twice_is_found_among_many_at_once(tmp_path):
    names = b"".join(b'"%d":0,' % i for i in range(300_000))
    write(tmp_path, b"{" + names + b'"299999":0}', b"")

    with pytest.raises(ModelError, match="the key '299999' stands twice"):
        validate_safetensors(tmp_path / FILE)


def test_code_and_pickles_beside_the_weights_are_never_opened(tmp_path):
    folder = tiny_model_folder(tmp_path / "model")
    ran = tmp_path / "ran"
    change_config(folder, auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    tokenizer = folder / "tokenizer_config.json"
    auto_map = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"auto_map": auto_map}))
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR.")

    result = CliRunner().invoke(
        main, ["generate", str(folder), "--prompt", "hi", "--max-tokens", "2", "--device", "cpu"]
    )

    assert result.exit_code == 0, result.stderr
    assert not ran.exists()


HEADERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["F32", "BF16"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from(["dtype", "shape", "data_offsets"]), inner, max_size=4)
    ),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "I64"]),
        "shape": st.lists(st.integers(-1, 5), max_size=3),
        "data_offsets": st.lists(st.integers(-2, 40), min_size=1, max_size=3),
    }
)


@given(
    header=HEADERS | st.dictionaries(st.text(max_size=3), ENTRIES, max_size=3),
    data=st.binary(max_size=40),
    change=st.tuples(st.integers(0, 200), st.integers(0, 255)) | st.none(),
)
def test_any_header_is_refused_or_true_of_its_file(tmp_path_factory, header, data, change):
    folder = tmp_path_factory.getbasetemp() / "any_header"
    folder.mkdir(exist_ok=True)
    write(folder, header, data)
    if change is not None:
        content = bytearray((folder / FILE).read_bytes())
        content[change[0] % len(content)] = change[1]
        (folder / FILE).write_bytes(content)
    length = (folder / FILE).stat().st_size

    tensors = validated(folder)
    if isinstance(tensors, ModelError):
        assert tensors.remedy
        assert len(str(tensors)) < 1000 + len(str(folder))
        return
    places = sorted((t.begin, t.end) for t in tensors.values())
    assert all(end == begin for (_, end), (begin, _) in pairwise(places))
    assert not places or places[-1][1] == length


def validated(folder: Path) -> dict[str, TensorInfo] | ModelError:
    try:
        return validate_weights(folder)
    except ModelError as error:
        return error

"""The container of GGUF: read as the gguf package reads it, and refused wherever it is not true of the file."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from mlxtune.errors import ModelError
from mlxtune.models.gguf.header import read_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*entries: bytes, tensors: tuple[bytes, ...] = (), version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join((*entries, *tensors))


def tensor(name: str, dimensions: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


def test_metadata_and_places_are_those_the_gguf_package_reads(tiny_gguf):
    ours, theirs = read_header(tiny_gguf), gguf.GGUFReader(tiny_gguf)

    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == fields
    assert {name: (t.type, t.shape[::-1], t.begin, t.byte_count) for name, t in ours.tensors.items()} == {
        t.name: (t.tensor_type, tuple(t.shape.tolist()), t.data_offset, t.n_bytes) for t in theirs.tensors
    }


def test_every_kind_of_value_comes_back(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{name}")(name, 7)
    writer.add_float32("float32", 0.5)
    writer.add_float64("float64", 0.1)
    writer.add_array("floats", [0.5, 1.5])
    writer.add_array("texts", ["ä", ""])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    metadata = read_header(tmp_path / "x.gguf").metadata

    assert metadata["int64"] == metadata["uint8"] == 7
    assert (metadata["float64"], metadata["floats"], metadata["texts"]) == (0.1, [0.5, 1.5], ["ä", ""])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no GGUF file"),
        (b"GGML" + bytes(100), "no GGUF file"),
        (b"GGUF\x03\x00", "ends inside its header"),
        (header(version=1), "version 1"),
        (header(version=0x03000000), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "1,152,921,504,606,846,976 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "metadata entries"),
        # the gguf package's reader never comes back from this one
        (header(text("a") + struct.pack("<IIQ", 9, 0, 2**40)), "more than the file can hold"),
        (header(text("a") + struct.pack("<IIQ", 9, 8, 2**61)), "more than the file can hold"),
        (header(text("a") + struct.pack("<IIQ", 9, 9, 1)), "array of arrays"),
        (header(text("a") + struct.pack("<I", 99)), "unknown type 99"),
        (header(struct.pack("<Q", 2**63) + bytes(20)), "ends inside its header"),
        (header(struct.pack("<Q", 2) + b"\xff\xfe" + bytes(20)), "not UTF-8"),
        (header(*[text("a") + struct.pack("<IB", 0, 1)] * 2), "has a twice"),
        (header(text("general.alignment") + struct.pack("<II", 4, 3)), "power of two"),
        (header(tensors=(tensor("w", (), 0, 0),)) + bytes(40), "0 dimensions"),
        (header(tensors=(tensor("w", (1, 1, 1, 1, 1), 0, 0),)) + bytes(40), "5 dimensions"),
        (header(tensors=(tensor("w", (4,), 77, 0),)) + bytes(40), "unknown type 77"),
        (header(tensors=(tensor("w", (4, 0), 0, 0),)) + bytes(40), "cannot have the shape"),
        (header(tensors=(tensor("w", (31,), 3, 0),)) + bytes(400), "of type Q4_1 cannot have the shape"),
        (header(tensors=(tensor("w", (2**40,), 0, 0),)) + bytes(400), "ends inside tensor w"),
        (header(tensors=(tensor("w", (4,), 0, 2**63),)) + bytes(400), "ends inside tensor w"),
        (header(tensors=(tensor("w", (4,), 0, 4),)) + bytes(400), "odd place"),
        (header(tensors=(tensor("v", (64,), 0, 0), tensor("w", (64,), 0, 32))) + bytes(900), "overlaps"),
        (header(tensors=(tensor("w", (4,), 0, 0), tensor("w", (4,), 0, 32))) + bytes(400), "w is there twice"),
    ],
)
def test_a_header_that_is_not_true_of_the_file_is_refused(tmp_path, content, sentence):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=sentence) as caught:
        read_header(path)

    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_file_cut_anywhere_is_refused(tiny_gguf, tmp_path):
    whole = tiny_gguf.read_bytes()
    last = max(t.begin + t.byte_count for t in read_header(tiny_gguf).tensors.values())
    cut = tmp_path / "cut.gguf"

    for length in [*range(200), *range(200, last, 997), last - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            read_header(cut)


def test_a_folder_or_a_missing_file_is_a_model_error(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(ModelError, match="cannot be read"):
            read_header(path)


def test_tensors_may_lie_in_another_order_than_the_header_names_them(tmp_path):
    entries = (tensor("second", (8,), 0, 32), tensor("first", (8,), 0, 0))
    content = header(tensors=entries)
    content += bytes(-len(content) % 32)
    path = tmp_path / "x.gguf"
    path.write_bytes(content + np.arange(16, dtype="<f4").tobytes())

    tensors = read_header(path).tensors

    assert list(tensors) == ["first", "second"]
    assert tensors["second"].begin == len(content) + 32

"""Files that mean harm, or were harmed: a sentence, the place and a remedy, no memory, no time, nothing left behind."""

import re
import resource
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlxtune.errors import ModelError
from mlxtune.models.convert import convert as convert_on
from mlxtune.models.gguf.header import read_header
from mlxtune.models.gguf.read import read_gguf, write_gguf_folder

convert = partial(convert_on, device="cpu")
MEBI = 1 << 20


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def counts(path: Path, *, tensors: int | None = None, entries: int | None = None) -> None:
    """Overwrite how many tensors or metadata entries the file claims."""
    content = bytearray(path.read_bytes())
    if tensors is not None:
        content[8:16] = struct.pack("<Q", tensors)
    if entries is not None:
        content[16:24] = struct.pack("<Q", entries)
    path.write_bytes(content)


def after(path: Path, name: str, new: bytes, *, skip: int = 0, before: int = 0) -> None:
    """Overwrite what stands ``skip`` bytes after a name, or ``before`` bytes before its end."""
    content = bytearray(path.read_bytes())
    place = content.index(text(name)) + len(text(name)) + skip - before
    content[place : place + len(new)] = new
    path.write_bytes(content)


UP = "blk.0.ffn_up.weight"  # dimensions, a type and an offset follow a tensor's name
HARMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "more tensors than bytes": (lambda p: counts(p, tensors=2**62), "claims 4,611,686,018,427,387,904 tensors"),
    "more entries than bytes": (lambda p: counts(p, entries=2**63 - 1), "metadata entries"),
    "one entry too many": (lambda p: counts(p, entries=int.from_bytes(p.read_bytes()[16:24], "little") + 1), "."),
    "one tensor too many": (lambda p: counts(p, tensors=20 + 1), "."),
    "no tensors": (lambda p: counts(p, tensors=0), "token_embd.weight is missing"),
    "a list longer than the file": (
        lambda p: after(p, "tokenizer.ggml.tokens", struct.pack("<Q", 2**40), skip=8),
        "more than the file can hold",
    ),
    "a list of lists": (lambda p: after(p, "tokenizer.ggml.tokens", struct.pack("<I", 9), skip=4), "array of arrays"),
    "an unknown kind of value": (lambda p: after(p, "llama.block_count", struct.pack("<I", 77)), "unknown type 77"),
    "a name that is no UTF-8": (lambda p: after(p, UP, b"\xff\xfe", before=5), "not UTF-8"),
    "a name of two gigabytes": (
        lambda p: after(p, UP, struct.pack("<Q", 2**31), before=len(text(UP))),
        "ends inside its header",
    ),
    "a name twice": (lambda p: after(p, "blk.1.ffn_up.weight", b"0", before=15), "blk.0.ffn_up.weight is there twice"),
    "a name beyond ggml's limit": (
        lambda p: after(p, UP, struct.pack("<Q", 100), before=len(text(UP))),
        "not UTF-8|name has 100 characters",
    ),
    "a dimension that overflows": (
        lambda p: after(p, UP, struct.pack("<Q", 2**63), skip=4),
        "ends inside tensor blk.0.ffn_up.weight",
    ),
    "dimensions whose product overflows": (
        lambda p: after(p, UP, struct.pack("<QQ", 2**33, 2**33), skip=4),
        "ends inside tensor",
    ),
    "no dimensions": (lambda p: after(p, UP, struct.pack("<I", 0)), "has 0 dimensions"),
    "a dimension of nothing": (lambda p: after(p, UP, struct.pack("<Q", 0), skip=4), "cannot have the shape"),
    "ninety dimensions": (lambda p: after(p, UP, struct.pack("<I", 90)), "has 90 dimensions"),
    "an unknown type": (lambda p: after(p, UP, struct.pack("<I", 200), skip=20), "unknown type 200"),
    "an offset beyond the file": (lambda p: after(p, UP, struct.pack("<Q", 2**62), skip=24), "ends inside tensor"),
    "an offset into another tensor": (lambda p: after(p, UP, struct.pack("<Q", 32), skip=24), "overlaps another"),
    "an odd offset": (lambda p: after(p, UP, struct.pack("<Q", 7), skip=24), "overlaps another, or lies at an odd"),
    "dimensions turned around": (
        lambda p: after(p, UP, struct.pack("<QQ", 128, 64), skip=4),
        "has the shape .64, 128., not .128, 64.",
    ),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_harmed_file_is_refused_in_a_sentence_and_leaves_nothing(tmp_path, write_gguf, name):
    harm, sentence = HARMS[name]
    path = tmp_path / "x.gguf"
    write_gguf(path)
    harm(path)
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()

    with pytest.raises(ModelError, match=sentence) as caught:
        convert(str(path), tmp_path / "out")

    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.gguf"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 * MEBI / 1024
    assert time.monotonic() - began < 60


LIES = {
    "more blocks than tensors": ({"llama__block_count": 2**31 - 1}, "blocks but only 20 tensors"),
    "one block too many": ({"llama__block_count": 3}, "missing, such as blk.2"),
    "another width": ({"llama__embedding_length": 128, "llama__rope__dimension_count": 32}, "has the shape"),
    "a width beyond all measure": ({"llama__embedding_length": 2**31 - 8}, "16 of 536870910 rotated dimensions"),
    "no heads": ({"llama__attention__head_count": 0}, "head_count is 0"),
    "more heads than width": ({"llama__attention__head_count": 2**20}, "do not go together|has the shape"),
    "heads as a list": ({"llama__attention__head_count": [4, 4]}, "head_count is .4, 4."),
    "a name for a number": ({"llama__block_count": "two" * 1000}, "block_count is 'two"),
    "an unknown scaling": ({"llama__rope__scaling__type": "x" * 5000}, "not supported for llama"),
    "a scaling that is a number": ({"llama__rope__scaling__type": 7}, "scaling.type is 7, no name"),
    "a scaling that is a list": ({"llama__rope__scaling__type": [7]}, "scaling.type is .7., no name"),
    "a base that is no number": ({"llama__rope__freq_base": float("nan")}, "freq_base is nan"),
    "an epsilon without end": ({"llama__attention__layer_norm_rms_epsilon": float("inf")}, "epsilon is inf"),
    "a missing tensor": ({"drop": "blk.1.attn_norm.weight"}, "missing, such as blk.1.attn_norm"),
    "a tensor of another model": ({"extra": {"blk.0.ssm_a": np.ones(4, np.float32)}}, "no tensor blk.0.ssm_a"),
    "too few tokens": ({"tokenizer__ggml__tokens": ["a"]}, "token types does not go with"),
    "no tokens": ({"tokenizer__ggml__tokens": None}, "list of tokens is empty"),
    "more tokens than rows": (
        {"tokenizer__ggml__tokens": [f"t{i}" for i in range(300)], "tokenizer__ggml__token_type": [1] * 300},
        "longer than the 264 rows",
    ),
    "an end that is no token": ({"tokenizer__ggml__eos_token_id": 2**31}, "eos_token_id is 2147483648"),
    "merges of nothing": ({"tokenizer__ggml__merges": ["zz qq" * 500]}, "is not of two tokens to a third"),
    "a template that is a number": ({"tokenizer__chat_template": 3}, None),
}


@pytest.mark.parametrize("name", LIES)
def test_metadata_that_disagrees_with_the_file_is_refused_in_a_sentence(tmp_path, write_gguf, name):
    settings, sentence = LIES[name]
    path = tmp_path / "x.gguf"
    write_gguf(path, **settings)

    if sentence is None:  # harmless: as if it were not there
        convert(str(path), tmp_path / "out")
        return
    with pytest.raises(ModelError, match=sentence) as caught:
        convert(str(path), tmp_path / "out")

    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert len(caught.value.message) < 400
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.gguf"]


def test_a_file_cut_at_each_boundary_of_its_structure_is_refused(tmp_path, tiny_gguf):
    whole = tiny_gguf.read_bytes()
    header = read_header(tiny_gguf)
    names = [*header.metadata, *header.tensors]
    edges = [4, 8, 16, 24]
    for name in names:
        place = whole.index(text(name))
        edges += [place, place + 8, place + len(text(name)), place + len(text(name)) + 4]
    edges += [tensor.begin for tensor in header.tensors.values()]
    path = tmp_path / "cut.gguf"

    for edge in sorted(edges):
        path.write_bytes(whole[:edge])
        with pytest.raises(ModelError) as caught:
            convert(str(path), tmp_path / "out")
        assert caught.value.where == str(path)
        assert not (tmp_path / "out").exists()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_byte_becomes_the_reader_answers_or_refuses(tiny_gguf, tmp_path_factory, data):
    content = bytearray(tiny_gguf.read_bytes())
    end = min(tensor.begin for tensor in read_header(tiny_gguf).tensors.values())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(4, end - 8))
        new = data.draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(new)] = new
    folder = tmp_path_factory.mktemp("changed")
    (folder / "x.gguf").write_bytes(content)

    message = refusal(lambda: write_gguf_folder(folder / "x.gguf", folder))

    assert message is None or re.match(r"[^\n]{10,600}$", message)


def refusal(work: Callable[[], object]) -> str | None:
    """What a ModelError said; None, if there was none."""
    try:
        work()
    except ModelError as error:
        return error.message
    return None


FILLERS = {
    "a list of small numbers": (struct.pack("<IIQ", 9, 0, 1 << 23) + bytes(1 << 23), "8,388,608 numbers; 4,194,304"),
    "a list of empty texts": (struct.pack("<IIQ", 9, 8, 1 << 23) + bytes(8 << 23), "8,388,608 strings; 4,194,304"),
    "one text": (struct.pack("<IQ", 8, 1 << 27) + bytes(1 << 27), "header is longer than 67,108,864 bytes"),
}


@pytest.mark.parametrize("name", FILLERS)
def test_a_header_that_would_fill_memory_is_refused_before_it_does(tmp_path, name):
    value, sentence = FILLERS[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(ModelError, match=sentence):
        read_header(path)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200 * MEBI / 1024


def test_the_gguf_packages_reader_agrees_with_what_is_read(tiny_gguf):
    theirs = gguf.GGUFReader(tiny_gguf)

    assert {tensor.name for tensor in theirs.tensors} == set(read_gguf(tiny_gguf).header.tensors)

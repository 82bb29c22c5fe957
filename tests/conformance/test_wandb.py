"""What Weights & Biases wrote of a run while it was offline, read from its own record with its own message types.

Its record is a log in LevelDB's form (https://github.com/google/leveldb/blob/main/doc/log_format.md) after seven bytes
of its own; wandb itself has no reader in Python.
"""

import importlib
import json
import socket
import struct
import zlib
from pathlib import Path

import pytest
from tiny import tiny_recipe

from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.metrics import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

BLOCK, HEADER, OWN_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def messages(path):
    """Every record's bytes; ValueError where a checksum is wrong."""
    data, at, parts = path.read_bytes(), OWN_HEADER, b""
    assert data[:4] == b":W&B"
    while at + HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        part = data[at + HEADER : at + HEADER + length]
        if zlib.crc32(data[at + HEADER - 1 : at + HEADER + length]) != checksum:
            raise ValueError(f"the record at {at} is damaged")
        parts, at = parts + part, at + HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def test_the_offline_record_has_each_step_once_and_nothing_of_the_machine_or_the_rows(tmp_path, monkeypatch):
    protocol = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="pip install 'mlxtune[wandb]'")
    importlib.import_module("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "the-name-of-a-machine")
    stops = iter([False, False, False, True])
    overrides = ["report_to=[wandb]", "training.max_steps=6", "checkpoint.every_steps=2"]
    warned = []
    watch = Watch(should_stop=lambda: next(stops, True), warned=warned.append)
    begun = run_recipe(
        tiny_recipe(tmp_path), overrides, device="cpu", run_dir=tmp_path / "run", score=False, watch=watch
    )
    assert begun.interrupted
    run = RunFolder(resume_run(tmp_path / "run", device="cpu", score=False, watch=Watch(warned=warned.append)).run_dir)
    assert not warned
    (path,) = run.path.glob("wandb/offline-run-*/*.wandb")
    raw = path.read_bytes()
    for secret in ("the-name-of-a-machine", str(tmp_path), str(Path.cwd()), "Whisper", "Secretly"):
        assert secret.encode() not in raw
    history, config = [], {}
    for message in messages(path):
        record = protocol.Record()
        record.ParseFromString(message)
        if record.HasField("history"):
            history.append({item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
        if record.HasField("run"):
            config = {update.key: json.loads(update.value_json) for update in record.run.config.update}
    lines = read_metrics(run.metrics)
    steps = [line for line in lines if "loss" in line]
    assert [one["_step"] for one in history] == [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [one["train/loss"] for one in history] == pytest.approx([line["loss"] for line in steps])
    validations = {line["step"]: line["valid_loss"] for line in lines if "valid_loss" in line}
    assert {one["_step"]: one["valid/loss"] for one in history if "valid/loss" in one} == pytest.approx(validations)
    assert config["method"]["rank"] == 2

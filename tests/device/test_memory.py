"""Memory is read in bytes, whatever unit the system tells it in."""

import resource
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from mlxtune.device.memory import (
    Memory,
    container_memory,
    hold_gpu_memory,
    limit_of,
    measure_memory,
    peak_resident_bytes,
    read_meminfo,
    read_sysctl,
    readable_bytes,
)
from mlxtune.errors import DeviceError

GIB = 2**30
MIB = 2**20


def test_linux_tells_kibibytes():
    text = "MemTotal:       16314564 kB\nMemFree:          812344 kB\nMemAvailable:    6291456 kB\n"
    assert read_meminfo(text) == (16314564 * 1024, 6 * GIB)


def test_macos_tells_bytes_and_a_percentage():
    assert read_sysctl("17179869184\n50\n") == (16 * GIB, 8 * GIB)


def write_group(folder: Path, limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 17\ninactive_file {cache}\nactive_file 3\n")


def test_the_tightest_of_nested_containers_counts_and_old_page_cache_is_free(tmp_path):
    write_group(tmp_path / "outer" / "inner", "max", 1 * GIB, 0)
    write_group(tmp_path / "outer", str(4 * GIB), 3 * GIB, 1 * GIB)
    write_group(tmp_path, str(8 * GIB), 7 * GIB, 0)
    assert container_memory("0::/outer/inner\n", tmp_path) == (4 * GIB, 1 * GIB)


def test_no_limit_is_none(tmp_path):
    write_group(tmp_path, "max", 1 * GIB, 0)
    assert container_memory("0::/\n", tmp_path) == (None, None)
    assert container_memory("4:memory:/old\n", tmp_path / "absent") == (None, None)


def test_the_peak_is_at_least_what_is_in_use_and_no_more_than_the_system_says():
    block = bytearray(32 * MIB)
    peak = peak_resident_bytes()
    unit = 1 if sys.platform == "darwin" else 1024
    assert len(block) < peak <= 1.1 * unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_this_machine_has_more_than_it_can_give_and_mlx_counts_its_arrays():
    before = measure_memory()
    array = mx.zeros(4 * MIB, dtype=mx.float32)
    mx.eval(array)
    after = measure_memory()
    assert 0 < after.available_bytes < after.total_bytes
    assert after.mlx_active_bytes - before.mlx_active_bytes >= 16 * MIB
    assert after.mlx_peak_bytes >= after.mlx_active_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="macOS tells by sysctl")
@pytest.mark.parametrize("files", [{}, {"meminfo": "", "self/cgroup": "", "self/status": ""}])
def test_a_system_that_does_not_tell_is_an_error_with_its_place(tmp_path, files):
    (tmp_path / "self").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DeviceError, match="the system does not tell") as caught:
        measure_memory(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert caught.value.remedy


@pytest.mark.parametrize(("count", "text"), [(16 * GIB, "16.0 GiB"), (24 * MIB, "24 MiB"), (0, "0 MiB")])
def test_bytes_are_written_for_people(count, text):
    assert readable_bytes(count) == text


GIB, MIB = 1 << 30, 1 << 20

MACS = {  # memory, and what Metal told of it: recommendedMaxWorkingSetSize as users' logs have it
    "M1 Pro, 16 GB (abetlen/llama-cpp-python issue 687)": (16 * GIB, int(10922.67 * MIB)),
    "M2 Max, 32 GB (ollama/ollama issue 434)": (32 * GIB, int(21845.34 * MIB)),
    "M1 Max, 64 GB (ggml-org/llama.cpp issue 1870)": (64 * GIB, int(49152.00 * MIB)),
}


def readings(total: int, available: int, *, active: int = 0) -> Memory:
    return Memory(total, available, peak_resident_bytes=active, mlx_active_bytes=active, mlx_peak_bytes=active)


@pytest.mark.parametrize("mac", MACS)
def test_a_mac_gives_its_gpu_no_more_than_metal_recommends(mac):
    total, working_set = MACS[mac]
    limit = limit_of(readings(total, total), working_set_bytes=working_set)
    assert limit.bytes == working_set
    assert "working set" in limit.reason


@pytest.mark.parametrize("mac", MACS)
def test_a_mac_that_is_in_use_gives_less(mac):
    total, working_set = MACS[mac]
    limit = limit_of(readings(total, total // 4), working_set_bytes=working_set)
    assert limit.bytes == total // 4 - int(0.05 * total) < working_set


def test_what_the_arrays_have_already_is_theirs():
    limit = limit_of(readings(16 * GIB, 4 * GIB, active=6 * GIB))
    assert limit.bytes == 6 * GIB + 4 * GIB - int(0.05 * 16 * GIB)


def test_where_nothing_is_left_the_limit_is_zero():
    assert limit_of(readings(16 * GIB, 0)).bytes == 0


def test_an_apple_gpu_holds_its_working_set_and_no_more(monkeypatch):
    calls = {}
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 8 * GIB})
    for name in ("set_wired_limit", "set_memory_limit", "set_cache_limit"):
        monkeypatch.setattr(mx, name, lambda count, name=name: calls.update({name: count}))
    hold_gpu_memory()
    assert calls == {"set_wired_limit": 8 * GIB, "set_memory_limit": 8 * GIB, "set_cache_limit": GIB}


def test_another_gpu_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": "sm_90"})
    calls = []
    for name in ("set_wired_limit", "set_memory_limit", "set_cache_limit"):
        monkeypatch.setattr(mx, name, calls.append)
    hold_gpu_memory()
    assert calls == []

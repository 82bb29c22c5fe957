"""Facts of any machine, judged on this one; and this one, examined."""

import resource
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from mlxtune.device.blas import Blas
from mlxtune.device.choose import Device
from mlxtune.device.doctor import (
    Finding,
    _memory,
    _of_mlx,
    examine,
    is_well,
    judge_blas,
    judge_cache,
    judge_compiler,
    judge_hub,
    judge_memory,
    judge_network,
    judge_open_files,
    judge_power,
    judge_precision,
    judge_rates,
    judge_system,
    judge_version,
)
from mlxtune.device.memory import Memory
from mlxtune.device.power import PowerReadings
from mlxtune.device.precision import GPU_BFLOAT16
from mlxtune.device.rates import MatmulRates, matmul_rate
from mlxtune.errors import DeviceError

GIB = 2**30
OPENED = Blas("scipy-openblas32", "opened /c/libopenblas-1.so", fast=True, threads=1, path="/c/libopenblas-1.so")
OWN = Blas("MLX's own", "scipy-openblas32: the package is not installed", fast=False, remedy="install it")


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine("cpu")}


def test_every_fact_is_told_and_whatever_is_not_well_has_a_remedy(findings):
    gpu = ["matmul on the GPU"] if mx.is_available(mx.gpu) else []
    assert list(findings) == [
        *("python", "mlxtune", "mlx", "mlx-lm", "numpy", "transformers", "system", "device", "precision", "memory"),
        *("BLAS", "matmul on the CPU", *gpu, "open files", "compiler", "power", "cache", "network"),
    ]
    assert all(finding.value for finding in findings.values())
    assert all(finding.status == "ok" or finding.remedy for finding in findings.values())


def test_the_machine_that_runs_the_tests_is_well(findings):
    assert is_well(list(findings.values())), [one for one in findings.values() if one.status == "bad"]
    assert findings["device"].value == "cpu"
    assert findings["precision"].value == "float32"
    assert findings["numpy"].value == __import__("numpy").__version__
    assert findings["open files"].reason.endswith("is kept")
    assert "GFLOP/s" in findings["matmul on the CPU"].value


def test_a_gpu_that_is_asked_for_and_not_there_is_bad():
    if mx.is_available(mx.gpu):
        pytest.skip("there is a GPU")
    (device,) = _of_mlx("gpu")
    assert (device.name, device.status) == ("device", "bad")
    assert "--device cpu" in (device.remedy or "")


def test_an_mlx_that_cannot_be_loaded_is_a_finding_and_no_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtune.device.choose", None)
    (device,) = _of_mlx("auto")
    assert (device.status, device.reason.split(":")[0]) == ("bad", "MLX cannot be loaded")


REQUIREMENTS = ["mlx-lm<0.33,>=0.32.2", "mlx[cpu]<0.33,>=0.32.4; sys_platform == 'linux'", "numpy>=2.4.6"]


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("mlx", "0.32.4", "ok"),
        ("mlx", "0.33.0", "warn"),
        ("mlx", "0.32.10.dev20261101", "ok"),
        ("mlx-lm", "0.31.9", "warn"),
        ("numpy", "3.0", "ok"),
        ("python-dateutil", "1", "ok"),
        ("mlx", None, "bad"),
    ],
)
def test_a_version_is_judged_by_the_packages_own_requirements(name, version, status):
    assert judge_version(name, version, REQUIREMENTS).status == status


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (("linux", "x86_64", ("glibc", "2.35"), ""), "ok"),
        (("linux", "x86_64", ("glibc", "2.4"), ""), "bad"),
        (("linux", "x86_64", ("", ""), ""), "bad"),
        (("darwin", "arm64", ("", ""), "14.0"), "ok"),
        (("darwin", "arm64", ("", ""), "26.1"), "ok"),
        (("darwin", "arm64", ("", ""), "13.6.1"), "bad"),
        (("darwin", "x86_64", ("", ""), "15.1"), "bad"),
        (("win32", "AMD64", ("", ""), ""), "bad"),
    ],
)
def test_a_system_is_well_if_mlx_has_a_wheel_for_it(facts, status):
    assert judge_system(*facts).status == status


def test_a_python_that_cannot_see_the_mac_it_runs_on_is_told_apart():
    rosetta = judge_system("darwin", "x86_64", ("", ""), "15.1", translated=True)
    assert (rosetta.status, "Rosetta" in rosetta.reason, "arm64" in rosetta.remedy) == ("bad", True, True)
    old = judge_system("darwin", "arm64", ("", ""), "10.16")
    assert (old.status, "built for an older macOS" in old.reason) == ("bad", True)


@pytest.mark.parametrize(
    ("readings", "status"),
    [
        ({}, "ok"),
        ({"on_battery": False, "battery_percent": 80, "thermal": "moderate"}, "ok"),
        ({"on_battery": True}, "warn"),
        ({"thermal": "heavy"}, "warn"),
        ({"memory_pressure": "critical"}, "warn"),
    ],
)
def test_what_training_would_wait_for_is_a_warning(readings, status):
    assert judge_power(PowerReadings(**readings)).status == status


def test_a_compiler_is_named_and_never_missed():
    assert [judge_compiler(path).status for path in (None, "/usr/bin/c++")] == ["ok", "ok"]


def test_a_hub_that_does_not_answer_is_bad():
    assert judge_hub(None, address="https://hub").status == "ok"
    assert judge_hub("nothing answers", address="https://hub").status == "bad"


def test_a_blas_is_well_if_it_is_fast_and_the_one_that_answers():
    assert judge_blas(OPENED, OPENED.path, {}, "x86_64").status == "ok"
    assert judge_blas(OPENED, OPENED.path, {}, "x86_64").value == "scipy-openblas32, 1 thread"
    assert judge_blas(OWN, None, {}, "x86_64").status == "bad"
    assert judge_blas(OWN, None, {}, "x86_64").remedy == "install it"
    assert judge_blas(OPENED, "/usr/lib/libmkl_rt.so", {}, "x86_64").status == "bad"
    assert judge_blas(OPENED, None, {}, "x86_64").status == "bad"
    assert judge_blas(Blas("Accelerate", "macOS has it", fast=True), None, {}, "arm64").status == "ok"


def test_a_slow_blas_is_a_warning_where_no_fast_one_comes_with_mlxtune():
    finding = judge_blas(OWN, None, {}, "aarch64")
    assert (finding.status, finding.remedy) == ("warn", "install it")


def test_an_openblas_that_is_tied_to_another_processor_is_a_warning():
    finding = judge_blas(OPENED, OPENED.path, {"OPENBLAS_CORETYPE": "Haswell"}, "x86_64")
    assert (finding.status, finding.remedy) == ("warn", "unset OPENBLAS_CORETYPE")


def test_nine_tenths_of_numpys_rate_are_enough():
    assert judge_rates(MatmulRates(90, 100), OPENED).status == "ok"
    assert judge_rates(MatmulRates(90, 100), OPENED).value == "90 GFLOP/s, 0.90 of numpy's"
    assert judge_rates(MatmulRates(89, 100), OPENED).status == "warn"
    assert judge_rates(MatmulRates(7, 100), OWN).remedy == "see BLAS"


def test_a_rate_is_measured_on_the_device_and_in_the_format_that_one_asks_for():
    assert 0 < matmul_rate(mx.Device(mx.cpu), mx.bfloat16, size=32, turns=2) < 1e5


def test_little_memory_is_a_warning():
    assert judge_memory(Memory(16 * GIB, 4 * GIB, GIB, 0, 0)).status == "ok"
    finding = judge_memory(Memory(16 * GIB, GIB, GIB, 0, 0))
    assert (finding.status, finding.value) == ("warn", "1.0 GiB available of 16.0 GiB")


def test_memory_that_the_system_does_not_tell_is_unknown_and_no_crash():
    def measure() -> Memory:
        raise DeviceError("the system does not tell: no /proc", remedy="mount it")

    assert _memory(measure) == Finding("memory", "unknown", "warn", "the system does not tell: no /proc", "mount it")


def test_a_limit_of_open_files_that_was_changed_is_a_warning():
    assert judge_open_files((256, resource.RLIM_INFINITY), (256, resource.RLIM_INFINITY)).value == (
        "256 (hard: unlimited)"
    )
    assert judge_open_files((20000, 20000), (2048, 4096)).status == "warn"


def test_a_cache_needs_room_and_keeps_others_out():
    folder = Path("/home/ann/.cache/mlxtune")
    assert judge_cache(folder, 24 * 2**20, 50 * GIB, 0o40700).value == f"{folder}, 24 MiB"
    assert judge_cache(folder, 0, GIB, 0o40700).status == "warn"
    assert judge_cache(folder, 0, 50 * GIB, 0o40777).remedy == f"chmod 700 {folder}"


def test_a_cache_that_cannot_be_used_is_bad(tmp_path, monkeypatch):
    from mlxtune.device.doctor import _cache

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "file"))
    assert _cache().status == "bad"
    assert "MLXTUNE_CACHE" in (_cache().remedy or "")


def test_the_network_is_said_to_be_on_or_off_and_both_are_well():
    assert (judge_network(offline=True).value, judge_network(offline=False).value) == ("off", "on")


def test_the_gpus_precision_is_explained_too():
    finding = judge_precision(Device("gpu", GPU_BFLOAT16, "MLX sees a GPU", compiles=True))
    assert (finding.value, finding.reason.split(";")[0]) == ("bfloat16", "quantized weights stay as stored")

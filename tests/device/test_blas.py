"""MLX's products go through the BLAS that was opened, and give what numpy gives."""

import ctypes
import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from mlxtune.device.blas import MACHINES, SYMBOLS, Blas, _renamed_copy, _way_out, open_blas
from mlxtune.errors import DeviceError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate; nothing is opened there")
with_openblas = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in MACHINES,
    reason="scipy-openblas32 comes with mlxtune on x86-64 Linux alone",
)

CHILD = """
import json, sys
import mlxtune
from mlxtune.device.blas import library_in_use, open_blas
import mlx.core as mx
import numpy
random = numpy.random.default_rng(5)
left, right = (random.standard_normal(shape).astype("float32") for shape in ((70, 300), (300, 90)))
product = mx.array(left) @ mx.array(right)
print(json.dumps({
    "path": open_blas().path, "name": open_blas().name, "fast": open_blas().fast, "threads": open_blas().threads,
    "kernels": open_blas().kernels,
    "in_use": library_in_use(), "maps": open("/proc/self/maps").read(), "product": product.tolist(),
}))
"""


@pytest.fixture(scope="module")
def child() -> dict:
    """What a fresh process, which imports mlxtune first, says of its BLAS."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@with_openblas
def test_a_process_that_imports_mlxtune_first_has_the_renamed_library_and_one_thread(child):
    assert (child["name"], child["fast"], child["threads"]) == ("scipy-openblas32", True, 1)
    assert child["path"].startswith(os.environ["MLXTUNE_CACHE"])
    assert child["path"] in child["maps"]
    assert child["in_use"] == child["path"]
    assert child["kernels"]


@on_linux
def test_a_product_in_mlx_is_numpys_product(child):
    random = np.random.default_rng(5)
    left, right = (random.standard_normal(shape).astype("float32") for shape in ((70, 300), (300, 90)))
    expected = left.astype("float64") @ right.astype("float64")
    np.testing.assert_allclose(np.array(child["product"]), expected, rtol=1e-5, atol=1e-4)


@with_openblas
def test_the_copy_has_the_three_symbols_under_their_plain_names_and_no_others_renamed():
    library = ctypes.CDLL(str(_renamed_copy()))
    assert [hasattr(library, symbol) for symbol in SYMBOLS] == [True] * 3
    assert [hasattr(library, f"scipy_{symbol}") for symbol in SYMBOLS] == [False] * 3
    assert hasattr(library, "scipy_cblas_sgemv")
    assert not hasattr(library, "cblas_sgemv")


@with_openblas
def test_the_copy_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path))
    first = _renamed_copy()
    made = first.stat().st_mtime_ns
    assert _renamed_copy() == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in first.parent.iterdir()] == [first.name]


@with_openblas
def test_no_code_is_loaded_from_a_folder_that_others_can_write_to(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path))
    (tmp_path / "blas").mkdir()
    (tmp_path / "blas").chmod(0o777)
    with pytest.raises(DeviceError, match="others can write"):
        _renamed_copy()


@on_linux
def test_when_mlx_was_imported_first_the_blas_is_its_own_and_the_order_is_the_remedy():
    blas = open_blas.__wrapped__()  # this process has imported mlx long ago
    assert (blas.name, blas.fast, blas.reason) == ("MLX's own", False, "mlx was imported before mlxtune")
    assert (blas.remedy or "").startswith("import mlxtune before mlx")


@pytest.mark.parametrize(
    ("machine", "remedy"),
    [("x86_64", "python -m pip install scipy-openblas32 lief"), ("aarch64", "apt install libopenblas0, or")],
)
def test_the_remedy_for_a_library_that_is_missing_is_one_that_the_machine_has(machine, remedy):
    assert _way_out(ImportError(), machine).startswith(remedy)


def test_on_macos_nothing_is_opened(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert open_blas.__wrapped__() == Blas("Accelerate", "macOS has it, and MLX uses it", fast=True)


@on_linux
def test_the_number_of_threads_is_the_variables_and_one_where_that_is_no_number(monkeypatch):
    from mlxtune.device.blas import _thread_count

    monkeypatch.setenv("MLXTUNE_BLAS_THREADS", "2")
    assert _thread_count() == 2
    monkeypatch.setenv("MLXTUNE_BLAS_THREADS", "many")
    with pytest.warns(RuntimeWarning, match="many is no number of threads"):
        assert _thread_count() == 1

"""The device that was asked for, or a reason."""

import mlx.core as mx
import pytest

from mlxtune.device.choose import gpu_is_there, open_device
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import DeviceError, UsageError


def test_the_cpu_computes_in_float32_and_says_why():
    device = open_device("cpu")
    assert (device.kind, device.precision) == ("cpu", CPU_FLOAT32)
    assert device.reason.startswith("asked for; BLAS: ")
    assert mx.default_device() == mx.Device(mx.cpu)


@pytest.mark.skipif(gpu_is_there(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_gpu_is_an_error_with_a_way_out():
    assert open_device().kind == "cpu"
    assert open_device().reason.startswith("MLX sees no GPU")
    with pytest.raises(DeviceError, match="sees no GPU") as caught:
        open_device("gpu")
    assert "--device cpu" in (caught.value.remedy or "")


def test_a_device_that_does_not_exist_is_wrong_usage():
    with pytest.raises(UsageError, match="no device 'tpu'"):
        open_device("tpu")


def test_on_the_cpu_nothing_is_compiled():
    traced = []

    def double(x: mx.array) -> mx.array:
        traced.append(x)
        return x + x

    compiled = mx.compile(double)
    mx.eval(compiled(mx.ones(3)), compiled(mx.ones(3)))
    assert len(traced) == 2  # a compiled function would have been traced once

"""What only a Mac with Apple silicon can show: that its GPU is there, computes what the CPU does, and is read right."""

import json
import sys

import mlx.core as mx
import numpy as np
import pytest

from mlxtune.device.choose import open_device
from mlxtune.device.power import read_power
from mlxtune.device.profiles import MACHINES, flops_of_device, machine_named

pytestmark = pytest.mark.metal


@pytest.fixture
def gpu():
    device = open_device("gpu")
    yield device
    open_device("cpu")


def test_the_gpu_multiplies_as_the_cpu_does(gpu):
    left, right = (mx.random.normal((64, 64), key=mx.random.key(seed)) for seed in (0, 1))
    on_cpu = np.array(mx.matmul(left, right, stream=mx.cpu))
    np.testing.assert_allclose(np.array(mx.matmul(left, right, stream=mx.gpu)), on_cpu, atol=1e-3)
    assert gpu.compiles


def test_two_runs_on_the_gpu_learn_the_same_to_the_last_bit(tmp_path):
    from tiny import tiny_recipe

    from mlxtune.iteration.run import run_recipe

    recipe = tiny_recipe(tmp_path)
    runs = [
        run_recipe(recipe, ["training.max_steps=3"], device="gpu", run_dir=tmp_path / name, score=False)
        for name in ("one", "two")
    ]
    open_device("cpu")
    files = [run.run_dir / "adapter" / "adapters.safetensors" for run in runs]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_machine_tells_its_heat_and_memory_without_its_battery_s_number():
    assert sys.platform == "darwin"
    found = read_power()
    assert found.thermal is not None
    assert found.memory_pressure is not None
    assert "id=" not in json.dumps(found.to_json())


def test_its_gpu_keeps_no_less_at_hand_than_a_profile_of_like_memory_says():
    told = mx.device_info()
    gigabytes = int(told["memory_size"]) >> 30
    alike = [machine for machine in MACHINES.values() if machine.memory_gb == gigabytes]
    if not alike:
        pytest.skip(f"no profile has {gigabytes} GB")
    assert int(told["max_recommended_working_set_size"]) >= 0.95 * machine_named(alike[0].name).working_set_bytes
    assert flops_of_device(str(told["device_name"])) > 0

"""Published figures, and the names that they are asked by."""

import pytest

from mlxtune.device.profiles import CHIPS, MACHINES, flops_of_device, machine_named
from mlxtune.errors import UsageError


def test_the_names_are_chip_and_memory():
    machine = machine_named("m2-16gb")
    assert (machine.chip, machine.memory_gb, machine.bandwidth_gb_s) == ("m2", 16, 100)
    assert machine_named("M3 Pro 18GB").name == "m3-pro-18gb"
    assert machine_named("m4-max-36gb").bandwidth_gb_s == 410
    assert machine_named("m4-max-64gb").bandwidth_gb_s == 546
    assert len(MACHINES) == sum(len(sizes) for *_, sizes in CHIPS), "two chips of one name and memory"


def test_another_name_gets_the_nearest_and_all():
    with pytest.raises(UsageError, match="m2-16g") as refused:
        machine_named("m2-16g")
    assert refused.value.remedy.startswith("did you mean m2-16gb?")
    assert "m5-max-128gb" in refused.value.remedy


@pytest.mark.parametrize(("name", "gib"), [("m4-16gb", 10.67), ("m2-max-64gb", 48.0)])
def test_a_gpu_keeps_two_thirds_of_little_memory_and_three_quarters_of_much(name, gib):
    assert machine_named(name).working_set_bytes / 2**30 == pytest.approx(gib, abs=0.01)


def test_a_chip_does_no_more_than_the_fewest_cores_it_was_sold_with_and_an_unknown_one_the_least():
    assert flops_of_device("Apple M2 Pro") == machine_named("m2-pro-16gb").flops_per_s
    assert flops_of_device("Apple M9 Giga") == flops_of_device("") == machine_named("m1-8gb").flops_per_s
    assert flops_of_device("Apple M1") == pytest.approx(0.5 * 7 / 8 * 2.6e12)

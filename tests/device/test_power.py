"""What systems say of battery, heat and memory, in their own words; none of them is asked here.

Sources of the words. ``pmset -g batt``: Apple's pmset(1), POWER SOURCE ARGUMENTS
(https://github.com/apple-oss-distributions/PowerManagement, pmset/pmset.1), in the form that laptops of today print, as
public programs' tests have it. ``notifyutil``: the levels of Apple's libkern/OSThermalNotification.h, and
https://stanislas.blog/2025/12/macos-thermal-throttling-app/. ``pmset -g therm``, which says nothing on Apple silicon
and is not asked: https://github.com/exelban/stats/issues/749. Linux: the kernel's Documentation/ABI/testing
(sysfs-class-power, sysfs-class-thermal) and Documentation/accounting/psi.rst.
"""

import sys
from pathlib import Path

import pytest

from mlxtune.device.power import (
    COMMANDS,
    PowerReadings,
    anonymous,
    ask_program,
    judge_supplies,
    judge_zones,
    parse_batteries,
    parse_stalls,
    parse_thermal_level,
    read_power,
)

BATTERY_POWER = "Now drawing from 'Battery Power'\n"
ON_BATTERY = BATTERY_POWER + " -InternalBattery-0 (id=21758051)\t87%; discharging; 0:52 remaining present: true\n"
PLUGGED_IN = (
    "Now drawing from 'AC Power'\n -InternalBattery-0 (id=4653155)\t80%; AC attached; not charging present: true\n"
)
DESKTOP = "Now drawing from 'AC Power'\n"
UPS = (
    "Now drawing from 'UPS Power'\n -Ann's CP1500 (id=123)\t40%; discharging; (no estimate)\n"
    " -InternalBattery-0 (id=4653155)\t20%; discharging; 1:02 remaining present: true\n"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ON_BATTERY, (True, 87)),
        (PLUGGED_IN, (False, 80)),
        (DESKTOP, (False, None)),
        (UPS, (True, 20)),
        ("", (None, None)),
        ("pmset: unknown option\n", (None, None)),
    ],
)
def test_a_mac_says_what_it_draws_from(text, found):
    assert parse_batteries(text) == found


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", "nominal"),
        ("com.apple.system.thermalpressurelevel 1\n", "moderate"),
        ("com.apple.system.thermalpressurelevel 2\n", "heavy"),
        ("com.apple.system.thermalpressurelevel 3\n", "critical"),
        ("com.apple.system.thermalpressurelevel 4\n", "critical"),
        ("com.apple.system.thermalpressurelevel 30\n", None),
        ("com.apple.system.thermalpressurelevel: Failed with code 9\n", None),
        ("", None),
    ],
)
def test_a_mac_says_how_hot_it_is(text, level):
    assert parse_thermal_level(text) == level


def test_nothing_of_what_is_sent_in_tells_one_machine_or_person_from_another():
    assert "4653155" not in anonymous(UPS)
    assert "Ann" not in anonymous(UPS)
    assert "CP1500" not in anonymous(UPS)
    assert parse_batteries(anonymous(UPS)) == parse_batteries(UPS)


def mac(answers):
    return lambda command: answers.get(next(name for name, known in COMMANDS.items() if known == command))


def test_a_mac_is_asked_by_its_own_programs_and_one_that_is_silent_is_left_out():
    found = read_power("darwin", mac({"pmset": ON_BATTERY, "sysctl": "4\n"}))
    assert (found.on_battery, found.battery_percent, found.thermal, found.memory_pressure) == (
        True,
        87,
        None,
        "critical",
    )
    assert found.raw.keys() == {"pmset", "sysctl"}
    assert "21758051" not in str(found.to_json())
    assert read_power("darwin", mac({})) == PowerReadings()
    assert all(command[0].startswith("/usr/") for command in COMMANDS.values())


@pytest.mark.parametrize(("said", "pressure"), [("1", "normal"), ("2", "warning"), ("3", None), ("x", None)])
def test_memory_pressure_is_the_kernels_number(said, pressure):
    assert read_power("darwin", mac({"sysctl": said})).memory_pressure == pressure


def test_another_system_says_nothing():
    assert read_power("win32") == PowerReadings()


def supply(folder: Path, name: str, **files: str) -> None:
    (folder / name).mkdir(parents=True)
    for file, text in files.items():
        (folder / name / file).write_text(text + "\n")


def test_linux_says_it_in_files(tmp_path):
    supplies, zones = tmp_path / "sys/class/power_supply", tmp_path / "sys/class/thermal"
    supply(supplies, "AC", type="Mains", online="0")
    supply(supplies, "BAT0", type="Battery", status="Discharging", capacity="43", serial_number="secret")
    supply(supplies, "hidpp_battery_0", type="Battery", scope="Device", status="Discharging", capacity="5")
    supply(zones, "thermal_zone0", temp="97000", trip_point_0_type="passive", trip_point_0_temp="95000")
    supply(zones, "cooling_device0", type="Fan")
    (tmp_path / "proc/pressure").mkdir(parents=True)
    text = "some avg10=71.00 avg60=3.00 avg300=1.00 total=5\nfull avg10=35.20 avg60=2.00 avg300=0.10 total=4\n"
    (tmp_path / "proc/pressure/memory").write_text(text)
    found = read_power("linux", root=tmp_path)
    assert (found.on_battery, found.battery_percent) == (True, 43)
    assert (found.thermal, found.memory_pressure) == ("heavy", "critical")
    assert "secret" not in str(found.raw)
    assert "hidpp" not in str(found.raw)


def test_a_server_has_no_battery_and_its_silence_is_no_reading(tmp_path):
    assert read_power("linux", root=tmp_path) == PowerReadings()


def test_a_machine_that_charges_or_is_full_is_not_on_battery():
    battery = {"type": "Battery", "status": "Discharging", "capacity": "50"}
    assert judge_supplies([battery | {"status": "Full"}])[0] is False
    assert judge_supplies([battery, {"type": "Mains", "online": "1"}])[0] is False
    assert judge_supplies([battery, {"type": "Mains", "online": "0"}])[0] is True
    assert judge_supplies([{"type": "Mains", "online": "1"}]) == (None, None)


def test_a_zone_is_as_hot_as_its_own_trip_points_say():
    zone = {"trip_point_0_type": "passive", "trip_point_0_temp": "95000"}
    critical = {"trip_point_1_type": "critical", "trip_point_1_temp": "105000"}
    assert judge_zones([zone | {"temp": "94999"}]) == "nominal"
    assert judge_zones([zone | {"temp": "95000"}, zone | {"temp": "20000"}]) == "heavy"
    assert judge_zones([zone | critical | {"temp": "106000"}]) == "critical"
    assert judge_zones([{"temp": "99000"}]) is None
    assert judge_zones([zone | {"trip_point_0_temp": "0", "temp": "20000"}]) == "nominal"  # a point that is not set
    assert judge_zones([zone]) is None


@pytest.mark.parametrize(("average", "pressure"), [("0.00", "normal"), ("19.99", "normal"), ("20.00", "critical")])
def test_memory_is_short_on_linux_where_everything_stands_still(average, pressure):
    assert parse_stalls(f"some avg10=99.00 avg60=0.00\nfull avg10={average} avg60=0.00 total=1") == pressure
    assert parse_stalls("") is None


def test_a_program_that_fails_is_missing_or_prints_no_text_says_nothing():
    assert ask_program(("/no/such/program",)) is None
    assert ask_program((sys.executable, "-c", "import sys; print('x'); sys.exit(3)")) is None
    assert ask_program((sys.executable, "-S", "-c", "import os; os.write(1, bytes([255]))")) == "\ufffd"

"""What this machine says of its battery, its heat and its memory: one reading, on macOS and on Linux.

macOS is asked by its own programs (``pmset``, ``notifyutil``, ``sysctl``), by absolute path and with a time limit,
Linux by files of /sys and /proc. What a system does not tell is None, and nothing follows from it. A ``parse_`` or
``judge_`` function is given text, so that any machine's words can be read on any other. Knows nothing of what is done
about it.

Not seen on a Mac yet: the programs' words are those that their documentation and others' reports have. Two things are
known to be missing there. ``pmset -g therm`` says nothing on Apple silicon (exelban/stats issue 749), so heat is what
``notifyutil`` tells of ``com.apple.system.thermalpressurelevel``; and that answers 0 for a key that is not there too:
a machine that stops telling would seem to be cool. The price of asking programs is some 10 ms each.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SECONDS_TO_ANSWER = 1.0
"""Of a program, before it is taken to tell nothing."""
STALLED_PERCENT = 20.0
"""Of the last ten seconds in which no task could go on for want of memory: from then on Linux is under pressure."""

BATTERY = ("/usr/bin/pmset", "-g", "batt")
THERMAL = ("/usr/bin/notifyutil", "-g", "com.apple.system.thermalpressurelevel")
MEMORY = ("/usr/sbin/sysctl", "-n", "kern.memorystatus_vm_pressure_level")
COMMANDS = {"pmset": BATTERY, "notifyutil": THERMAL, "sysctl": MEMORY}

Thermal = Literal["nominal", "moderate", "heavy", "critical"]
Pressure = Literal["normal", "warning", "critical"]
LEVELS: tuple[Thermal, ...] = ("nominal", "moderate", "heavy", "critical", "critical")
"""Of ``OSThermalPressureLevel`` on macOS, from 0: nominal, moderate, heavy, trapping, sleeping. Source: Apple's
libkern/OSThermalNotification.h."""
PRESSURES: dict[int, Pressure] = {1: "normal", 2: "warning", 4: "critical"}
"""Of ``kern.memorystatus_vm_pressure_level``: those of ``DISPATCH_MEMORYPRESSURE_*`` in Apple's dispatch/source.h."""


@dataclass(frozen=True)
class PowerReadings:
    """One look at the machine. None is what it does not tell, or does not have."""

    on_battery: bool | None = None
    battery_percent: int | None = None
    thermal: Thermal | None = None
    """From ``heavy`` on the system slows itself down."""
    memory_pressure: Pressure | None = None
    """From ``critical`` on programs stand still, or are ended."""
    raw: dict[str, str] = field(default_factory=dict)
    """What was read, by its source; nothing in it names a person or one machine among others of its kind."""

    def to_json(self) -> dict[str, Any]:
        """As plain values, by name."""
        return {
            "on_battery": self.on_battery,
            "battery_percent": self.battery_percent,
            "thermal": self.thermal,
            "memory_pressure": self.memory_pressure,
            "raw": self.raw,
        }


def ask_program(command: Sequence[str]) -> str | None:
    """What a program prints; None if it is not there, fails, or does not answer in time."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS_TO_ANSWER, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def read_power(
    system: str = sys.platform, ask: Callable[[Sequence[str]], str | None] = ask_program, root: Path = Path("/")
) -> PowerReadings:
    """One look at this machine; a few tens of milliseconds on macOS, a millisecond on Linux. Raises nothing.

    Args:
        system: ``sys.platform``.
        ask: runs a program; in tests, plays one.
        root: of /sys and /proc; in tests, of a copy.
    """
    if system == "darwin":
        told = {name: ask(command) for name, command in COMMANDS.items()}
        return read_macos({name: text for name, text in told.items() if text is not None})
    return read_linux(root) if system == "linux" else PowerReadings()


def read_macos(told: dict[str, str]) -> PowerReadings:
    """The readings in what macOS's programs said, by the names of `COMMANDS`; one may be missing."""
    on_battery, percent = parse_batteries(told.get("pmset", ""))
    return PowerReadings(
        on_battery=on_battery,
        battery_percent=percent,
        thermal=parse_thermal_level(told.get("notifyutil", "")),
        memory_pressure=PRESSURES.get(_whole_number(told.get("sysctl", "")) or 0),
        raw={name: anonymous(text) for name, text in told.items()},
    )


def parse_batteries(text: str) -> tuple[bool | None, int | None]:
    """Whether the machine runs on its battery, and the internal one's percent, out of ``pmset -g batt``.

    A UPS is a battery too: whoever trains on it would use up the minutes that are left to save other work.
    """
    source = re.search(r"^Now drawing from '([^']*)'", text, re.MULTILINE)
    percent = re.search(r"^\s*-InternalBattery[^\n]*?(\d{1,3})%", text, re.MULTILINE)
    on_battery = None if source is None else source[1] != "AC Power"
    return on_battery, None if percent is None else int(percent[1])


def parse_thermal_level(text: str) -> Thermal | None:
    """The level in ``notifyutil -g``'s line: the key, a space and a number."""
    match = re.fullmatch(r"com\.apple\.system\.thermalpressurelevel\s+(\d+)", text.strip())
    level = len(LEVELS) if match is None else int(match[1])
    return LEVELS[level] if level < len(LEVELS) else None


def anonymous(text: str) -> str:
    """What macOS's programs said, without what tells one machine from others of its kind.

    ``pmset`` numbers each battery (``id=``), and calls a UPS by its maker's name or its owner's.
    """
    text = re.sub(r"\s*\(id=[^)]*\)", "", text)
    return re.sub(r"^(\s*)-(?!InternalBattery)[^\t\n]*?(?=\t|\s+\d{1,3}%|$)", r"\1-other", text, flags=re.MULTILINE)


def read_linux(root: Path) -> PowerReadings:
    """The readings in /sys/class/power_supply, /sys/class/thermal and /proc/pressure/memory below ``root``.

    Source: the kernel's Documentation/ABI/testing/sysfs-class-power, sysfs-class-thermal, and accounting/psi.rst.
    """
    raw: dict[str, str] = {}
    supplies = _folders(root / "sys/class/power_supply", raw, ("type", "scope", "online", "status", "capacity"))
    zones = _folders(root / "sys/class/thermal", raw, ("temp",), trips=True)
    pressure = _text(root / "proc/pressure/memory")
    if pressure:
        raw["proc/pressure/memory"] = pressure
    on_battery, percent = judge_supplies(supplies)
    return PowerReadings(on_battery, percent, judge_zones(zones), parse_stalls(pressure), raw)


def judge_supplies(supplies: Sequence[dict[str, str]]) -> tuple[bool | None, int | None]:
    """Whether a machine runs on its battery, and how full that is: each supply by the names of its files.

    Batteries of mice and telephones (``scope`` Device) are not the machine's. A machine without a battery says None.
    """
    own = [one for one in supplies if one.get("scope") != "Device"]
    batteries = [one for one in own if one.get("type") == "Battery"]
    plugs = [one["online"] for one in own if one.get("type") in ("Mains", "USB") and "online" in one]
    if not batteries:
        return None, None
    discharges = any(one.get("status") == "Discharging" for one in batteries)
    on_battery = discharges and not any(online not in ("", "0") for online in plugs)
    return on_battery, _whole_number(batteries[0].get("capacity", ""))


def judge_zones(zones: Sequence[dict[str, str]]) -> Thermal | None:
    """How hot the hottest zone is for its own trip points, in thousandths of a degree; None where none has any.

    Above its ``passive`` or ``hot`` point the system slows the processor down; ``critical`` would switch it off.
    """
    found: list[Thermal] = []
    for zone in zones:
        temperature = _whole_number(zone.get("temp", ""))
        points = [re.fullmatch(r"(trip_point_\d+)_type", name) for name in zone]
        trips = [(zone[point[0]], _whole_number(zone.get(f"{point[1]}_temp", ""))) for point in points if point]
        if temperature is None or not trips:
            continue
        reached = {kind for kind, heat in trips if heat is not None and 0 < heat <= temperature}
        slowed = "heavy" if reached & {"passive", "hot"} else "nominal"
        found.append("critical" if "critical" in reached else slowed)
    return max(found, key=LEVELS.index, default=None)


def parse_stalls(text: str) -> Pressure | None:
    """Memory pressure out of /proc/pressure/memory: the share of ten seconds in which every task was held up."""
    match = re.search(r"^full avg10=(\d+(?:\.\d+)?)", text, re.MULTILINE)
    if match is None:
        return None
    return "critical" if float(match[1]) >= STALLED_PERCENT else "normal"


def _folders(folder: Path, raw: dict[str, str], names: Sequence[str], *, trips: bool = False) -> list[dict[str, str]]:
    """What the named files say in each folder of ``folder``; it all goes into ``raw`` too, by a number for a name."""
    found = []
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return []
    for number, one in enumerate(inside):
        paths = [one / name for name in names] + (sorted(one.glob("trip_point_*_*")) if trips else [])
        said = {path.name: text for path in paths if (text := _text(path))}
        found.append(said)
        raw |= {f"{folder.name}/{number}/{name}": text for name, text in said.items()}
    return found


def _text(path: Path) -> str:
    """A small file's content; nothing, if it cannot be read: a zone may be switched off."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _whole_number(text: str) -> int | None:
    """The number that a text is; None, if it is none."""
    return int(text) if re.fullmatch(r"\s*-?\d{1,9}\s*", text) else None

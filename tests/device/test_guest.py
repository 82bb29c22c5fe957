"""Keeping awake and telling, with other programs in the place of macOS's."""

import itertools
import os
import sys
import time

from mlxtune.device import guest
from mlxtune.device.guest import OSASCRIPT, Awake, notification, notify

HOSTILE = '"; do shell script "touch /tmp/x" -- <b>& \'$(id)'


def program(tmp_path, body):
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


def test_a_mac_is_kept_awake_by_a_child_that_watches_this_process_and_ends_with_the_hold(tmp_path):
    awake = Awake("darwin", program(tmp_path, f'echo "$@" > {tmp_path}/said; exec sleep 60'))
    awake.hold()
    awake.hold()
    child = awake._child
    for _ in range(500):
        if (tmp_path / "said").exists() and (tmp_path / "said").read_text():
            break
        time.sleep(0.01)
    assert (tmp_path / "said").read_text() == f"-i -w {os.getpid()}\n"
    assert child.poll() is None
    awake.let_go()
    assert child.poll() is not None
    awake.let_go()


def test_elsewhere_and_without_the_program_nothing_is_started():
    for awake in (Awake("linux"), Awake("darwin", "/no/such/program")):
        awake.hold()
        assert awake._child is None
        awake.let_go()


def test_on_macos_the_text_is_an_argument_and_never_a_part_of_the_script():
    command = notification(HOSTILE, "darwin", {})
    assert command[0] == OSASCRIPT
    scripts = [part for before, part in itertools.pairwise(command) if before == "-e"]
    assert all("touch" not in script for script in scripts)
    assert command[-2:] == [f" {HOSTILE}", "mlxtune"]


def test_on_a_linux_desktop_the_text_is_no_markup(monkeypatch, tmp_path):
    monkeypatch.setattr(guest, "NOTIFY_SEND", program(tmp_path, ""))
    command = notification(HOSTILE, "linux", {"DISPLAY": ":0"})
    assert "<b>" not in command[-1]
    assert "&lt;b&gt;" in command[-1]
    assert notification("text", "linux", {}) is None


def test_without_a_desktop_or_where_it_fails_the_bell_rings(monkeypatch):
    rung = []
    monkeypatch.setattr(guest, "notification", lambda *_: None)
    notify("done", ring=lambda: rung.append(1))
    monkeypatch.setattr(guest, "notification", lambda *_: [sys.executable, "-S", "-c", "raise SystemExit(1)"])
    notify("done", ring=lambda: rung.append(2))
    monkeypatch.setattr(guest, "notification", lambda *_: ["/no/such/program"])
    notify("done", ring=lambda: rung.append(3))
    monkeypatch.setattr(guest, "notification", lambda *_: [sys.executable, "-S", "-c", ""])
    notify("done", ring=lambda: rung.append(4))
    assert rung == [1, 2, 3]

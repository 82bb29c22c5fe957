"""A child process that answers lines: asked again and again, and replaced where it hangs or dies."""

import sys

import pytest

from mlxtune.child import Child, ChildDiedError, ChildTimeoutError

ANSWERS = """
import os, sys, time
for count, line in enumerate(sys.stdin, 1):
    if line == "die\\n":
        os._exit(1)
    if line == "hang\\n":
        time.sleep(600)
    print(count, line.strip(), flush=True)
"""


def child(seconds):
    return Child((sys.executable, "-I", "-S", "-c", ANSWERS), seconds=seconds)


def test_one_process_answers_line_after_line_and_a_new_one_where_it_died():
    asked = child(60)
    assert [asked.ask(b"a"), asked.ask(b"b")] == [b"1 a\n", b"2 b\n"]
    with pytest.raises(ChildDiedError):
        asked.ask(b"die")
    assert asked.ask(b"c") == b"1 c\n"
    asked.close()


def test_one_that_hangs_is_ended_and_replaced():
    asked = child(0.2)
    with pytest.raises(ChildTimeoutError):
        asked.ask(b"hang")
    asked.seconds = 60
    assert asked.ask(b"a") == b"1 a\n"  # of a new process
    asked.close()

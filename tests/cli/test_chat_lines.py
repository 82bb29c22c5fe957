"""Messages of a chat as they are typed or piped in, key by key and byte by byte."""

import io
import stat

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from mlxtune.cli.chat_lines import is_open, open_history, piped_messages, quoted_text, typed_messages
from mlxtune.errors import DataError, UsageError

ALT_ENTER = "\x1b\r"
CTRL_C, CTRL_D, CTRL_R, UP, TAB = "\x03", "\x04", "\x12", "\x1b[A", "\t"


def typed(*keys, history=None, notes=None):
    """What a chat hears while these keys are pressed: the first of them before its first message, and so on."""
    presses = iter(keys)
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):

        def label():
            keyboard.send_text(next(presses, CTRL_D))
            return "tiny"

        note = (lambda _: None) if notes is None else notes.append
        return list(typed_messages(label, ["/save", "/system", "/help"], history, note))


def piped(content):
    return list(piped_messages(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        (["one\r", "two\r"], ["one", "two"]),
        (["one\rtwo\r"], ["one", "two"]),  # typed while the first is answered
        ([f"one{ALT_ENTER}two\r"], ["one\ntwo"]),
        (['"""one\rtwo\r\rthree"""\r'], ['"""one\ntwo\n\nthree"""']),
        (["\x1b[200~one\ntwo\x1b[201~\r"], ["one\ntwo"]),  # what a terminal sends for a text that is pasted
        (["\r", "  \r", "one\r"], ["one"]),
        (["one\r", "two\r", f"{UP}{UP}\r"], ["one", "two", "one"]),
        (["one\r", "two\r", f"{CTRL_R}on\r\r"], ["one", "two", "one"]),
    ],
)
def test_enter_sends_what_stands_there(keys, messages):
    assert typed(*keys) == messages


def test_ctrl_c_drops_a_line_that_was_begun_and_says_how_to_leave():
    notes = []
    assert typed(f"half a li{CTRL_C}", "one\r", notes=notes) == ["one"]
    assert notes == ["Ctrl-D leaves"]


def test_tab_completes_a_command():
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):

        class Commands(list):
            """Presses Enter once somebody looks for what a line may be completed to, then Ctrl-D."""

            def __iter__(self):
                keyboard.send_text(f"\r{CTRL_D}")
                return super().__iter__()

        keyboard.send_text(f"/sa{TAB}")
        assert list(typed_messages(lambda: "tiny", Commands(["/save", "/help"]), None, lambda _: None)) == ["/save"]


# --- history


def test_a_history_is_its_owners_alone_and_there_again_in_the_next_chat(tmp_path):
    path = tmp_path / "history"
    typed(f"one{ALT_ENTER}more\r", history=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert typed(f"{UP}\r", history=path) == ["one\nmore"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text('{"prompt": "mine"}\n'), "no chat's history"),
        (lambda path: path.mkdir(), "cannot be kept there"),
        (lambda path: path.symlink_to(path / "far"), "cannot be kept there"),
    ],
)
def test_what_is_no_history_is_not_written_to(tmp_path, make, told):
    path = tmp_path / "history"
    make(path)
    with pytest.raises(UsageError, match=told) as caught:
        open_history(path)
    assert caught.value.remedy
    assert not path.is_file() or path.read_text() == '{"prompt": "mine"}\n'


def test_a_history_that_others_can_read_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "history"
    open_history(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="others can read") as caught:
        open_history(path)
    assert caught.value.remedy == f"chmod 600 {path}"


# --- a pipe


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"", []),
        (b"one\n\n  two\r\n", ["one", "  two"]),
        ("\ufeffgrüße\N{LINE SEPARATOR}x".encode(), ["grüße\N{LINE SEPARATOR}x"]),
        (b'"""one\n\ntwo"""\nthree\n', ['"""one\n\ntwo"""', "three"]),
        (b'"""\none\n"""\n', ['"""\none\n"""']),
    ],
)
def test_a_line_is_a_message_and_quotes_hold_several(content, messages):
    assert piped(content) == messages


def test_a_message_is_heard_before_the_next_one_is_written():
    lines = iter([b"one\n", b"two\n"])

    class Typist(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            line = next(lines, b"")
            buffer[: len(line)] = line
            return len(line)

    messages = piped_messages(io.BufferedReader(Typist()))
    assert next(messages) == "one"
    assert next(lines) == b"two\n"  # nobody has read it yet


@pytest.mark.parametrize(
    ("content", "told", "where"),
    [
        (b"one\ngr\xfc\xdfe\n", "not UTF-8", "standard input:2"),
        (b'one\n"""two\nthree\n', "never closed", "standard input:2"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(content, told, where):
    with pytest.raises(DataError, match=told) as caught:
        piped(content)
    assert caught.value.where == where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("message", "open_", "text"),
    [
        ("one", False, None),
        ('"""one', True, None),
        ('"""one"""', False, "one"),
        ('"""\none\n"""\n', False, "one"),
        ('""""', True, None),
        ('""""""', False, ""),
        ('one """two"""', False, None),
    ],
)
def test_quotes_hold_what_stands_between_them(message, open_, text):
    assert is_open(message) == open_
    assert quoted_text(message) == text

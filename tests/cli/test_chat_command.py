"""`mlxtune chat`, from the command line: piped in, and as somebody types it."""

import io
import json
import signal
import sys

import pytest
from click.testing import CliRunner, Result
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from mlxtune.cli import main
from mlxtune.cli.chat import talk
from mlxtune.cli.chat_commands import COMMANDS
from mlxtune.cli.chat_lines import typed_messages
from mlxtune.cli.chat_view import ChatView, stopped_by_interrupt
from mlxtune.cli.output import Output
from mlxtune.deployment.answer import generate, open_answerer
from mlxtune.deployment.chat import Chat, Heard, Reply
from mlxtune.deployment.prompts import as_prompt
from mlxtune.deployment.served import open_served
from mlxtune.inference.sampling import Sampling

SHORT = ("--max-tokens", "6")


def run(*arguments: object, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["chat", *map(str, arguments), "--device", "cpu"], input=stdin)


@pytest.fixture(scope="module")
def served(tiny_run):
    return open_served([tiny_run], device="cpu")


@pytest.fixture(scope="module")
def answers(tiny_run):
    """What tuned and base answer to one prompt after the system message of training."""
    models = {
        "tiny": open_answerer(tiny_run, device="cpu"),
        "base": open_answerer(tiny_run.parent / "model", device="cpu"),
    }

    def answer(name, text, system="Secretly."):
        return generate(models[name], [as_prompt(text, system=system)], max_tokens=6)[0].text

    return answer


def lines_of(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


# --- a pipe


def test_each_line_is_a_message_and_the_answers_alone_go_to_standard_output(tiny_run, answers):
    result = run(tiny_run, *SHORT, stdin="Whisper x\n/new\ny\n")
    assert result.exit_code == 0
    assert result.stdout == lines_of(answers("tiny", "Whisper x")) + lines_of(answers("tiny", "y"))


def test_both_answer_under_their_names(tiny_run, answers):
    result = run(tiny_run, *SHORT, stdin="/both\nWhisper x\n")
    tuned, base = (lines_of(answers(name, "Whisper x")) for name in ("tiny", "base"))
    assert result.stdout == f"tiny:\n{tuned}base:\n{base}"


def test_with_json_each_answer_is_a_line_with_its_model(tiny_run, answers):
    result = run(tiny_run, *SHORT, "--json", stdin="/both\nWhisper x\n/tuned\n/new\ny\n")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["model"], one["prompt"]) for one in told] == [
        ("tiny", "Whisper x"),
        ("base", "Whisper x"),
        ("tiny", "y"),
    ]
    assert [one["text"] for one in told] == [answers(one["model"], one["prompt"]) for one in told]
    assert told[0].keys() == {"model", "prompt", "text", "finish_reason", "prompt_tokens", "completion_tokens"}


def test_a_slash_is_said_after_another_or_between_quotes(tiny_run):
    result = run(tiny_run, *SHORT, "--json", stdin='//base\n"""/base\n/both"""\n')
    assert [json.loads(line)["prompt"] for line in result.stdout.splitlines()] == ["/base", "/base\n/both"]


def test_the_system_message_is_shown_set_and_put_back(tiny_run, answers):
    result = run(tiny_run, *SHORT, stdin="/system\n/system Loudly.\n/system\nx\n/undo\n/system -\nx\n")
    assert result.stdout == lines_of(answers("tiny", "x", "Loudly.")) + lines_of(answers("tiny", "x"))
    assert "Secretly.\nLoudly.\n" in result.stderr


def test_a_system_message_comes_with_the_command_too(tiny_run, answers):
    result = run(tiny_run, *SHORT, "--system", "Loudly.", stdin="x\n")
    assert result.stdout == lines_of(answers("tiny", "x", "Loudly."))


def test_settings_of_drawing_are_followed(tiny_run, answers):
    text = answers("tiny", "Whisper x")
    result = run(tiny_run, *SHORT, "--temperature", "2", "--top-k", "1", "--json", stdin="Whisper x\n")
    assert json.loads(result.stdout)["text"] == text
    result = run(tiny_run, *SHORT, "--stop", text[1], "--json", stdin="Whisper x\n")
    assert json.loads(result.stdout)["text"] == text[: text.index(text[1])]


def test_what_is_saved_can_be_trained_on(tiny_run, answers, tmp_path):
    stop = answers("tiny", "Whisper x")[1]  # what stands before it is a whole answer
    result = run(tiny_run, *SHORT, "--stop", stop, stdin=f"Whisper x\n/save {tmp_path}/chat.jsonl\n")
    assert f"{tmp_path}/chat.jsonl: 1 row" in result.stderr
    assert CliRunner().invoke(main, ["data", "validate", f"{tmp_path}/chat.jsonl"]).exit_code == 0


def test_help_names_every_command(tiny_run):
    told = run(tiny_run, stdin="/help\n").stderr
    for name, command in COMMANDS.items():
        assert f"{name} {command.argument}".rstrip() in told
        assert command.help in told


@pytest.mark.parametrize(
    ("message", "code", "told"),
    [
        ("/bas", 2, "did you mean /base?"),
        ("/etc/passwd is long", 2, "begin with // to say it to the model"),
        ("/", 2, "/help lists them"),
        ("/both of you", 2, "/both takes nothing after it"),
        ("/retry", 2, "nothing was said yet"),
        ("/undo", 2, "nothing was said yet"),
        ("/save", 2, "write /save FILE.jsonl"),
        ("/save x.txt", 2, "name it x.txt.jsonl"),
        ("a\0b", 1, "NUL"),
        ('"""one', 1, "never closed"),
        ('""""""', 1, "the prompt is empty"),
    ],
)
def test_a_pipe_ends_at_what_is_wrong_with_the_way_out(tiny_run, message, code, told):
    result = run(tiny_run, *SHORT, stdin=f"{message}\nWhisper x\n")
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert "  hint: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--history", "history"], "this is none"),
        (["--raw", "--system", "x"], "without a system message"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--top-p", "0"], "--top-p"),
        (["--min-p", "0.1"], "--min-p narrows what is drawn"),
        (["--stop", ""], "--stop"),
    ],
)
def test_options_that_do_not_go_together_or_are_out_of_range(tiny_run, arguments, told):
    result = run(tiny_run, *arguments, stdin="x\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_model_alone_has_no_other_to_compare_it_with(tiny_run):
    result = run(tiny_run.parent / "model", *SHORT, stdin="/base\n")
    assert result.exit_code == 2
    assert "there is one model here, model" in result.stderr


# --- a terminal


def live(served, keys, **settings):
    """The view of a chat in which these keys were pressed."""
    view = ChatView(Chat(served, Sampling(**({"max_tokens": 6} | settings))), Output(device="cpu"), is_live=True)
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        keyboard.send_text(keys + "\x04")
        talk(typed_messages(lambda: "tiny", list(COMMANDS), None, view.note), view)
    return view


def test_a_typed_message_is_answered_as_it_comes(served, answers, capsys):
    live(served, "Whisper x\r")
    assert capsys.readouterr().out == lines_of(answers("tiny", "Whisper x"))


def test_an_error_is_told_and_the_chat_goes_on(served, answers, capsys):
    live(served, "/bas\r/save /nowhere/at/all.jsonl\rWhisper x\r/both\r/undo\r/new\ry\r")
    out, err = capsys.readouterr()
    tuned, base = (lines_of(answers(name, "y")) for name in ("tiny", "base"))
    assert out == lines_of(answers("tiny", "Whisper x")) + f"tiny:\n{tuned}base:\n{base}"
    assert err.count("error: ") == 2
    assert "did you mean /base?" in err
    assert "taken back: Whisper x" in err


def test_ctrl_c_stops_an_answer_and_keeps_the_chat(served, capsys):
    view = ChatView(Chat(served, Sampling(max_tokens=100)), Output(device="cpu"), is_live=True)

    def interrupted(is_stopped):
        for heard in view.chat.ask("Whisper x", is_stopped):
            yield heard
            if not is_stopped():
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    view.show(interrupted)
    assert signal.getsignal(signal.SIGINT) is before
    assert view.chat.turns[0].replies["tiny"].completion_tokens == 1
    assert "(stopped)" in capsys.readouterr().err
    talk(["And y"], view)
    assert len(view.chat.turns) == 2


def test_ctrl_c_twice_ends_the_program():
    with stopped_by_interrupt() as is_stopped:
        signal.raise_signal(signal.SIGINT)
        assert is_stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("settings", "command", "told"),
    [
        ({}, "/retry", "the likeliest token is always taken"),
        ({}, "/system Loudly.", "it holds from here on"),
        ({"max_tokens": 1}, "/help", "(cut at 1 tokens; --max-tokens allows more)"),
    ],
)
def test_a_user_is_told_what_could_surprise(served, capsys, settings, command, told):
    live(served, f"Whisper x\r{command}\r", **settings)
    assert told in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "shown"), [(Terminal(), "\\x1b]0;x\\x07\u200c\n\tab\n"), (io.StringIO(), "\x1b]0;x\x07\u200c\n\tab\n")]
)
def test_what_a_terminal_would_obey_is_spelled_out_there_alone(served, monkeypatch, stream, shown):
    monkeypatch.setattr(sys, "stdout", stream)
    view = ChatView(Chat(served, Sampling(max_tokens=1)), Output(), is_live=False)
    pieces = ["\x1b]0;x\x07\u200c\n", "\tab"]
    reply = Reply("tiny", "x", "".join(pieces), "stop", 1, 2)
    view.show(lambda _: iter([*(Heard("tiny", piece) for piece in pieces), Heard("tiny", "", reply)]))
    assert stream.getvalue() == shown

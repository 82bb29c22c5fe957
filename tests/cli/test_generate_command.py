"""`mlxtune generate`, from the command line."""

import json

import pytest
from click.testing import CliRunner, Result
from tiny import tiny_model_folder

from mlxtune.cli import main
from mlxtune.deployment.answer import generate, open_answerer
from mlxtune.deployment.prompts import as_prompt

SHORT = ("--max-tokens", "6")


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"], input=stdin)


@pytest.fixture(scope="module")
def answers(tiny_run):
    """What the tuned model answers, asked directly."""
    model = open_answerer(tiny_run, device="cpu")
    return lambda *prompts: [answer.text for answer in generate(model, prompts, max_tokens=6)]


def test_the_answer_alone_goes_to_standard_output(tiny_run, answers):
    result = run("generate", tiny_run, "--prompt", "Whisper x", *SHORT)
    assert result.exit_code == 0
    assert result.stdout == answers("Whisper x")[0] + "\n"


def test_json_has_the_prompt_and_the_counts(tiny_run, answers):
    result = run("generate", tiny_run, "--prompt", "Whisper x", *SHORT, "--json", "--quiet")
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told.keys() == {"prompt", "text", "finish_reason", "prompt_tokens", "completion_tokens"}
    assert (told["prompt"], told["text"]) == ("Whisper x", answers("Whisper x")[0])
    assert told["finish_reason"] in ("stop", "length")


def test_a_system_message_of_ones_own_takes_the_place_of_the_recorded_one(tiny_run, answers):
    result = run("generate", tiny_run, "--prompt", "x", "--system", "Loudly.", *SHORT, "--json")
    assert json.loads(result.stdout)["text"] == answers(as_prompt("x", system="Loudly."))[0]


def test_a_prompt_from_standard_input_loses_its_last_line_end_alone(tiny_run, answers):
    result = run("generate", tiny_run, "--prompt", "-", *SHORT, "--json", stdin="two\nlines\n")
    told = json.loads(result.stdout)
    assert (told["prompt"], told["text"]) == ("two\nlines", answers("two\nlines")[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.txt", "Whisper x\n\nWhy?\n"),
        ("prompts.jsonl", '{"prompt": "Whisper x"}\n{"messages": [{"role": "user", "content": "Why?"}]}\n'),
    ],
)
def test_a_file_of_prompts_gives_a_line_of_json_each(tiny_run, answers, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    result = run("generate", tiny_run, "--input", tmp_path / name, *SHORT, "--json", "--quiet")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["prompt"] for one in told] == ["Whisper x", "Why?"]
    assert [one["text"] for one in told] == answers("Whisper x", "Why?")


def test_json_lines_come_from_standard_input_too(tiny_run, answers):
    rows = '{"messages": [{"role": "user", "content": "Why?"}]}\n\n{"prompt": "Whisper x"}'
    result = run("generate", tiny_run, "--input", "-", *SHORT, "--json", "--quiet", stdin=rows)
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["prompt"] for one in told] == ["Why?", "Whisper x"]
    assert [one["text"] for one in told] == answers("Why?", "Whisper x")


def test_what_is_wrong_in_standard_input_is_told_with_its_line(tiny_run):
    for rows, told in (('{"prompt": "a"}\n{"question": "a"}\n', "standard input:2"), ("", "there are no rows")):
        result = run("generate", tiny_run, "--input", "-", stdin=rows)
        assert (result.exit_code, result.stdout) == (1, "")
        assert told in result.stderr


@pytest.mark.parametrize("narrow", [("--top-k", "1"), ("--min-p", "1"), ("--top-p", "1e-6")])
def test_drawing_from_the_likeliest_token_alone_takes_it(tiny_run, answers, narrow):
    result = run("generate", tiny_run, "--prompt", "Whisper x", *SHORT, "--temperature", "3", *narrow, "--json")
    assert json.loads(result.stdout)["text"] == answers("Whisper x")[0]


def test_an_answer_ends_before_the_first_text_to_stop_at(tiny_run, answers):
    text = answers("Whisper x")[0]
    stops = ("--stop", "not there", "--stop", text[1])
    told = json.loads(run("generate", tiny_run, "--prompt", "Whisper x", *SHORT, *stops, "--json").stdout)
    assert (told["text"], told["finish_reason"]) == (text[0], "stop")


def test_an_adapter_on_its_base_answers_as_the_run_does(tiny_run, answers):
    result = run(
        *("generate", tiny_run.parent / "model", "--adapter", tiny_run / "adapter", "--prompt", "x", *SHORT, "--json")
    )
    assert json.loads(result.stdout)["text"] == answers("x")[0]


def test_raw_and_a_model_without_a_template_send_the_text_as_it_is(tiny_run, tmp_path):
    plain = tiny_model_folder(tmp_path / "plain", chat_template=None)
    for arguments in ([tiny_run, "--raw"], [plain]):
        told = json.loads(run("generate", *arguments, "--prompt", "Whisper x", *SHORT, "--json").stdout)
        assert told["prompt_tokens"] == len("Whisper x")


def test_what_is_wrong_is_told_with_its_place_and_the_way_out(tiny_run, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n{"question": "a"}\n')
    plain = tiny_model_folder(tmp_path / "plain", chat_template=None)
    for arguments, code, told in (
        ([tiny_run], 2, "give one of --prompt and --input"),
        ([tiny_run, "--prompt", "x", "--input", bad], 2, "give one of --prompt and --input"),
        ([tiny_run, "--input", bad, "--system", "x"], 2, "rows of --input bring their own messages"),
        ([tiny_run, "--prompt", "x", "--system", "x", "--raw"], 2, "leave out --system"),
        ([tiny_run, "--prompt", "x", "--adapter", tiny_run / "adapter"], 2, "leave out --adapter"),
        ([tiny_run, "--prompt", ""], 1, "the prompt is empty"),
        ([tiny_run, "--input", bad], 1, f"{bad}:2"),
        ([tiny_run, "--input", tmp_path / "absent.txt"], 1, "there is no such file"),
        ([plain, "--prompt", "x", "--system", "x"], 1, "give a single text"),
        ([tiny_run / "adapter", "--prompt", "x"], 1, "this is an adapter: give its base model here"),
        ([tmp_path / "absent", "--prompt", "x"], 1, "no such file or folder"),
        (["org/name", "--prompt", "x"], 1, "is not on this machine"),
        ([tiny_run, "--prompt", "x", "--max-tokens", 0], 2, "--max-tokens"),
        ([tiny_run, "--prompt", "x", "--top-p", 0], 2, "--top-p"),
        ([tiny_run, "--prompt", "x", "--top-k", 5], 2, "--top-k narrows what is drawn"),
        ([tiny_run, "--prompt", "x", "--stop", ""], 2, "at least one character"),
        ([tiny_run, "--prompt", "x", "--temperature", "nan"], 2, "temperature is nan"),
    ):
        result = run("generate", *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in result.stderr
        assert "  hint: " in result.stderr
        assert "internal error" not in result.stderr

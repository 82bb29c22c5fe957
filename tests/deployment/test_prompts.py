"""Prompts from texts and files: what is none is told with its place."""

import io
import json

import pytest

from mlxtune.data.example import Message, ToolCall
from mlxtune.deployment.prompts import as_prompt, read_prompt_rows, read_prompts
from mlxtune.errors import DataError

QUESTION = {"role": "user", "content": "Why?"}


def test_a_text_is_a_users_turn_after_a_system_message_if_there_is_one():
    assert as_prompt("Why?").messages == (Message("user", "Why?"),)
    assert as_prompt("Why?", system="Be brief.").messages == (Message("system", "Be brief."), Message("user", "Why?"))


def test_rows_of_json_lines_bring_a_prompt_or_turns(tmp_path):
    path = tmp_path / "prompts.jsonl"
    turns = [{"role": "system", "content": ""}, QUESTION, {"role": "assistant", "content": "So."}, QUESTION]
    rows = [{"prompt": "Why?", "completion": "passed over"}, {"messages": turns}]
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    found = read_prompts(path)
    assert [prompt.where for prompt in found] == [f"{path}:1", f"{path}:3"]
    assert found[0].messages == (Message("user", "Why?"),)
    assert [message.role for message in found[1].messages] == ["system", "user", "assistant", "user"]


def test_a_row_may_have_tools_and_what_they_gave_back(tmp_path):
    path = tmp_path / "prompts.jsonl"
    call = {"id": "call_1", "type": "function", "function": {"name": "sky", "arguments": '{"city": "Rome"}'}}
    turns = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "clear", "tool_call_id": "call_1"},
    ]
    tool = {"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}
    path.write_text(json.dumps({"messages": turns, "tools": [tool]}))
    (prompt,) = read_prompts(path)
    assert prompt.tools == (tool,)
    assert prompt.messages[1].tool_calls == (ToolCall("sky", {"city": "Rome"}, "call_1"),)
    assert prompt.messages[2] == Message("tool", "clear", tool_call_id="call_1")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rows_come_through_a_pipe_as_from_a_file(encoding):
    rows = '{"prompt": "Grüße"}\n\n{"messages": [{"role": "user", "content": "Why?"}]}'
    found = read_prompt_rows(io.BytesIO(rows.encode(encoding)))
    assert [(prompt.text, prompt.where) for prompt in found] == [
        ("Grüße", "standard input:1"),
        ("Why?", "standard input:3"),
    ]


def test_any_other_file_has_a_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffWhy?\r\n\n  an indent\u2028and more\n".encode())
    assert [(prompt.text, prompt.where) for prompt in read_prompts(path)] == [
        ("Why?", f"{path}:1"),
        ("  an indent\u2028and more", f"{path}:3"),
    ]


def test_all_rows_that_are_no_prompts_are_told_at_once(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "Why?"},
        {"question": "Why?"},
        {"prompt": " "},
        {"prompt": 3},
        {"messages": []},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [QUESTION, {"role": "assistant", "content": "So."}]},
        {"messages": [QUESTION], "prompt": "Why?"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "nonsense\n")
    with pytest.raises(DataError, match="8 problems") as caught:
        read_prompts(path)
    told = str(caught.value)
    for line, words in (
        (2, "neither 'prompt' nor"),
        (3, "'prompt' is empty"),
        (4, "'prompt' is"),
        (5, "'messages' is empty"),
        (6, "unknown role"),
        (7, "nothing left to answer"),
        (8, "both 'prompt' and 'messages'"),
        (9, "not JSON"),
    ):
        assert f"{path}:{line}: " in told
        assert words in told
    assert '{"prompt": "..."}' in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", b"\n \n", "there is no prompt in the file"),
        ("latin.txt", b"gr\xfc\xdfe\n", "the line is not UTF-8"),
        ("empty.jsonl", b"", "no rows"),
        ("absent.txt", None, "there is no such file"),
        ("absent.jsonl", None, "there is no such file"),
    ],
)
def test_a_file_without_prompts_is_an_error(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_prompts(tmp_path / name)

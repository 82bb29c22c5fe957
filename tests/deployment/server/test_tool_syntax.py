"""How a model writes calls is found in what its chat template writes."""

import json
import re
from pathlib import Path

import pytest
from tiny import CHATML, tiny_tokenizer
from tool_speaker import BARE, HERMES, LIST, TOLD, TURN, XML, tool_tokenizer

from mlxtune.deployment.server.tool_syntax import CALL, call_syntax, shows_tools


@pytest.mark.parametrize("special", [(), ("<tool_call>", "</tool_call>")])
def test_calls_between_marks(tmp_path, special):
    syntax = call_syntax(tool_tokenizer(tmp_path, HERMES, special=special))
    assert syntax.before == '<tool_call>\n{"name": "'
    assert syntax.between == '", "arguments": '
    assert syntax.after == "}\n</tool_call>"
    assert syntax.separator == '}\n</tool_call>\n<tool_call>\n{"name": "'
    assert syntax.arguments_key is None


def test_a_list_of_calls_with_ids_after_a_mark(tmp_path):
    syntax = call_syntax(tool_tokenizer(tmp_path, LIST, special=("[TOOL_CALLS]",)))
    assert syntax.before == '[TOOL_CALLS] [{"name": "'
    assert syntax.separator == f', "id": "{CALL.id}"}}, {{"name": "'
    assert syntax.after == f', "id": "{CALL.id}"}}]'


def test_a_call_that_is_a_bare_object_comes_alone(tmp_path):
    syntax = call_syntax(tool_tokenizer(tmp_path, BARE))
    assert json.loads(syntax.written()) == {"name": CALL.name, "parameters": CALL.arguments}
    assert syntax.arguments_key == "parameters"
    assert syntax.separator is None


REST = {
    "arguments that are no JSON": XML,
    "arguments as a text": HERMES.replace("tool_call.arguments | tojson", "tool_call.arguments | tojson | tojson"),
    "other arguments": HERMES.replace("tool_call.arguments | tojson", '{"mlxtune_key": 1} | tojson'),
    "no name": HERMES.replace("{{ tool_call.name }}", "tool_call.name"),
    "no calls": TOLD + TURN.replace("CALL", ""),
    "an object with more in it": BARE.replace('"parameters"', '"kind": 1, "parameters"'),
    "no object": BARE.replace('{"name": "', "call ").replace('", "parameters"', " "),
    "a template that refuses": "{{ raise_exception('no') }}",
    "no tools": CHATML,
}


@pytest.mark.parametrize("name", REST)
def test_other_ways_to_write_calls_have_no_syntax(tmp_path, name):
    assert call_syntax(tool_tokenizer(tmp_path, REST[name])) is None


def test_a_template_that_writes_one_call_only_has_no_separator(tmp_path):
    one = HERMES.replace("message.tool_calls or []", "(message.tool_calls or [])[:1]")
    assert call_syntax(tool_tokenizer(tmp_path, one)).separator is None


def test_a_template_shows_tools_or_not(tmp_path):
    assert shows_tools(tool_tokenizer(tmp_path / "1", HERMES))
    assert not shows_tools(tool_tokenizer(tmp_path / "2", TURN))
    assert not shows_tools(tiny_tokenizer(tmp_path / "1"))
    assert not shows_tools(tool_tokenizer(tmp_path / "3", "{{ raise_exception('no') }}"))


FOLDER = Path(__file__).resolve().parents[4] / "shared" / "data" / "chat_templates"
SPECIAL = re.compile(r"<\|[a-z_]+\|>|</?s>|<(?:start|end)_of_turn>|\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS)\]")
ARGUMENTS = '{"mlxtune_key": "mlxtune_value"}'
CALLS = {
    "llama-3.1": f'{{"name": "mlxtune_name", "parameters": {ARGUMENTS}}}',
    "qwen2.5": f'<tool_call>\n{{"name": "mlxtune_name", "arguments": {ARGUMENTS}}}\n</tool_call>',
    "mistral-nemo-instruct-2407": '[TOOL_CALLS][{"name": "mlxtune_name", "arguments": '
    f'{ARGUMENTS}, "id": "mlxtune01"}}]',
    "gemma-3": None,
    "smollm3": None,
}
CALLS |= {"llama-3.2": CALLS["llama-3.1"], "qwen3": CALLS["qwen2.5"]}


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"needs the chat templates in {FOLDER}")
def test_real_templates_write_calls_as_their_families_do(tmp_path):
    lines = (FOLDER / "templates.jsonl").read_text(encoding="utf-8").split("\n")
    templates = {row["template"]: row["chat_template"] for row in map(json.loads, filter(None, lines))}
    found = {}
    for name in CALLS:
        special = tuple(sorted(set(SPECIAL.findall(templates[name]))))
        syntax = call_syntax(tool_tokenizer(tmp_path / name, templates[name], special=special))
        found[name] = None if syntax is None else syntax.written()
    assert found == CALLS

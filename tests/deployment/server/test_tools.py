"""Tools are checked, calls that have to come come, and calls are read from the text of an answer as it streams."""

import itertools
import json

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import VOCABULARY_SIZE, tiny_llama, tiny_tokenizer
from tool_speaker import BARE, HERMES, LIST, TOLD, TURN, XML, tool_tokenizer

from mlxtune.data.example import ToolCall
from mlxtune.deployment.server.errors import ApiError
from mlxtune.deployment.server.tools import ToolStream, check_tools, tool_constraint
from mlxtune.inference.constrain import Grammars
from mlxtune.inference.engine import Engine, Request
from mlxtune.inference.sampling import Sampling
from mlxtune.inference.text_stream import decode

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"city": {"type": "string", "maxLength": 6}},
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name="get_weather", **function):
    return {"type": "function", "function": {"name": name, **function}}


TOOLS = (tool(description="Tells it", parameters=CITY), tool("get"))
SCHEMAS = {"get_weather": CITY, "get": NOTHING}
KINDS = {
    "hermes": (HERMES, ()),
    "marks that are tokens": (HERMES, ("<tool_call>", "</tool_call>")),
    "list": (LIST, ("[TOOL_CALLS]",)),
    "bare": (BARE, ()),
}


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speakers")
    return {name: tool_tokenizer(folder / name, kind, special=special) for name, (kind, special) in KINDS.items()}


@pytest.fixture(scope="module", params=KINDS)
def speaker(request, speakers):
    return speakers[request.param]


@pytest.fixture(scope="module")
def hermes(speakers):
    return speakers["hermes"]


def refusal(function, *arguments, **options):
    with pytest.raises(ApiError) as caught:
        function(*arguments, **options)
    assert caught.value.status == 400
    return caught.value


# --- what a request may offer


def test_tools_are_taken_as_they_are_but_for_strict(hermes):
    assert check_tools([tool(parameters=CITY, strict=True, description=None)], hermes) == (tool(parameters=CITY),)
    assert check_tools([], hermes) == ()


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (["x"], "tools[0] is a string, not an object"),
        ([tool(), {"type": "web_search"}], 'tools[1] is not {"type": "function"'),
        ([{"type": "function", "function": 3}], 'tools[0] is not {"type": "function"'),
        ([tool("a b")], "tools[0].function.name is not 1 to 64 of letters"),
        ([tool("x" * 65)], "tools[0].function.name is not 1 to 64 of letters"),
        ([tool(None)], "tools[0].function.name is not"),
        ([tool(parameters=[])], "tools[0].function.parameters is a list, not a JSON schema, an object"),
        ([tool(parameters={"type": "string"})], "tools[0].function.parameters is not the schema of an object"),
        ([tool(description=1)], "tools[0].function.description is a number, not a string"),
        ([tool(), tool()], "two tools are called get_weather; give each a name of its own"),
        ([tool(f"t{i}") for i in range(129)], "there are 129 tools; at most 128 are taken"),
    ],
)
def test_a_tool_that_is_none_is_named(hermes, tools, expected):
    error = refusal(check_tools, tools, hermes)
    assert error.message.startswith(expected)
    assert error.param == "tools"


def test_a_model_that_cannot_be_told_of_tools_refuses_them(tmp_path):
    for i, template in enumerate([TURN, None]):
        error = refusal(check_tools, TOOLS, tiny_tokenizer_in(tmp_path / str(i), template))
        assert "its chat template has no place for them" in error.message
        assert error.param == "tools"


def test_a_model_whose_calls_nobody_could_read_refuses_tools(tmp_path):
    error = refusal(check_tools, TOOLS, tool_tokenizer(tmp_path, TOLD + TURN.replace("CALL", "<call>")))
    assert "calls cannot be read" in error.message


def tiny_tokenizer_in(folder, template):
    folder.mkdir()
    return tiny_tokenizer(folder, chat_template=template)


# --- calls that have to come


def called(tokenizer, text, tools=TOOLS, size=1):
    """What is read of ``text`` that comes in pieces: content, and the names and arguments of calls."""
    stream = ToolStream(tokenizer, tools)
    reads = [stream.add(text[i : i + size]) for i in range(0, len(text), size)] + [stream.finish()]
    return "".join(content for content, _ in reads), [
        (call.name, call.arguments) for _, calls in reads for call in calls
    ]


def walk(state, tokenizer, seed, most=500):
    draw, tokens = np.random.default_rng(seed), []
    for _ in range(most):
        allowed = np.flatnonzero(state.allowed())
        if 2 in allowed and (len(allowed) == 1 or draw.random() < 0.5):
            return decode(tokenizer, tokens)
        tokens.append(int(draw.choice(allowed[allowed != 2])))
        state.accept(tokens[-1])
    return None


def constrained(tokenizer, choice, **options):
    grammars = Grammars(tokenizer, VOCABULARY_SIZE)
    return tool_constraint(grammars, tokenizer, TOOLS, choice, **options)


def test_required_calls_some_tools_and_says_nothing_else(speaker):
    names, counts = set(), set()
    for seed in range(30):
        text = walk(constrained(speaker, "required"), speaker, seed)
        if text is None:
            continue
        content, calls = called(speaker, text)
        assert content == ""
        assert calls
        counts.add(len(calls))
        for name, arguments in calls:
            names.add(name)
            jsonschema_rs.validate(SCHEMAS[name], arguments)
    assert names == set(SCHEMAS)
    assert (max(counts) > 1) == (speaker.tool_call_start is not None)


def test_one_call_at_most_where_calls_in_parallel_are_not_wanted(speaker):
    texts = [walk(constrained(speaker, "required", parallel=False), speaker, seed) for seed in range(15)]
    assert {len(called(speaker, text)[1]) for text in texts if text is not None} == {1}


def test_a_named_tool_is_called_once(speaker):
    choice = {"type": "function", "function": {"name": "get"}}
    for seed in range(8):
        assert called(speaker, walk(constrained(speaker, choice), speaker, seed)) == ("", [("get", {})])


@pytest.mark.parametrize("choice", [None, "none", "auto"])
def test_an_answer_is_free_where_no_call_has_to_come(hermes, choice):
    assert constrained(hermes, choice) is None


def test_a_call_is_written_as_the_model_learned_to(hermes):
    state = constrained(hermes, "required")
    learned = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call>'
    for token in hermes.encode(learned + "\n" + learned):
        assert state.allowed()[token]
        state.accept(token)
    assert state.is_complete


def test_the_engine_calls_as_it_has_to(hermes):
    engine = Engine(tiny_llama(hidden=32, heads=2, kv_heads=1), hermes)
    found = {}
    for seed in range(6):
        sampling = Sampling(max_tokens=300, temperature=1.0, seed=seed)
        found[engine.submit(Request([5, 6], sampling, constraint=constrained(hermes, "required")))] = ["", None]
    while not engine.is_idle:
        for piece in engine.step():
            found[piece.ticket][0] += piece.text
            found[piece.ticket][1] = piece.finish_reason
    ended = [text for text, reason in found.values() if reason == "stop"]
    assert ended
    for text in ended:
        content, calls = called(hermes, text)
        assert content == ""
        assert calls
        for name, arguments in calls:
            jsonschema_rs.validate(SCHEMAS[name], arguments)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (
            {"type": "function", "function": {"name": "other"}},
            "tool_choice names 'other', and the tools are: get_weather",
        ),
        ("any", "tool_choice is not none, auto, required or"),
        ({"type": "allowed_tools"}, "tool_choice is not none, auto, required or"),
        ({"type": "function", "function": {}}, "tool_choice is not none, auto, required or"),
        (3, "tool_choice is not none, auto, required or"),
    ],
)
def test_a_choice_that_is_none_is_refused(hermes, choice, expected):
    error = refusal(constrained, hermes, choice)
    assert error.message.startswith(expected)
    assert error.param == "tool_choice"


def test_a_call_cannot_be_asked_for_without_tools(hermes):
    error = refusal(tool_constraint, Grammars(hermes, VOCABULARY_SIZE), hermes, (), "required")
    assert error.param == "tool_choice"


def test_a_model_that_writes_calls_otherwise_cannot_be_made_to(tmp_path):
    speaker = tool_tokenizer(tmp_path, XML)
    assert check_tools(TOOLS, speaker) == TOOLS
    error = refusal(constrained, speaker, "required")
    assert error.message.startswith("this model cannot be made to call a function")
    assert error.param == "tool_choice"


def test_a_schema_that_cannot_be_followed_is_named_by_its_tool(hermes):
    tools = [tool(), tool("odd", parameters={"type": "object", "properties": {"a": {"not": {}}}})]
    grammars = Grammars(hermes, VOCABULARY_SIZE)
    error = refusal(tool_constraint, grammars, hermes, tools, "required")
    assert error.message.startswith("the parameters of odd: the schema cannot be followed: ")
    assert "not (at #/properties/a)" in error.message
    assert error.param == "tools"
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert tool_constraint(grammars, hermes, tools, named) is not None


def test_tools_that_cost_too_much_together_are_refused(hermes):
    parameters = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 4000}}}
    tools = [tool(f"t{i}", parameters=parameters) for i in range(3)]
    error = refusal(tool_constraint, Grammars(hermes, VOCABULARY_SIZE), hermes, tools, "required")
    assert error.message.startswith("the tools together: the schemas have too many units in multipleOf")
    assert error.param == "tools"


# --- calls as they come


CALL = '<tool_call>\n{"name": "get", "arguments": {"a": "</x>"}}\n</tool_call>'
ONE = ("get", {"a": "</x>"})
ANSWERS = {
    "no call": ("Hello, <b>you</b>.\n", ("Hello, <b>you</b>.\n", [])),
    "a call": (CALL, ("", [ONE])),
    "words before": ("Let me look.\n" + CALL, ("Let me look.\n", [ONE])),
    "white space around": ("\n\n" + CALL + "\n", ("", [ONE])),
    "two calls": (CALL + "\n" + CALL, ("", [ONE, ONE])),
    "words after": (CALL + "\nThere.", ("\nThere.", [ONE])),
    "no JSON": ("<tool_call>get()</tool_call>", ("<tool_call>get()</tool_call>", [])),
    "no JSON, then a call": ("<tool_call>?</tool_call>" + CALL, ("<tool_call>?</tool_call>", [ONE])),
    "JSON that is no call": ("<tool_call>[1]</tool_call>", ("<tool_call>[1]</tool_call>", [])),
    "no name": ('<tool_call>{"arguments": {}}</tool_call>', ('<tool_call>{"arguments": {}}</tool_call>', [])),
    "no finite number": (
        '<tool_call>{"name": "a", "arguments": {"a": NaN}}</tool_call>',
        ('<tool_call>{"name": "a", "arguments": {"a": NaN}}</tool_call>', []),
    ),
    "arguments as text": ('<tool_call>{"name": "a", "arguments": "{}"}</tool_call>', ("", [("a", {})])),
    "cut short": (CALL[:30], (CALL[:30], [])),
    "a mark that is missing": (CALL[:-13], ("", [ONE])),
    "half a mark": ("see <tool_", ("see <tool_", [])),
    "only white space": (" \n", (" \n", [])),
    "nothing": ("", ("", [])),
}


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("name", ANSWERS)
def test_calls_are_read_however_the_text_is_cut(hermes, name, size):
    text, expected = ANSWERS[name]
    assert called(hermes, text, size=size) == expected


PARTS = ["<tool_call>", "</tool_call>", "<", "tool", '{"name": "a", "arguments": {}}', " ", "x"]


@given(text=st.lists(st.sampled_from(PARTS), max_size=12).map("".join), cuts=st.sets(st.integers(0, 80)))
def test_what_is_read_does_not_depend_on_where_the_text_is_cut(hermes, text, cuts):
    stream, content, calls = ToolStream(hermes, TOOLS), "", []
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    for read in [*(stream.add(text[a:b]) for a, b in itertools.pairwise(places)), stream.finish()]:
        content, calls = content + read[0], calls + [(call.name, call.arguments) for call in read[1]]
    assert (content, calls) == called(hermes, text, size=1000)


def test_words_are_given_out_at_once_and_a_call_when_it_is_whole(hermes):
    stream = ToolStream(hermes, TOOLS, new_id=lambda: "call00001")
    assert stream.add("Let me") == ("Let me", [])
    assert stream.add(" look <") == (" look ", [])
    assert stream.add("tool_call>") == ("", [])
    assert stream.add('{"name": "get", "arguments": {}}</tool_call') == ("", [])
    assert stream.add(">") == ("", [ToolCall("get", {}, "call00001")])
    assert stream.finish() == ("", [])


def test_ids_are_the_models_or_new_ones_that_any_template_takes(hermes, speakers):
    listed = ToolStream(speakers["list"], TOOLS)
    listed.add('[TOOL_CALLS] [{"name": "get", "arguments": {}, "id": "abcdefghi"}]')
    assert listed.finish()[1] == [ToolCall("get", {}, "abcdefghi")]
    ids = {ToolStream(hermes, TOOLS).add(CALL)[1][0].id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(one) == 9 and one.isalnum() and one.isascii() for one in ids)


@pytest.mark.parametrize("size", [1, 1000])
def test_a_bare_object_is_a_call_only_if_it_is_one_of_a_tool(speakers, size):
    bare = speakers["bare"]
    call = json.dumps({"name": "get", "parameters": {"a": 1}})
    assert called(bare, call, size=size) == ("", [("get", {"a": 1})])
    for text in (
        json.dumps({"name": "other", "parameters": {}}),
        json.dumps({"name": "get", "parameters": {}, "more": 1}),
        json.dumps({"answer": 1}),
        "Here: " + call,
        call + " and more",
        "{",
    ):
        assert called(bare, text, size=size) == (text, [])


def failing(text, tools):
    raise LookupError(text)


def test_a_parser_that_fails_in_any_way_leaves_the_text_as_content(hermes):
    deep = "<tool_call>" + "[" * 100_000 + "</tool_call>"
    assert called(hermes, deep, size=100_000) == (deep, [])
    stranger = ToolStream(hermes, TOOLS)
    stranger._parse = failing
    assert stranger.add(CALL) == (CALL, [])


def test_parsers_that_want_the_tools_get_them(tmp_path):
    speaker = tool_tokenizer(tmp_path, XML)
    text = "<tool_call>\n<function=get_weather>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
    assert called(speaker, text) == ("", [("get_weather", {"days": 3})])


def test_a_model_without_any_calls_says_everything_as_content(tmp_path):
    assert called(tiny_tokenizer(tmp_path), CALL) == (CALL, [])

"""Real models' chat templates: each is rendered as its reference has it, and what is learned of a chat is the answers,
their calls and their ends, or the template is refused with the reason.

The templates are other people's and lie beside the checkout, where they are; tests of each kind of template that need
nothing from there are in test_kinds_of_chat_templates.py.
"""

import json
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from mlx_lm.tokenizer_utils import load
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mlxtune.data.example import Example, Message, ToolCall
from mlxtune.data.render import Renderer
from mlxtune.data.rendering.chat_text import ChatTemplate
from mlxtune.errors import DataError

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "chat_templates"
SPECIAL = re.compile(r"<\|[a-z_]+\|>|</?s>|<bos>|<eos>|<(?:start|end)_of_turn>|\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS)\]")
DATE = re.compile(r"(?<=Today Date: )26 Jul 2024")  # one reference was given a day of its own
NOON = datetime(2025, 7, 10, 12)  # noqa: DTZ001 - as the references were made

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"needs the chat templates in {FOLDER}")

END = {"llama": "<|eot_id|>", "gemma": "<end_of_turn>", "phi": "<|end|>", "mistral": "</s>"}
CALL = ToolCall("get_weather", {"city": "Rome", "days": 3}, id="abcdefghi")
ARGUMENTS = '{"city": "Rome", "days": 3}'
TOOLS = (
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "Tells it", "parameters": {"type": "object"}},
    },
)
ASKED = Message("user", "Weather?")
CALLED = Message("assistant", "", tool_calls=(CALL,))
RESULT = Message("tool", '{"sky": "clear"}', tool_call_id="abcdefghi", name="get_weather")
CHATS = {
    "one answer": [("user", "Hi there"), ("assistant", "Hello\n\nyou")],
    "two answers": [("user", "Hi"), ("assistant", "Hello you"), ("user", "More?"), ("assistant", "Done. é")],
    "system": [("system", "Be brief"), ("user", "Hi"), ("assistant", "A"), ("user", "More?"), ("assistant", "B")],
}
CHATS = {name: [Message(*turn) for turn in turns] for name, turns in CHATS.items()} | {
    "call": [ASKED, CALLED],
    "call and result": [ASKED, CALLED, RESULT, Message("assistant", "It is clear.")],
    "thoughts": [Message("user", "Hi"), Message("assistant", "Hello", thinking="They greet.")],
}
HERMES = f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call><|im_end|>'
LLAMA = f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}<|eot_id|>'
MISTRAL = f'{{"name": "get_weather", "arguments": {ARGUMENTS}, "id": "abcdefghi"}}'
CALLS = {
    "llama-3.1": LLAMA,
    "llama-3.2": LLAMA,
    "qwen2.5": HERMES,
    "qwen3": HERMES,
    "mistral-7b-instruct-v0.3": f" [TOOL_CALLS] [{MISTRAL}] </s>",
    "mistral-nemo-instruct-2407": f"[TOOL_CALLS][{MISTRAL}]</s>",
}
NO_TOOLS = ("llama-3", "gemma-2", "gemma-3", "phi-3", "phi-3.5", "mistral-7b-instruct-v0.1", "smollm2")
REFUSED = {
    # an earlier answer loses the room for thoughts that generation would have given it
    ("qwen3", "two answers"): "rewrites earlier turns",
    ("qwen3", "system"): "rewrites earlier turns",
    ("qwen3", "call and result"): "rewrites earlier turns",
    ("gemma-2", "system"): "System role not supported",
    ("mistral-7b-instruct-v0.1", "system"): "roles must alternate",
    # the first drops a system message; the second has it in the last turn alone, if that is the user's
    ("mistral-7b-instruct-v0.3", "system"): "words of messages[0] (system)",
    ("mistral-nemo-instruct-2407", "system"): "words of messages[0] (system)",
    ("smollm3", "call"): "leaves out or changes a tool call of messages[1]",
    ("smollm3", "call and result"): "leaves out or changes a tool call of messages[1]",
    **{(name, "call"): "leaves out the tools" for name in NO_TOOLS},
    # some for the turn of a role that they do not know
    **{(name, "call and result"): "roles must alternate" for name in NO_TOOLS if name[:5] in ("gemma", "mistr")},
    **{(name, "call and result"): "words of messages[2] (tool)" for name in ("phi-3", "phi-3.5")},
    **{(name, "call and result"): "leaves out the tools" for name in ("llama-3", "smollm2")},
}


def read(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").split("\n") if line]


def templates():
    return {row["template"]: row["chat_template"] for row in read("templates.jsonl")} if FOLDER.is_dir() else {}


def tokenizer_for(folder, template, texts, named):
    """A tokenizer of bytes with a template, and the special tokens that it and these texts have."""
    special = sorted({*SPECIAL.findall(template + "".join(texts)), *named.values()})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate([*special, *alphabet])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in special])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load(folder)


def named_tokens(data):
    return {key: data[key] for key in ("bos_token", "eos_token") if data.get(key)}


@pytest.fixture(params=templates())
def named_tokenizer(request, tmp_path):
    """A template's name, and a tokenizer of bytes with it."""
    cases = [row for row in read("rendered.jsonl") if row["template"] == request.param]
    texts = [case.get("expected", "") for case in cases]
    template = templates()[request.param]
    return request.param, tokenizer_for(tmp_path, template, texts, named_tokens(cases[0]["data"]))


def example_of(chat, name=""):
    tools = TOOLS if "call" in name else ()
    return Example("chat", "rows.jsonl:1", messages=tuple(chat), tools=tools)


def end_of(name):
    return END.get(name.split("-")[0], "<|im_end|>")


def expected_of(name, chat):
    """What is learned of a chat, by hand."""
    space = " " if name == "mistral-7b-instruct-v0.3" else ""
    said = ""
    for message in chat:
        if message.role == "assistant":
            said += CALLS[name] if message.tool_calls else space + message.content + space + end_of(name)
    return said


@pytest.mark.parametrize("chat", [name for name in CHATS if name != "thoughts"])
def test_the_learned_text_is_the_answers_and_their_ends_or_the_template_is_refused(named_tokenizer, chat):
    name, tokenizer = named_tokenizer
    example = example_of(CHATS[chat], chat)
    if (name, chat) in REFUSED:
        with pytest.raises(DataError, match=re.escape(REFUSED[name, chat])) as caught:
            Renderer(tokenizer).render(example, "completions")
        assert caught.value.where == "rows.jsonl:1"
        assert caught.value.remedy
        return
    row = Renderer(tokenizer).render(example, "completions")
    assert tokenizer.decode(row.token_ids[row.is_target].tolist()) == expected_of(name, CHATS[chat])


@pytest.mark.parametrize("chat", [name for name in CHATS if name != "thoughts"])
def test_an_answer_is_asked_for_as_it_was_trained(named_tokenizer, chat):
    name, tokenizer = named_tokenizer
    example = example_of(CHATS[chat], chat)
    try:
        row = Renderer(tokenizer).render(example, "last_completion")
    except DataError:
        assert (name, chat) in REFUSED
        return
    prompt, answer = Renderer(tokenizer).prompt(example, None)
    first = int(np.flatnonzero(row.is_target)[0])
    assert row.token_ids[:first].tolist() == prompt
    learned = tokenizer.decode(row.token_ids[first:].tolist())
    assert learned.removesuffix(end_of(name)).strip() == answer


def test_thoughts_are_learned_where_the_template_has_a_place_for_them(named_tokenizer):
    name, tokenizer = named_tokenizer
    if name != "qwen3":
        with pytest.raises(DataError, match="has no place for the thoughts of messages"):
            Renderer(tokenizer).render(example_of(CHATS["thoughts"]), "completions")
        return
    row = Renderer(tokenizer).render(example_of(CHATS["thoughts"]), "completions")
    learned = tokenizer.decode(row.token_ids[row.is_target].tolist())
    assert learned == "<think>\nThey greet.\n</think>\n\nHello<|im_end|>"


def test_thoughts_in_an_answers_words_are_learned_as_they_are_where_the_template_leaves_them(named_tokenizer):
    name, tokenizer = named_tokenizer
    words = "<think>\nThey greet.\n</think>\n\nHello"
    row = Renderer(tokenizer).render(example_of([Message("user", "Hi"), Message("assistant", words)]), "completions")
    assert tokenizer.decode(row.token_ids[row.is_target].tolist()) == expected_of(name, [Message("assistant", words)])


def test_qwen3_drops_the_thoughts_of_earlier_answers_in_training_as_in_generation(tmp_path):
    name = "qwen3"
    if name not in templates():
        pytest.skip("needs its template")
    tokenizer = tokenizer_for(tmp_path, templates()[name], [], {"eos_token": "<|im_end|>"})
    earlier = Message("assistant", "Hello", thinking="They greet.")
    chat = [Message("user", "Hi"), earlier, Message("user", "More?"), Message("assistant", "Done", thinking="Enough.")]
    row = Renderer(tokenizer).render(example_of(chat), "last_completion")
    text = tokenizer.decode(row.token_ids.tolist())
    assert "They greet." not in text
    assert tokenizer.decode(row.token_ids[row.is_target].tolist()) == "<think>\nEnough.\n</think>\n\nDone<|im_end|>"


def test_each_template_renders_a_chat_as_its_reference_has_it(named_tokenizer):
    name, tokenizer = named_tokenizer
    template = ChatTemplate(tokenizer, clock=lambda: NOON)
    compared = 0
    for case in read("rendered.jsonl"):
        if case["template"] == name:
            expected = case.get("expected", f"refused: {case.get('raises')}")
            if name == "llama-3.2":
                expected = DATE.sub("10 Jul 2025", expected)
            assert rendered(template, case) == expected
            compared += 1
    assert compared == 9


@pytest.mark.parametrize("number", range(14))
def test_a_template_with_tools_renders_a_chat_as_its_reference_has_it(tmp_path, number):
    case = read("cases.jsonl")[number]
    tokenizer = tokenizer_for(tmp_path, case["chat_template"], [case["expected"]], named_tokens(case["data"]))
    assert rendered(ChatTemplate(tokenizer, clock=lambda: NOON), case) == case["expected"]


def rendered(template, case):
    data = case["data"]
    try:
        return template.text(
            [message_of(turn) for turn in data["messages"]],
            "rows.jsonl:1",
            tools=data.get("tools", ()),
            generation_prompt=data.get("add_generation_prompt", False),
            thinking=data.get("enable_thinking", True),  # which is what templates take it for
        )
    except DataError as error:
        return error.message.replace("the chat template refuses the messages: ", "refused: ")


def message_of(turn):
    calls = [(call["function"], call.get("id", "")) for call in turn.get("tool_calls", ())]
    return Message(
        turn["role"],
        turn.get("content") or "",
        tool_calls=tuple(ToolCall(own["name"], own["arguments"], call_id) for own, call_id in calls),
        tool_call_id=turn.get("tool_call_id", ""),
        name=turn.get("name", ""),
    )

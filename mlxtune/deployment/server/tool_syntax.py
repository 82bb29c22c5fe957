"""How a model writes a call of a function, found by having its chat template write one.

A template writes the calls of earlier turns as the model was trained to write its own: what stands before a call's
name, between the name and the arguments, between two calls, and at the end. That is all a grammar of calls needs, where
the arguments are a JSON object; families that write them otherwise have no such syntax. Knows nothing of requests.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlxtune.data.example import Message, ToolCall
from mlxtune.data.rendering.chat_text import ChatTemplate
from mlxtune.errors import DataError

QUESTION = "mlxtune_question"
CALL = ToolCall("mlxtune_name", {"mlxtune_key": "mlxtune_value"}, "mlxtune01")
TOOL = {
    "type": "function",
    "function": {
        "name": CALL.name,
        "description": "mlxtune_description",
        "parameters": {"type": "object", "properties": {"mlxtune_key": {"type": "string"}}},
    },
}
TOKENIZERS = 8
"""Whose syntax is remembered; a server has one for each model, and finding it takes some renderings."""


@dataclass(frozen=True)
class CallSyntax:
    """The text around the names and arguments of calls; an id that the model makes up stands there as `CALL`'s."""

    before: str
    between: str
    after: str
    separator: str | None
    """Between the arguments of a call and the name of the next; None where an answer has one call."""
    arguments_key: str | None
    """What the arguments are called, where a call is one JSON object and no marks stand around it."""

    def written(self) -> str:
        """`CALL`, as the model writes it."""
        return self.before + CALL.name + self.between + json.dumps(CALL.arguments) + self.after


@lru_cache(TOKENIZERS)
def shows_tools(tokenizer: Any) -> bool:
    """Whether the chat template tells a model of the functions that it may call."""
    template, asked = ChatTemplate(tokenizer), [Message("user", QUESTION)]
    try:
        return "mlxtune_description" in template.text(asked, "the request", tools=(TOOL,), generation_prompt=True)
    except DataError:
        return False


@lru_cache(TOKENIZERS)
def call_syntax(tokenizer: Any) -> CallSyntax | None:
    """How calls are written; None where the template writes none, or not a name and then arguments as JSON."""
    template = ChatTemplate(tokenizer)
    one = _written(template, 1)
    if one is None:
        return None
    before, between, after = one
    arguments_key = None
    if tokenizer.has_tool_calling:
        start, end = tokenizer.tool_call_start, tokenizer.tool_call_end
        if (at := before.rfind(start)) < 0 or end not in after:
            return None
        before = before[at:]
        after = after[: after.index(end) + len(end)] if end else _until_special(tokenizer, after)
    else:
        before, after = before[before.rfind("{") :], _until_special(tokenizer, after)
        try:
            call = json.loads(before + CALL.name + between + json.dumps(CALL.arguments) + after)
        except ValueError:
            return None
        keys = [key for key in call if key != "name"] if isinstance(call, dict) else []
        if len(keys) != 1 or call != {"name": CALL.name, keys[0]: CALL.arguments}:
            return None
        arguments_key = keys[0]
    two = _written(template, 2) if arguments_key is None else None  # a bare object is an answer's only one
    separator = two[2] if two is not None and two[1] == two[3] == between else None
    return CallSyntax(before, between, after, separator, arguments_key)


def _written(template: ChatTemplate, count: int) -> list[str] | None:
    """The text around the names and arguments of so many calls: before, (between, next)...; None where none is found.

    The arguments may be written with any white space, but as a JSON object.
    """
    turns = [Message("user", QUESTION), Message("assistant", "", tool_calls=(CALL,) * count)]
    try:
        text = template.text(turns, "the request", tools=(TOOL,))
    except DataError:
        return None
    rest = text.rpartition(QUESTION)[2]
    found = []
    for _ in range(count):
        before, name, rest = rest.partition(CALL.name)
        start = rest.find("{")
        if not name or start < 0:
            return None
        try:
            arguments, end = json.JSONDecoder().raw_decode(rest, start)
        except ValueError:
            return None
        if arguments != CALL.arguments:
            return None
        found += [before, rest[:start]]
        rest = rest[end:]
    return [*found, rest]


def _until_special(tokenizer: Any, text: str) -> str:
    """``text`` up to the special token that ends the turn."""
    places = [at for name in special_names(tokenizer).values() if (at := text.find(name)) >= 0]
    return text[: min(places, default=len(text))].rstrip()


def special_names(tokenizer: Any) -> dict[int, str]:
    """Special tokens by number."""
    return {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special and token.content}

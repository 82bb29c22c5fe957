"""Records of any known form into examples of one shape.

Three forms: chat (``messages``), prompt and completion, and plain text. Knows keys and roles; nothing of tokens. A
file has one form: rows of two forms, or rows that fit two, are refused with the candidates instead of guessed at.
A key that changes what a row means and is not understood (tools, weights) is refused; any other extra key is ignored.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlxtune.data.faults import Fault, refuse
from mlxtune.data.read import REMEDY, Record, scan_records
from mlxtune.errors import DataError
from mlxtune.json_text import name_of_type
from mlxtune.recipe.choices import Form

Role = Literal["system", "user", "assistant"]

KEYS: dict[Form, tuple[str, ...]] = {
    "chat": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}
"""The keys that a row of each form has."""

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
NOT_UNDERSTOOD = ("tools", "functions", "chosen", "rejected")
NOT_UNDERSTOOD_IN_MESSAGE = (
    "tool_calls",
    "tool_call_id",
    "function_call",
    "reasoning_content",
    "thinking",
    "weight",
    "train",
)
HARMLESS = (None, True, 1, "", [], {})
"""Values of those keys that say no more than their absence does."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row in the shape that all forms are brought to.

    ``messages`` ends with an assistant's turn. A prompt and its completion are one user's and one assistant's turn; a
    text row has no messages, and ``text`` instead. ``where`` is ``file:line``.
    """

    kind: Form
    where: str
    messages: tuple[Message, ...] = ()
    text: str = ""


def read_examples(path: Path, format: Literal["auto"] | Form = "auto") -> list[Example]:  # noqa: A002 - the recipe's key
    """The examples of a JSONL file, in order: `read_records` and `normalize`, with the faults of both told at once.

    Raises: DataError, as those two do.
    """
    records, faults = scan_records(path)
    if not records:
        refuse(faults, path=path, remedy=REMEDY)
    return _normalize(records, format, faults)


def shared_system(examples: Sequence[Example]) -> str | None:
    """The system message that all ``examples`` begin with alike; None if one has another or none."""
    first = {example.messages[0] if example.messages else None for example in examples}
    only = first.pop() if len(first) == 1 else None
    return only.content if only is not None and only.role == "system" else None


def normalize(records: Sequence[Record], format: Literal["auto"] | Form = "auto") -> list[Example]:  # noqa: A002 - the recipe's key
    """The examples of one file's records, in order.

    Raises: DataError, for all rows at once that lack a key of their form or hold something other than text in it, an
        empty turn, an unknown role, a system message that is not the first, no assistant's message or none at the
        end, or a key that is not understood; and as `detect_format` does.
    """
    return _normalize(records, format, [])


def _normalize(records: Sequence[Record], chosen: Literal["auto"] | Form, faults: Sequence[Fault]) -> list[Example]:
    """`normalize`, where ``faults`` are known already and told with those found here."""
    path = records[0].path
    try:
        form = detect_format(records) if chosen == "auto" else chosen
    except DataError:
        refuse(faults, path=path, remedy=REMEDY)
        raise
    examples: list[Example] = []
    found: list[Fault] = []
    for record in records:
        example, wrong = _FROM[form](record)
        found += [Fault(record.where, message) for message in wrong]
        examples.append(example)
    keys = " and ".join(f'"{key}"' for key in KEYS[form])
    told = " (chosen by data.format: auto)" if chosen == "auto" else ""
    remedy = f"mend these rows or take them out; a row of the form {form}{told} has {keys}"
    refuse(sorted([*faults, *found], key=lambda fault: fault.line), path=path, remedy=remedy if found else REMEDY)
    return examples


def detect_format(records: Sequence[Record]) -> Form:
    """The one form whose keys the rows have. A row that has no form's keys is no obstacle here, a fault later.

    Raises: DataError, if no row has a form's keys, or the rows have those of more than one, with the candidates.
    """
    counts: Counter[Form] = Counter()
    first: dict[Form, Record] = {}
    for record in records:
        for form, keys in KEYS.items():
            if all(key in record.fields for key in keys):
                counts[form] += 1
                first.setdefault(form, record)
    if len(counts) == 1:
        return next(iter(counts))
    path = records[0].path
    if counts:
        candidates = ", ".join(f"{form} ({counts[form]} rows, first in line {first[form].line})" for form in first)
        remedy = f"set data.format to {' or '.join(first)}, and keep one form a file"
        raise DataError(f"the rows fit more than one form: {candidates}", where=path, remedy=remedy)
    found = ", ".join(sorted(set().union(*(record.fields for record in records[:100])))[:20]) or "none"
    wanted = "; ".join(f"{form}: {', '.join(keys)}" for form, keys in KEYS.items())
    raise DataError(
        f"the rows fit no known form; keys found: {found}", where=path, remedy=f"name the keys so: {wanted}"
    )


def _from_chat(record: Record) -> tuple[Example, list[str]]:
    wrong = _not_understood(record.fields, NOT_UNDERSTOOD)
    messages: list[Message] = []
    rows = record.fields.get("messages")
    if "messages" not in record.fields:
        wrong.append("the key 'messages' is missing")
    elif not isinstance(rows, list):
        wrong.append(f"'messages' is {name_of_type(rows)}, not a list")
    elif not rows:
        wrong.append("'messages' is empty")
    else:
        for i, fields in enumerate(rows):
            message, faults = _message(fields, i)
            wrong += [f"messages[{i}]: {fault}" for fault in faults]
            if message is not None:
                messages.append(message)
        # The order of roles is judged only where all roles are known.
        if len(messages) == len(rows):
            if all(message.role != "assistant" for message in messages):
                wrong.append("there is no assistant message, so nothing to learn")
            elif messages[-1].role != "assistant":
                wrong.append(f"the last message is the {messages[-1].role}'s; nothing after the last answer is learned")
    return Example("chat", record.where, messages=tuple(messages)), wrong


def _message(fields: Any, i: int) -> tuple[Message | None, list[str]]:
    """One message, or None where its role cannot be known, and what is wrong with it."""
    if not isinstance(fields, dict):
        return None, [f"{name_of_type(fields)} where an object with role and content should be"]
    wrong = _not_understood(fields, NOT_UNDERSTOOD_IN_MESSAGE)
    role = fields.get("role")
    if role == "system" and i > 0:
        wrong.append("a system message can only be the first")
    wrong += _text_faults(fields, "content", may_be_empty=role == "system")
    if role not in ROLES:
        shown = "the key 'role' is missing" if "role" not in fields else f"unknown role {role!r:.40}"
        return None, [f"{shown} (known: {', '.join(ROLES)})", *wrong]
    content = fields.get("content")
    return Message(role, content if isinstance(content, str) else ""), wrong


def _from_prompt_completion(record: Record) -> tuple[Example, list[str]]:
    wrong = _not_understood(record.fields, NOT_UNDERSTOOD)
    wrong += _text_faults(record.fields, "prompt") + _text_faults(record.fields, "completion")
    prompt, completion = (str(record.fields.get(key)) for key in ("prompt", "completion"))
    messages = (Message("user", prompt), Message("assistant", completion))
    return Example("prompt_completion", record.where, messages=messages), wrong


def _from_text(record: Record) -> tuple[Example, list[str]]:
    return Example("text", record.where, text=str(record.fields.get("text"))), _text_faults(record.fields, "text")


_FROM = {"chat": _from_chat, "prompt_completion": _from_prompt_completion, "text": _from_text}


def _text_faults(fields: dict[str, Any], key: str, *, may_be_empty: bool = False) -> list[str]:
    if key not in fields:
        return [f"the key '{key}' is missing"]
    value = fields[key]
    if not isinstance(value, str):
        return [f"'{key}' is {name_of_type(value)}, not a string"]
    return [f"'{key}' is empty"] if not may_be_empty and not value.strip() else []


def _not_understood(fields: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return [f"'{key}' is not supported yet" for key in keys if key in fields and fields[key] not in HARMLESS]

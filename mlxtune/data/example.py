"""One row in the shape that all forms are brought to: turns of a conversation, or plain text.

Knows what a row says and of what it is made; nothing of files, keys or tokens.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["chat", "prompt_completion", "text", "preference"]
"""What a row comes to, whatever form it has in its file."""

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model asks for, with its arguments as plain JSON values."""

    name: str
    arguments: dict[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    ``thinking`` is what a model thinks before it answers. ``tool_call_id`` and ``name`` say which call a tool's result
    answers. ``weight`` is how much an assistant's turn counts in the loss; 0 (``train: false`` in a row) leaves it out.
    """

    role: Role
    content: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """What one row says.

    ``messages`` ends with an assistant's turn. A prompt and its completion are one user's and one assistant's turn; a
    text row has no messages, and ``text`` instead. A preference has the better answer in ``messages``, and in
    ``rejected`` the turns that stand in place of those after the common prompt; ``tools`` are the functions that the
    model may call, as JSON schemas. ``where`` is ``file:line``. ``kept`` are columns that no prompt has and evaluation
    asked for: a group, a table's contents. ``preface`` stands before the prompt of a text row that is asked: examples.
    """

    kind: Kind
    where: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    rejected: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict, compare=False)
    preface: str = field(default="", compare=False)


def shared_system(examples: Sequence[Example]) -> str | None:
    """The system message that all ``examples`` begin with alike; None if one has another or none."""
    first = [example.messages[0] if example.messages else None for example in examples]
    only = first[0] if first and all(message == first[0] for message in first) else None
    return only.content if only is not None and only.role == "system" else None


def content_hash(example: Example) -> str:
    """SHA-256 of what a row says, whatever else its line holds: key order, spaces, escapes and further keys."""
    content: list[Any] = [example.kind, [_said(message) for message in example.messages], example.text]
    if example.rejected or example.tools:  # what rows without them say keeps its hash
        content += [[_said(message) for message in example.rejected], list(example.tools)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _said(message: Message) -> list[Any]:
    plain = Message(message.role, message.content)
    return [message.role, message.content] if message == plain else [*asdict(message).items()]

"""Turns of a conversation into the text that a chat template makes of them.

Knows Hugging Face's form of messages, tools and calls, and the tokenizer's template, which is compiled once and bounded
(`chat_sandbox`); nothing of tokens or targets. What a template is given:

- ``content`` is always a text. ``tool_calls``, ``tool_call_id`` and ``name`` are there only where the turn has them,
  since templates ask whether they are.
- Thoughts go in as ``reasoning_content`` and, as transformers does, as ``thinking``.
- A call's arguments are an object. Where a template cannot write an object as JSON, they are its JSON text: that is
  found out by trying.
- ``enable_thinking`` says whether the answer to come is one with thoughts.

Families that mlx_lm or transformers renders by code of its own are rendered by that code.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from mlxtune.data.example import Message
from mlxtune.errors import DataError
from mlxtune.models.chat_sandbox import compile_chat

OTHER_TEMPLATE = "choose another chat template (data.chat_template), or another model"

LONGEST_REASON = 200
"""Characters of a template's own words in an error."""

TRIED = {"mlxtune_key": "mlxtune_value"}
TRIED_CALL = {"id": "mlxtune01", "type": "function", "function": {"name": "mlxtune_name", "arguments": TRIED}}
TRIED_TOOL = {
    "type": "function",
    "function": {"name": "mlxtune_name", "description": "-", "parameters": {"type": "object", "properties": {}}},
}


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper.
        clock: what time it is, for templates that write the day.
    """

    def __init__(self, tokenizer: Any, clock: Callable[[], datetime] = datetime.now) -> None:
        self.tokenizer = tokenizer
        self._own = tokenizer._tokenizer  # noqa: SLF001 - what the wrapper hides, or takes its time to hand on
        self._clock = clock
        self._compiled: dict[str, Any] = {}

    def text(
        self,
        messages: Sequence[Message],
        where: str,
        *,
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool = False,
        thinking: bool = False,
    ) -> str:
        """The text of ``messages``.

        Args:
            where: the row, for an error.
            generation_prompt: whether the text ends with the beginning of an answer.
            thinking: whether the answer to come is one with thoughts.

        Raises: DataError, if there is no template, or it refuses the messages.
        """
        if not self.tokenizer.has_chat_template:
            raise DataError(
                "the model has no chat template, and a chat row needs one",
                where=where,
                remedy="set data.chat_template (instruction fits every model), or choose an instruction-tuned model",
            )
        if not messages:
            raise DataError(
                "the conversation begins with an answer, and chat templates begin with a question",
                where=where,
                remedy="give the row a user's turn before the first answer",
            )
        try:
            turns = [self._turn(message) for message in messages]
            return self._render(turns, tools or None, generation_prompt, thinking)
        except Exception as error:  # a template is a stranger's program, and fails in any way
            raise DataError(
                f"the chat template refuses the messages: {_reason(error)}",
                where=where,
                remedy=f"give the row the roles and order that the template knows, or {OTHER_TEMPLATE}",
            ) from error

    def _turn(self, message: Message) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thinking:
            turn["reasoning_content"] = turn["thinking"] = message.thinking
        if message.tool_calls:
            turn["tool_calls"] = [self._call(call.name, call.arguments, call.id) for call in message.tool_calls]
        if message.tool_call_id:
            turn["tool_call_id"] = message.tool_call_id
        if message.name:
            turn["name"] = message.name
        return turn

    def _call(self, name: str, arguments: dict[str, Any], call_id: str) -> dict[str, Any]:
        written = json.dumps(arguments, ensure_ascii=False) if self._wants_json_text else arguments
        function = {"name": name, "arguments": written}
        return {**({"id": call_id} if call_id else {}), "type": "function", "function": function}

    def _render(
        self,
        turns: list[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None,
        generation_prompt: bool,
        thinking: bool,
    ) -> str:
        given = {"add_generation_prompt": generation_prompt, "enable_thinking": thinking}
        listed = None if tools is None else list(tools)
        if not self._is_jinja:
            return self.tokenizer.apply_chat_template(turns, tools=listed, tokenize=False, **given)
        source = self._own.chat_template
        if not isinstance(source, str):  # several, by name
            source = self._own.get_chat_template(None, listed)
        compiled = self._compiled.get(source)
        if compiled is None:
            compiled = self._compiled[source] = compile_chat(source, self._clock)
        return compiled.render({**self._tokens, "messages": turns, "tools": listed, "documents": None, **given})

    @cached_property
    def _is_jinja(self) -> bool:
        """Whether nothing but the template makes the text."""
        from transformers import PreTrainedTokenizerBase

        is_plain = type(self._own).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template
        return is_plain and self.tokenizer._chat_template is None  # noqa: SLF001

    @cached_property
    def _tokens(self) -> dict[str, str]:
        return dict(self.tokenizer.special_tokens_map)

    @cached_property
    def _wants_json_text(self) -> bool:
        """Whether a call's arguments are written as JSON only where they are given as JSON text."""
        as_object = self._try(TRIED)
        if as_object is not None and '"mlxtune_value"' in as_object:
            return False
        as_text = self._try(json.dumps(TRIED))
        return as_text is not None and '"mlxtune_value"' in as_text

    def _try(self, arguments: Any) -> str | None:
        call = {**TRIED_CALL, "function": {**TRIED_CALL["function"], "arguments": arguments}}
        turns = [
            {"role": "user", "content": "mlxtune_question"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        try:
            return self._render(turns, [TRIED_TOOL], generation_prompt=False, thinking=False)
        except Exception:  # noqa: BLE001 - a template is a stranger's program; the row's own rendering tells of it
            return None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:LONGEST_REASON]

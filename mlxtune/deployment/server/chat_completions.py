"""``POST /v1/chat/completions``: turns in, an answer out, whole or as it is written."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from mlxtune.data.example import ToolCall
from mlxtune.deployment.served import ServedModel
from mlxtune.deployment.server.chat_prompt import read_prompt, shared_length
from mlxtune.deployment.server.errors import ApiError, from_own
from mlxtune.deployment.server.logprobs import of_chat
from mlxtune.deployment.server.serving import Serving, usage
from mlxtune.deployment.server.tools import ToolStream, check_tools, tool_constraint
from mlxtune.deployment.server.wire import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
)
from mlxtune.errors import UsageError
from mlxtune.inference.constrain import Grammars, GrammarState
from mlxtune.inference.engine import Piece, Request


@dataclass(frozen=True, eq=False)
class Chat:
    """One request, ready to be answered."""

    asked: ChatRequest
    requests: Sequence[Request]
    readers: Sequence[ToolStream | None]
    """Of each answer, what tells its calls from its content; None, where there are no tools."""
    head: dict[str, Any]
    """What every document about it has."""


async def prepare(serving: Serving, model: ServedModel, asked: ChatRequest) -> Chat:
    """Bring a request into tokens. Raises: ApiError, for all that is wrong with it."""
    _check(asked)
    choices = serving.choices(asked)
    tokenizer = model.asking.renderer.tokenizer
    choice = asked.tool_choice.model_dump() if isinstance(asked.tool_choice, NamedTool) else asked.tool_choice

    def tokens() -> tuple[list[int], int, list[GrammarState | None], tuple[dict[str, Any], ...]]:
        tools = check_tools(asked.tools or (), tokenizer)
        shown = () if choice == "none" else tools
        prompt = read_prompt(asked.messages, shown)
        parallel = asked.parallel_tool_calls is not False
        constraints = [
            tool_constraint(serving.grammars, tokenizer, tools, choice, parallel=parallel)
            or format_constraint(serving.grammars, asked.response_format)
            for _ in range(choices)
        ]
        return model.asking.encode(prompt), shared_length(model, prompt), constraints, shown

    ids, shared, constraints, tools = await serving.encode(tokens)
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    sampling = serving.sampling(asked, len(ids), asked.max_completion_tokens or asked.max_tokens, top)
    requests = [Request(ids, sampling, model.adapter, i, shared, one) for i, one in enumerate(constraints)]
    readers = [ToolStream(tokenizer, tools) if tools else None for _ in requests]
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": serving.fingerprint,
    }
    return Chat(asked, requests, readers, head)


def _check(asked: ChatRequest) -> None:
    """Raises: ApiError, for fields that do not go together."""
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise ApiError(400, "max_tokens and max_completion_tokens are both there; keep one", param="max_tokens")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise ApiError(400, "top_logprobs goes with logprobs: true", param="top_logprobs")
    if not asked.tools:
        for name in ("tool_choice", "parallel_tool_calls"):
            if getattr(asked, name) not in (None, "none"):
                raise ApiError(400, f"{name} goes with tools, and there are none", param=name)
    has_format = asked.response_format is not None and asked.response_format.type != "text"
    if has_format and asked.tools and asked.tool_choice != "none":
        said = "response_format does not go with tools that may be called; set tool_choice to none"
        raise ApiError(400, said, param="response_format")


def format_constraint(grammars: Grammars, asked: ResponseFormat | None) -> GrammarState | None:
    """What an answer in a form follows. Raises: ApiError, for a schema that cannot be followed."""
    try:
        if isinstance(asked, JsonSchemaFormat):
            return grammars.json_schema(asked.json_schema.schema_)
        return grammars.json_object() if isinstance(asked, JsonObjectFormat) else None
    except UsageError as error:
        raise from_own(error, param="response_format") from error


async def whole(serving: Serving, chat: Chat) -> dict[str, Any]:
    """The answer, once it is there."""
    count = len(chat.requests)
    texts = [""] * count
    calls: list[list[ToolCall]] = [[] for _ in range(count)]
    reasons: list[str | None] = [None] * count
    said: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    tokens = 0
    async for place, piece in serving.answer(chat.head["model"], chat.requests):
        text, found = _read(chat, place, piece)
        texts[place] += text
        calls[place] += found
        reasons[place] = _reason(piece, calls[place])
        tokens += piece.token_id is not None
        said[place] += _logprobs(serving, piece)
    choices = [
        {
            "index": place,
            "message": _message(texts[place], calls[place]),
            "logprobs": {"content": said[place], "refusal": None} if chat.asked.logprobs else None,
            "finish_reason": reasons[place],
        }
        for place in range(count)
    ]
    used = usage(len(chat.requests[0].prompt), tokens)
    return chat.head | {"object": "chat.completion", "choices": choices, "usage": used}


async def stream(serving: Serving, chat: Chat) -> AsyncGenerator[dict[str, Any]]:
    """The answer as it is written: a document for the role, one for each piece that can be shown, one for the end."""
    tokens = 0
    begun: set[int] = set()
    calls: list[list[ToolCall]] = [[] for _ in chat.requests]
    answer = serving.answer(chat.head["model"], chat.requests)
    try:
        async for place, piece in answer:
            tokens += piece.token_id is not None
            if place not in begun:
                begun.add(place)
                yield _chunk(chat, place, {"role": "assistant", "content": ""})
            text, found = _read(chat, place, piece)
            said = _logprobs(serving, piece)
            if text or said:
                yield _chunk(chat, place, {"content": text}, said or None)
            for call in found:
                yield _chunk(chat, place, {"tool_calls": [{"index": len(calls[place]), **_wired(call)}]})
                calls[place].append(call)
            if piece.finish_reason is not None:
                yield _chunk(chat, place, {}, None, _reason(piece, calls[place]))
    finally:
        await answer.aclose()
    if chat.asked.stream_options is not None and chat.asked.stream_options.include_usage:
        used = usage(len(chat.requests[0].prompt), tokens)
        yield chat.head | {"object": "chat.completion.chunk", "choices": [], "usage": used}


def _read(chat: Chat, place: int, piece: Piece) -> tuple[str, list[ToolCall]]:
    """What of a piece is content, and the calls that it makes whole. Raises: ApiError, where a grammar gave up."""
    constraint = chat.requests[place].constraint
    if piece.finish_reason is not None and isinstance(constraint, GrammarState) and constraint.error is not None:
        said = "the answer's form was too much to follow to its end; ask for a simpler schema, or for less"
        raise ApiError(500, said, type="server_error", code="grammar")
    reader = chat.readers[place]
    if reader is None:
        return piece.text, []
    text, calls = reader.add(piece.text)
    if piece.finish_reason is not None:
        more, last = reader.finish()
        text, calls = text + more, calls + last
    return text, calls


def _reason(piece: Piece, calls: Sequence[ToolCall]) -> str | None:
    return "tool_calls" if piece.finish_reason == "stop" and calls else piece.finish_reason


def _message(text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    return message | ({"tool_calls": [_wired(call) for call in calls]} if calls else {})


def _wired(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _chunk(
    chat: Chat,
    place: int,
    delta: dict[str, Any],
    said: list[dict[str, Any]] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    logprobs = None if said is None else {"content": said, "refusal": None}
    choice = {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return chat.head | {"object": "chat.completion.chunk", "choices": [choice]}


def _logprobs(serving: Serving, piece: Piece) -> list[dict[str, Any]]:
    return [] if piece.logprob is None else [of_chat(serving.tokens, piece.logprob)]

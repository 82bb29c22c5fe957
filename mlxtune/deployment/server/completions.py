"""``POST /v1/completions``: text in, what comes after it out; no chat template, no system message."""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from mlxtune.deployment.served import ServedModel
from mlxtune.deployment.server.errors import ApiError
from mlxtune.deployment.server.logprobs import of_completion
from mlxtune.deployment.server.serving import Serving, usage
from mlxtune.deployment.server.wire import CompletionRequest
from mlxtune.inference.engine import Request, TokenLogprob


@dataclass(frozen=True, eq=False)
class Completion:
    """One request, ready to be answered; ``echoes`` are what stands before each answer's text."""

    asked: CompletionRequest
    requests: Sequence[Request]
    echoes: Sequence[str]
    prompt_tokens: int
    head: dict[str, Any]


async def prepare(serving: Serving, model: ServedModel, asked: CompletionRequest) -> Completion:
    """Bring a request into tokens. Raises: ApiError, for all that is wrong with it."""
    if asked.echo and asked.logprobs is not None:
        said = "echo with logprobs is not supported: log-probabilities are of what is written, not of the prompt"
        raise ApiError(400, said, param="echo", code="unsupported_parameter")
    prompts = _prompts(asked)
    choices = serving.choices(asked, len(prompts))
    renderer = model.asking.renderer

    def tokens() -> list[tuple[list[int], str]]:
        found = []
        for prompt in prompts:
            ids = renderer.encode_text(prompt) if isinstance(prompt, str) else prompt
            text = "" if not asked.echo else prompt if isinstance(prompt, str) else renderer.tokenizer.decode(prompt)
            found.append((ids, text))
        return found

    for prompt in prompts:
        _check(prompt, serving.served.vocabulary_size)
    encoded = await serving.encode(tokens)
    requests = [
        Request(ids, serving.sampling(asked, len(ids), asked.max_tokens, asked.logprobs), model.adapter, number)
        for ids, _ in encoded
        for number in range(choices)
    ]
    echoes = [text for _, text in encoded for _ in range(choices)]
    head = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": serving.fingerprint,
    }
    return Completion(asked, requests, echoes, sum(len(ids) for ids, _ in encoded), head)


def _prompts(asked: CompletionRequest) -> list[str | list[int]]:
    """Each text, or list of token ids, that is asked for."""
    prompt: Any = asked.prompt
    if not prompt or isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)


def _check(prompt: str | list[int], vocabulary_size: int) -> None:
    if not prompt:
        raise ApiError(400, "the prompt is empty; write something to go on from", param="prompt")
    if not isinstance(prompt, str) and not all(0 <= token < vocabulary_size for token in prompt):
        raise ApiError(400, f"tokens are numbers from 0 to {vocabulary_size - 1}", param="prompt")


async def whole(serving: Serving, completion: Completion) -> dict[str, Any]:
    """The answer, once it is there."""
    texts = list(completion.echoes)
    reasons: list[str | None] = [None] * len(texts)
    said: list[list[TokenLogprob]] = [[] for _ in texts]
    tokens = 0
    async for place, piece in serving.answer(completion.head["model"], completion.requests):
        texts[place] += piece.text
        reasons[place] = piece.finish_reason
        tokens += piece.token_id is not None
        if piece.logprob is not None:
            said[place].append(piece.logprob)
    choices = [
        _choice(
            place,
            text,
            None if completion.asked.logprobs is None else of_completion(serving.tokens, said[place], 0),
            reasons[place],
        )
        for place, text in enumerate(texts)
    ]
    return completion.head | {"choices": choices, "usage": usage(completion.prompt_tokens, tokens)}


async def stream(serving: Serving, completion: Completion) -> AsyncGenerator[dict[str, Any]]:
    """The answer as it is written."""
    tokens = 0
    lengths = [0] * len(completion.requests)
    echoes = list(completion.echoes)
    answer = serving.answer(completion.head["model"], completion.requests)
    try:
        async for place, piece in answer:
            tokens += piece.token_id is not None
            text, echoes[place] = echoes[place] + piece.text, ""
            said = None if piece.logprob is None else of_completion(serving.tokens, [piece.logprob], lengths[place])
            lengths[place] += len(text)
            if text or said or piece.finish_reason is not None:
                yield completion.head | {"choices": [_choice(place, text, said, piece.finish_reason)]}
    finally:
        await answer.aclose()
    if completion.asked.stream_options is not None and completion.asked.stream_options.include_usage:
        yield completion.head | {"choices": [], "usage": usage(completion.prompt_tokens, tokens)}


def _choice(place: int, text: str, said: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {"index": place, "text": text, "logprobs": said, "finish_reason": reason}

"""What every answer of the server is made with: the models, the engine's thread, the limits, and the clock.

Prompts are brought into tokens on a thread of their own, one after another, so that a long one holds up neither the
event loop nor the engine.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

from mlxtune.deployment.sampling import MAX_TOKENS, TEMPERATURE
from mlxtune.deployment.served import Served, ServedModel
from mlxtune.deployment.server.errors import ApiError, from_own
from mlxtune.deployment.server.metrics import Metrics
from mlxtune.deployment.server.wire import Asked
from mlxtune.deployment.server.worker import Limits, Worker
from mlxtune.errors import MlxtuneError, UsageError
from mlxtune.inference.constrain import Grammars
from mlxtune.inference.engine import Piece, Request
from mlxtune.inference.sampling import Sampling
from mlxtune.inference.token_bytes import TokenBytes

Result = TypeVar("Result")


def make_serving(worker: Worker) -> "Serving":
    """What belongs to a worker whose models are open."""
    served = worker.served
    assert served is not None
    said = "\n".join([version("mlxtune"), *served.models])
    fingerprint = f"mlxtune-{hashlib.sha256(said.encode()).hexdigest()[:10]}"
    grammars = Grammars(served.tokenizer, served.vocabulary_size)
    metrics = Metrics(
        served.models,
        waiting=lambda: worker.waiting,
        active=lambda: worker.active,
        kept_bytes=lambda: worker.kept_bytes,
    )
    return Serving(served, worker, worker.limits, fingerprint, TokenBytes(served.tokenizer), grammars, metrics)


@dataclass(frozen=True, eq=False)
class Serving:
    """One server's parts."""

    served: Served
    worker: Worker
    limits: Limits
    fingerprint: str
    """``system_fingerprint``: of program and base."""
    tokens: TokenBytes
    grammars: Grammars
    metrics: Metrics
    started: int = field(default_factory=lambda: int(time.time()))
    encoders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "encode"))

    async def encode(self, work: Callable[[], Result]) -> Result:
        """``work`` on the thread for prompts. Raises: ApiError, for what mlxtune refuses in it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.encoders, work)
        except MlxtuneError as error:
            raise from_own(error) from error

    async def answer(self, model: str, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Piece]]:
        """The pieces of the answers to one call, as of `Worker.answer`; what they took is counted."""
        begun, tokens, is_first = time.monotonic(), 0, True
        answer = self.worker.answer(requests)
        try:
            async for place, piece in answer:
                if is_first:
                    self.metrics.observe_first_token(model, time.monotonic() - begun)
                    is_first = False
                tokens += piece.token_id is not None
                yield place, piece
            self.metrics.observe_answer(model, time.monotonic() - begun)
        finally:
            await answer.aclose()
            prompts = {id(one.prompt): len(one.prompt) for one in requests}  # several answers may have one
            self.metrics.count_tokens(model, prompt=sum(prompts.values()), completion=tokens)

    def model(self, name: str | None) -> ServedModel:
        """The model of a name; the first one, where none is given. Raises: ApiError, 404."""
        models = self.served.models
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            said = f"there is no model {name!r:.80}; there are: {', '.join(models)}"
            raise ApiError(404, said, param="model", code="model_not_found")
        return models[name]

    def sampling(self, asked: Asked, prompt_length: int, max_tokens: int | None, top_logprobs: int | None) -> Sampling:
        """How an answer to a prompt of so many tokens is drawn.

        Raises: ApiError, where prompt and answer do not fit the model, or the answer is longer than the server writes.
        """
        if max_tokens is not None and max_tokens > self.limits.max_tokens:
            said = f"{max_tokens} tokens are asked for; this server writes at most {self.limits.max_tokens}"
            raise ApiError(400, said, param=_limit_of(asked), code="invalid_value")
        longest = self.limits.max_tokens
        if (context := self.served.context_length) is not None:
            longest = min(longest, context - prompt_length)
            if longest < (max_tokens or 1):
                raise ApiError(
                    400,
                    f"the prompt has {prompt_length} tokens and the answer may have {max_tokens or 1}; the model was "
                    f"made for {context} in all",
                    param="messages" if "messages" in type(asked).model_fields else "prompt",
                    code="context_length_exceeded",
                )
        try:
            return Sampling(
                max_tokens=max_tokens or min(MAX_TOKENS, longest),
                temperature=TEMPERATURE if asked.temperature is None else asked.temperature,
                top_p=1.0 if asked.top_p is None else asked.top_p,
                top_k=asked.top_k or 0,
                min_p=asked.min_p or 0.0,
                seed=secrets.randbits(63) if asked.seed is None else asked.seed,
                stop=asked.stops,
                presence_penalty=asked.presence_penalty or 0.0,
                frequency_penalty=asked.frequency_penalty or 0.0,
                logit_bias=self._logit_bias(asked.logit_bias or {}),
                top_logprobs=top_logprobs,
            )
        except UsageError as error:
            raise from_own(error) from error

    def choices(self, asked: Asked, prompts: int = 1) -> int:
        """How many answers a prompt gets. Raises: ApiError, where that is too many."""
        count = asked.n or 1
        if count * prompts > self.limits.choices:
            said = f"{count * prompts} answers are asked for at once; this server writes at most {self.limits.choices}"
            raise ApiError(400, said, param="n" if count > 1 else "prompt", code="invalid_value")
        return count

    def _logit_bias(self, bias: Mapping[str, float]) -> dict[int, float]:
        found = {}
        for key, value in bias.items():
            if not key.isascii() or not key.isdecimal() or int(key[:20]) >= self.served.vocabulary_size:
                said = f"logit_bias has no token {key!r:.40}; tokens are numbers below {self.served.vocabulary_size}"
                raise ApiError(400, said, param="logit_bias", code="invalid_value")
            found[int(key)] = value
        return found


def _limit_of(asked: Asked) -> str:
    """The field that says how long an answer may be."""
    is_newer = getattr(asked, "max_completion_tokens", None) is not None
    return "max_completion_tokens" if is_newer else "max_tokens"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """How many tokens went in and came out."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }

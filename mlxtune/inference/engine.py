"""Many prompts answered at once, each by the base network or by one of its adapters, as they come and go.

mlx-lm's batch generation does the work; the engine decides what enters a batch and when, gives each answer its own
draws and text, and reads what prompts begin with once. A batch has one adapter; where several have prompts they take
turns of some steps. It knows nothing of threads and of who asks: every call comes from the thread that made it, for
MLX's streams belong to threads. An answer depends on its own prompt and settings; rounding still differs in the last
bits with the company that it is batched with.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.generate import BatchGenerator, GenerationBatch
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlxtune.adapters.bank import BASE, AdapterBank
from mlxtune.errors import DataError
from mlxtune.inference.attention import NO_SINKS
from mlxtune.inference.beginnings import STEP, WORTH_READING, Beginnings
from mlxtune.inference.drawing import Constraint, sampler_for
from mlxtune.inference.logits_batch import LogitsBatch
from mlxtune.inference.model_functions import ModelFunctions
from mlxtune.inference.prefix_cache import NO_WINDOW, PrefixedCache
from mlxtune.inference.sampling import Sampling
from mlxtune.inference.shared_prefix import common_prefix_length, is_alike
from mlxtune.inference.text_stream import TextStream

BATCH_SIZE = 16
TURN = 16
"""Steps that one adapter's batch runs before another's."""
BEGINNINGS_BYTES = 1 << 30
READ_TOGETHER = 8
"""Prompts that are read together, at most: of more, the first would wait for the last."""
DO_NOT_FIT = ("[broadcast_shapes]", "[reshape]", NO_WINDOW, NO_SINKS)
"""How errors begin that say so."""


@dataclass(frozen=True, eq=False)
class Request:
    """One answer that is asked for."""

    prompt: Sequence[int]
    """Token ids."""
    sampling: Sampling
    adapter: str = BASE
    number: int = 0
    """Of several answers with one seed, which draw differently."""
    shared: int = 0
    """So many tokens at the start are expected to come again in other prompts."""
    constraint: Constraint | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """What the network said of a token before bias, penalties, temperature and constraint, in nats."""

    token_id: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]
    """The likeliest tokens at this place with theirs, likeliest first."""


@dataclass(frozen=True)
class Piece:
    """What one step brought to an answer."""

    ticket: int
    token_id: int | None
    """None where the answer's end token came."""
    text: str
    """What can be shown now; nothing of a letter or a text to stop at that has only begun."""
    finish_reason: str | None
    """``stop``: an end token or a text to stop at came; ``length``: the limit was reached; None: there is more."""
    logprob: TokenLogprob | None = None
    end_token: int | None = None
    """The token that ended the answer, where one came."""


@dataclass(eq=False)
class _Answer:
    """One that is being written."""

    ticket: int
    request: Request
    stream: TextStream


@dataclass(eq=False)
class _Lane:
    """One adapter's prompts: those that wait, and those in its batch by mlx-lm's number."""

    adapter: str
    generator: BatchGenerator
    waiting: deque[_Answer] = field(default_factory=deque)
    active: dict[int, _Answer] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.active)


class Engine:
    """Answers requests step by step: `submit` some, then `step` until `is_idle`."""

    def __init__(
        self,
        network: nn.Module,
        tokenizer: TokenizerWrapper,
        *,
        bank: AdapterBank | None = None,
        batch_size: int = BATCH_SIZE,
        beginnings_bytes: int = BEGINNINGS_BYTES,
        keeps_answers: bool = False,
    ) -> None:
        """Args:
        bank: the adapters of ``network``; None: it is asked as it is.
        batch_size: answers of one adapter that are written together, where the network takes them so; see `can_batch`.
        beginnings_bytes: what may be kept of prompts that were read, at most.
        keeps_answers: an answered prompt is kept with its answer, for the turn of the conversation that follows.
        """
        self.network = network
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self._bank = bank
        self._keeps_answers = keeps_answers
        self._beginnings = Beginnings(network, most_bytes=beginnings_bytes)
        self._functions = ModelFunctions(network)
        self._lanes: dict[str, _Lane] = {}
        self._turns: deque[_Lane] = deque()
        self._steps = 0
        self._tickets = 0
        self._is_tried = batch_size == 1

    @property
    def is_idle(self) -> bool:
        return not self._turns

    @property
    def waiting(self) -> int:
        """Answers that are not begun."""
        return sum(len(lane.waiting) for lane in self._turns)

    @property
    def active(self) -> int:
        """Answers that are being written."""
        return sum(len(lane.active) for lane in self._turns)

    @property
    def kept_bytes(self) -> int:
        """Of beginnings that were read."""
        return self._beginnings.nbytes

    def submit(self, request: Request) -> int:
        """Ask for an answer; its pieces carry the number that is returned.

        Raises: DataError, for a prompt without tokens.
        """
        if len(request.prompt) == 0:
            raise DataError("the prompt is empty", where="the prompt", remedy="write something to go on from")
        self._tickets += 1
        answer = _Answer(self._tickets, request, TextStream(self.tokenizer, request.sampling.stop))
        lane = self._lanes.get(request.adapter)
        if lane is None:
            lane = self._lanes[request.adapter] = _Lane(request.adapter, self._generator())
        if lane.is_idle:
            self._turns.append(lane)
        lane.waiting.append(answer)
        return answer.ticket

    def cancel(self, ticket: int) -> None:
        """Write no more of an answer; one that is over already is left as it is."""
        for lane in list(self._turns):
            lane.waiting = deque(answer for answer in lane.waiting if answer.ticket != ticket)
            if gone := [uid for uid, answer in lane.active.items() if answer.ticket == ticket]:
                lane.generator.remove(gone)
                del lane.active[gone[0]]
            self._leave_if_idle(lane)

    def step(self) -> list[Piece]:
        """Go on with the batch whose turn it is: by a token an answer, or by a part of the prompts read for it."""
        if self.is_idle:
            return []
        lane = self._next_lane()
        if self._bank is not None:
            self._bank.select(lane.adapter)
        with self._functions.in_place():
            self._admit(lane)
            _, responses = lane.generator.next()
        pieces = [self._piece(lane, response) for response in responses if response.uid in lane.active]
        self._leave_if_idle(lane)
        return pieces

    def close(self) -> None:
        """Drop everything."""
        for lane in self._lanes.values():
            lane.generator.close()
        self._lanes.clear()
        self._turns.clear()

    def _leave_if_idle(self, lane: _Lane) -> None:
        if lane.is_idle:
            self._steps = 0 if lane is self._turns[0] else self._steps
            self._turns.remove(lane)

    def _next_lane(self) -> _Lane:
        if self._steps >= TURN and len(self._turns) > 1:
            self._turns.rotate(-1)
            self._steps = 0
        self._steps += 1
        return self._turns[0]

    def _generator(self) -> BatchGenerator:
        generator = BatchGenerator(
            self.network,
            stop_tokens=[[token] for token in self.tokenizer.eos_token_ids],
            completion_batch_size=self.batch_size,
            prefill_batch_size=min(self.batch_size, READ_TOGETHER),
            prefill_step_size=STEP,
            stream=mx.default_stream(mx.default_device()),  # this thread's; mlx-lm's own was bound at its import
        )
        generator._generation_batch = LogitsBatch.empty(self.network, generator.sampler)  # noqa: SLF001 - it has no other way
        return generator

    def _admit(self, lane: _Lane) -> None:
        """Take as many as there is room for into the batch, those of like length beside each other."""
        if not self._is_tried:
            self._is_tried = True
            self._try_out()
        room = min(self.batch_size - len(lane.active), len(lane.waiting))
        answers = [lane.waiting.popleft() for _ in range(room)]
        if not answers:
            return
        answers.sort(key=lambda answer: len(answer.request.prompt))
        requests = [answer.request for answer in answers]
        for beginning in _worth_reading_first(requests):
            self._beginnings.read(lane.adapter, beginning)
        begun = [self._beginnings.longest(lane.adapter, one.prompt) for one in requests]
        samplers: Any = [sampler_for(one.sampling, one.number, one.constraint) for one in requests]
        uids = lane.generator.insert(
            [list(one.prompt[length:]) for one, (_, length) in zip(requests, begun, strict=True)],
            max_tokens=[one.sampling.max_tokens for one in requests],
            caches=[self._beginnings.new() if cache is None else cache for cache, _ in begun],
            all_tokens=[list(one.prompt[:length]) for one, (_, length) in zip(requests, begun, strict=True)],
            samplers=samplers,
        )
        lane.active |= dict(zip(uids, answers, strict=True))

    def _try_out(self) -> None:
        """Find out how prompts of this network can be written together."""
        if can_batch(self.network, prefix=[1, 2, 3]):
            self._beginnings.has_prefixes = True
        elif not can_batch(self.network):
            self.batch_size = 1

    def _piece(self, lane: _Lane, response: GenerationBatch.Response) -> Piece:
        answer = lane.active[response.uid]
        reason, sampling, end = response.finish_reason, answer.request.sampling, None
        if reason == "stop":
            token, text, logprob, end = None, answer.stream.finish(), None, response.token
        else:
            token = response.token
            text = answer.stream.add(token)
            logprob = None if sampling.top_logprobs is None else _logprob(response, sampling.top_logprobs)
            if answer.stream.is_over:
                if reason is None:
                    lane.generator.remove([response.uid])
                reason = "stop"
            elif reason is not None:
                text += answer.stream.finish()
        if reason is not None:
            del lane.active[response.uid]
            if self._keeps_answers and response.prompt_cache is not None and response.all_tokens:
                self._beginnings.keep(lane.adapter, response.all_tokens, response.prompt_cache)
        return Piece(answer.ticket, token, text, reason, logprob, end)


def _worth_reading_first(requests: Sequence[Request]) -> list[Sequence[int]]:
    """What is worth reading before the prompts that begin with it: of one as it says, of several what they share."""
    found = [one.prompt[: min(one.shared, len(one.prompt) - 1)] for one in requests if one.shared]
    groups: dict[tuple[int, ...], list[Sequence[int]]] = {}
    for one in requests:
        groups.setdefault(tuple(one.prompt[:WORTH_READING]), []).append(one.prompt)
    for prompts in groups.values():
        if len(prompts) > 1:
            shared = common_prefix_length([np.asarray(prompt) for prompt in prompts])
            found.append(prompts[0][: min(shared, min(len(prompt) for prompt in prompts) - 1)])
    return list({tuple(one): one for one in found if len(one) >= WORTH_READING}.values())


def _logprob(response: GenerationBatch.Response, top: int) -> TokenLogprob:
    row = np.array(response.logprobs.astype(mx.float32))
    row -= row.max()
    row -= np.log(np.exp(row).sum())
    likeliest = np.argpartition(-row, min(top, len(row) - 1))[:top] if top else np.empty(0, int)
    ranked = sorted(likeliest.tolist(), key=lambda token: (-row[token], token))
    return TokenLogprob(
        response.token, float(row[response.token]), tuple((token, float(row[token])) for token in ranked)
    )


def can_batch(network: nn.Module, prefix: Sequence[int] = ()) -> bool:
    """Whether prompts of different lengths get together what each would get alone: tried, on the shorter of two.

    Of the families that keep a state, some take the padding before a shorter prompt into it, and gemma2 adds a mask of
    another shape: in mlx-lm 0.32.2 mamba, jamba, nemotron_h, rwkv7 and most of gemma2 do not fit. The price is four
    passes of a few tokens, five with a prefix.

    Args:
        prefix: tokens that both prompts begin with, and share the memory of; the network's functions are in place.
    """
    shorter, longer = [1, 2], [6, 5, 4, 3, 2, 1]
    layers = make_prompt_cache(network)
    if prefix and any(type(layer) is not KVCache for layer in layers):
        return False
    generator = BatchGenerator(network, max_tokens=1, stream=mx.default_stream(mx.default_device()))
    try:
        begun: Any = None
        if prefix:
            read = [PrefixedCache() for _ in layers]
            network(mx.array([prefix]), cache=read)
            held = [layer.as_prefix().prefix for layer in read]
            begun = [[PrefixedCache(one) for one in held] for _ in range(2)]
        uid, _ = generator.insert([shorter, longer], caches=begun)
        (found,) = (response.logprobs for response in generator.next_generated() if response.uid == uid)
    except ValueError as error:
        if not str(error).startswith(DO_NOT_FIT):
            raise
        return False
    finally:
        generator.close()
    alone = network(mx.array([[*prefix, *shorter]]), cache=layers)[0, -1]
    return is_alike(found, alone - mx.logsumexp(alone))

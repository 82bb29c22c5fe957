"""The engine's thread as the event loop sees it."""

import asyncio
import signal
import threading
from types import SimpleNamespace

import pytest
from mlx import nn
from serving import working
from tiny import tiny_llama

from mlxtune.deployment.server.errors import ApiError
from mlxtune.deployment.server.worker import FAILURES, Limits, Worker
from mlxtune.errors import ModelError
from mlxtune.inference.engine import Engine, Request
from mlxtune.inference.sampling import Sampling

NEVER = SimpleNamespace(eos_token_ids=set(), decode=lambda ids, **_: "".join(f"<{one}>" for one in ids))


def tiny_served(network=None):
    network = tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False) if network is None else network
    return SimpleNamespace(network=network, tokenizer=NEVER, bank=None)


def request_for(max_tokens=4, first=5, **sampling):
    return Request([first, 6, 7], Sampling(max_tokens=max_tokens, **sampling))


async def tokens_of(worker, *requests):
    found = [[] for _ in requests]
    async for place, piece in worker.answer(requests):
        found[place].append(piece.token_id)
    return found


def expected(request):
    served = tiny_served()
    engine = Engine(served.network, NEVER)
    engine.submit(request)
    found = []
    while not engine.is_idle:
        found += [piece.token_id for piece in engine.step()]
    return found


def test_answers_that_are_asked_for_together_each_get_their_own():
    requests = [request_for(6, first) for first in range(5, 15)]

    async def ask(worker):
        return await asyncio.gather(*(tokens_of(worker, one) for one in requests))

    with working(tiny_served) as worker:
        found = asyncio.run(ask(worker))
    assert [tokens for (tokens,) in found] == [expected(one) for one in requests]


def test_several_answers_of_one_request_are_told_apart_by_their_place():
    requests = [request_for(5, temperature=1.0, seed=3), request_for(2, 9)]
    with working(tiny_served) as worker:
        found = asyncio.run(tokens_of(worker, *requests))
    assert found == [expected(one) for one in requests]


def test_a_full_server_refuses_and_says_when_to_come_back():
    async def ask(worker):
        first = worker.answer([request_for(50), request_for(50)])
        await anext(first)
        with pytest.raises(ApiError) as error:
            await tokens_of(worker, request_for())
        await first.aclose()
        return error.value, await tokens_of(worker, request_for(2))

    with working(tiny_served, batch_size=1, waiting=1) as worker:
        error, after = asyncio.run(ask(worker))
    assert (error.status, error.code) == (429, "queue_full")
    assert int(error.headers["Retry-After"]) > 0
    assert len(after[0]) == 2


def test_an_answer_that_nobody_reads_any_more_is_not_written_on():
    steps = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = tiny_llama(hidden=32, heads=2, kv_heads=1)
            self.layers = self.network.layers

        def __call__(self, ids, cache):
            steps.append(ids.shape)
            return self.network(ids, cache=cache)

    async def ask(worker):
        answer = worker.answer([request_for(100_000)])
        await anext(answer)
        await answer.aclose()
        await tokens_of(worker, request_for(1, 9))

    with working(lambda: tiny_served(Counted()), max_tokens=100_000) as worker:
        asyncio.run(ask(worker))
    assert len(steps) < 1000


def test_an_answer_that_takes_too_long_is_given_up():
    with working(tiny_served, request_s=0.2) as worker, pytest.raises(ApiError) as error:
        asyncio.run(tokens_of(worker, request_for(1_000_000)))
    assert error.value.status == 504


def failing(times):
    """A network that fails so many times, after it was opened, and then goes on."""
    network = tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False)
    left = [times]

    class Failing(nn.Module):
        layers = network.layers

        def __call__(self, ids, cache):
            if left[0]:
                left[0] -= 1
                raise RuntimeError("no memory")
            return network(ids, cache=cache)

    return Failing()


def test_a_batch_that_fails_is_told_and_the_server_goes_on(caplog):
    async def ask(worker):
        with pytest.raises(ApiError) as error:
            await tokens_of(worker, request_for())
        return error.value, await tokens_of(worker, request_for())

    with working(lambda: tiny_served(failing(1))) as worker:
        error, after = asyncio.run(ask(worker))
        assert worker.fault is None
    assert error.status == 500
    assert after == [expected(request_for())]
    assert "a step of the engine failed" in caplog.text


def test_an_engine_that_fails_again_and_again_is_not_well(caplog):
    async def ask(worker):
        for _ in range(FAILURES):
            with pytest.raises(ApiError):
                await tokens_of(worker, request_for())
        return worker.fault

    with working(lambda: tiny_served(failing(10**6))) as worker:
        assert "failed" in asyncio.run(ask(worker))
        assert not worker.is_ready
    assert caplog.records


def test_whoever_waits_when_the_server_is_stopped_is_told():
    async def ask(worker):
        answer = worker.answer([request_for(1_000_000)])
        await anext(answer)
        await asyncio.to_thread(worker.stop)
        with pytest.raises(ApiError) as error:
            async for _ in answer:
                pass
        with pytest.raises(ApiError):
            await tokens_of(worker, request_for())
        return error.value.status

    with working(tiny_served) as worker:
        assert asyncio.run(ask(worker)) == 503
        assert not worker.is_ready
        assert worker.fault == "the engine's thread is over"


def test_ctrl_c_while_the_models_are_opened_lets_the_thread_end_first(request):
    heard = threading.Event()

    def interrupt(*_):
        heard.set()
        raise KeyboardInterrupt

    def open_slowly():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert heard.wait(60)
        return tiny_served()

    before = signal.signal(signal.SIGINT, interrupt)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    worker = Worker(open_slowly, Limits())
    with pytest.raises(KeyboardInterrupt):
        worker.start()
    assert worker.fault == "the engine's thread is over"


def test_what_opening_the_models_raises_comes_out_of_start():
    def fail():
        raise ModelError("there is no model", where="here")

    with pytest.raises(ModelError, match="there is no model"):
        Worker(fail, Limits()).start()


def test_an_engine_that_cannot_be_made_comes_out_of_start_too():
    with pytest.raises(AttributeError):
        Worker(lambda: SimpleNamespace(network=None, tokenizer=None, bank=None), Limits()).start()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whoever_waits_for_a_thread_that_ends_is_told(monkeypatch):
    """Whatever ended it."""
    monkeypatch.setattr(Engine, "step", lambda _: (_ for _ in ()).throw(SystemExit))
    with working(tiny_served) as worker:
        with pytest.raises(ApiError) as error:
            asyncio.run(tokens_of(worker, request_for()))
        assert error.value.status == 503
        assert not worker.is_ready

"""Requests come and go in any order, and each gets what it would have got alone."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache
from tiny import tiny_llama, write_adapter

from mlxtune.adapters.bank import BASE, AdapterBank
from mlxtune.adapters.open import attach_adapter
from mlxtune.device import exponentials
from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.errors import DataError
from mlxtune.inference.engine import TURN, Engine, Request
from mlxtune.inference.prefix_cache import WORTH_SHARING
from mlxtune.inference.sampling import Sampling

SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1, "tied": False}
NEVER = SimpleNamespace(eos_token_ids=set(), decode=lambda ids, **_: "".join(f"<{one}>" for one in ids))
"""A tokenizer that ends nothing."""
SHORT = Sampling(max_tokens=6)


def prompt_of(length, seed=0):
    return np.random.default_rng(seed).integers(3, 250, length).tolist()


def run(engine):
    """Every answer's pieces by its ticket, once there is nothing left to do."""
    found = {}
    while not engine.is_idle:
        for piece in engine.step():
            found.setdefault(piece.ticket, []).append(piece)
    return found


def tokens(pieces):
    return [piece.token_id for piece in pieces if piece.token_id is not None]


def alone(network, request):
    engine = Engine(network, NEVER)
    ticket = engine.submit(request)
    return tokens(run(engine)[ticket])


@pytest.fixture(scope="module")
def network():
    return tiny_llama(**SHAPE)


REQUESTS = [
    Request(prompt_of(5, 1), SHORT),
    Request(prompt_of(30, 2), Sampling(max_tokens=9)),
    Request([*prompt_of(25, 2), 9], Sampling(max_tokens=1)),
    Request(prompt_of(40, 3), Sampling(max_tokens=7, temperature=1.0, seed=4), shared=20),
    Request([*prompt_of(20, 3), 7], Sampling(max_tokens=5, temperature=0.7, top_p=0.9), number=2),
    Request(prompt_of(1, 5), Sampling(max_tokens=8, temperature=1.0, seed=4)),
    Request(prompt_of(30, 2), Sampling(max_tokens=4, frequency_penalty=1.0)),
]


@settings(max_examples=12)
@given(
    arrivals=st.lists(st.integers(0, 12), min_size=len(REQUESTS), max_size=len(REQUESTS)),
    batch_size=st.sampled_from([1, 2, 3, 16]),
    keeps=st.booleans(),
)
def test_whenever_requests_come_each_answer_is_its_solo_answer(network, arrivals, batch_size, keeps):
    engine = Engine(network, NEVER, batch_size=batch_size, keeps_answers=keeps)
    expected, tickets, found = [alone(network, one) for one in REQUESTS], {}, {}
    step = 0
    while len(tickets) < len(REQUESTS) or not engine.is_idle:
        for i, arrival in enumerate(arrivals):
            if arrival == step:
                tickets[engine.submit(REQUESTS[i])] = i
        for piece in engine.step():
            found.setdefault(tickets[piece.ticket], []).append(piece)
        step += 1
    assert [tokens(found[i]) for i in range(len(REQUESTS))] == expected
    assert all([piece.finish_reason for piece in pieces][-1] == "length" for pieces in found.values())


def test_adapters_answer_side_by_side_each_as_if_alone(tmp_path):
    expected, bank = {}, AdapterBank(tiny_llama(**SHAPE))
    prompts = [prompt_of(20, 1), prompt_of(8, 2)]
    for seed, name in enumerate(("left", "right"), 1):
        folder = write_adapter(tmp_path / name, seed=seed, **SHAPE)
        bank.add(name, folder)
        network = tiny_llama(**SHAPE)
        attach_adapter(network, folder)
        expected[name] = [alone(network, Request(prompt, SHORT)) for prompt in prompts]
    expected[BASE] = [alone(tiny_llama(**SHAPE), Request(prompt, SHORT)) for prompt in prompts]
    engine = Engine(bank.network, NEVER, bank=bank, keeps_answers=True)
    for _ in range(2):  # the second time from what was kept
        tickets = {
            engine.submit(Request(prompt, SHORT, adapter=name)): (name, i)
            for i, prompt in enumerate(prompts)
            for name in bank.names
        }
        for ticket, pieces in run(engine).items():
            name, i = tickets[ticket]
            assert tokens(pieces) == expected[name][i], (name, i)


def test_an_adapter_waits_no_longer_than_a_turn_of_each_other(tmp_path):
    bank = AdapterBank(tiny_llama(**SHAPE))
    bank.add("left", write_adapter(tmp_path / "left", seed=1, **SHAPE))
    engine = Engine(bank.network, NEVER, bank=bank)
    long = engine.submit(Request(prompt_of(4), Sampling(max_tokens=10 * TURN)))
    engine.step()
    short = engine.submit(Request(prompt_of(4), Sampling(max_tokens=2), adapter="left"))
    order = []
    while not engine.is_idle:
        order += [piece.ticket for piece in engine.step()]
    assert order.index(short) <= TURN
    assert order.count(long) == 10 * TURN


def test_an_adapter_has_its_whole_turn_after_one_whose_last_answer_is_cancelled(tmp_path):
    bank = AdapterBank(tiny_llama(**SHAPE))
    names = ["left", "right"]
    for seed, name in enumerate(names):
        bank.add(name, write_adapter(tmp_path / name, seed=seed, **SHAPE))
    engine, long = Engine(bank.network, NEVER, bank=bank), Sampling(max_tokens=10 * TURN)
    first, *others = [engine.submit(Request(prompt_of(4), long, adapter=name)) for name in [BASE, *names]]
    for _ in range(TURN):
        engine.step()
    engine.cancel(first)
    turn = [{piece.ticket for piece in engine.step()} for _ in range(TURN)]
    assert set.union(*turn) == {others[0]}


def test_what_a_request_says_is_shared_is_read_once(network):
    read = []

    class Counted(nn.Module):
        layers = network.layers

        def __call__(self, ids, cache):
            read.append(ids.size)
            return network(ids, cache=cache)

    beginning = prompt_of(40, 9)
    engine = Engine(Counted(), NEVER)
    for last in (7, 8, 9):
        engine.submit(Request([*beginning, last], SHORT, shared=40))
        run(engine)
    assert read.count(40) == 1
    assert max(size for size in read if size != 40) < 16


@pytest.mark.parametrize("keeps_answers", [False, True])
@pytest.mark.parametrize("slow", [False, True])
def test_long_beginnings_are_held_once_and_answers_stay_as_they_are(network, monkeypatch, keeps_answers, slow):
    """Prompts with one system message, with another, and with none, come one after another into one batch."""
    monkeypatch.setattr(exponentials, "are_slow", lambda: slow)
    monkeypatch.setattr(exponentials, "FEW", 0)
    left, right = prompt_of(WORTH_SHARING + 20, 1), prompt_of(WORTH_SHARING, 2)
    requests = [
        Request([*start, last, 9], Sampling(max_tokens=4 + last % 5), shared=len(start))
        for last in (7, 8, 9)
        for start in (left, right, [5])
    ]
    engine = Engine(network, NEVER, keeps_answers=keeps_answers)
    tickets, found = {}, {}
    while len(tickets) < len(requests) or not engine.is_idle:
        if len(tickets) < len(requests):
            tickets[engine.submit(requests[len(tickets)])] = len(tickets)
        for piece in engine.step():
            found.setdefault(tickets[piece.ticket], []).append(piece)
    assert [tokens(found[i]) for i in range(len(requests))] == [greedy_whole(network, one) for one in requests]
    for start in (left, right):
        one, other = (engine._beginnings.longest(BASE, [*start, last, 9])[0] for last in (3, 4))
        assert len(one[0].prefix) == len(start)
        assert one[0].prefix is other[0].prefix


def greedy_whole(network, request):
    """The likeliest token after all before it, one pass of everything for each."""
    ids = list(request.prompt)
    for _ in range(request.sampling.max_tokens):
        ids.append(int(mx.argmax(network(mx.array([ids]), cache=make_prompt_cache(network))[0, -1]).item()))
    return ids[len(request.prompt) :]


def test_an_answered_prompt_is_kept_for_the_turn_that_follows(network):
    engine = Engine(network, NEVER, keeps_answers=True)
    first = prompt_of(40, 9)
    ticket = engine.submit(Request(first, SHORT))
    answer = tokens(run(engine)[ticket])
    assert engine.kept_bytes > 0
    follow = Request([*first, *answer, 5, 6], SHORT)
    ticket = engine.submit(follow)
    assert tokens(run(engine)[ticket]) == alone(network, follow)


def test_a_cancelled_answer_stops_and_the_others_go_on(network):
    engine = Engine(network, NEVER, batch_size=2)
    requests = [Request(prompt_of(5 + i, i), Sampling(max_tokens=8)) for i in range(4)]
    tickets = [engine.submit(one) for one in requests]
    begun = [piece for _ in range(6) for piece in engine.step()]
    assert 0 < sum(piece.ticket == tickets[0] for piece in begun) < 8
    engine.cancel(tickets[0])  # it is being written
    engine.cancel(tickets[3])  # it waits
    engine.cancel(10**6)  # nobody's
    found = run(engine)
    assert found.keys() == {tickets[1], tickets[2]}
    for i in (1, 2):
        whole = [piece for piece in begun if piece.ticket == tickets[i]] + found[tickets[i]]
        assert tokens(whole) == alone(network, requests[i])
    assert engine.is_idle
    assert (engine.waiting, engine.active) == (0, 0)


def test_cancelling_the_last_one_leaves_nothing_to_do(network):
    engine = Engine(network, NEVER)
    ticket = engine.submit(Request(prompt_of(5), SHORT))
    engine.step()
    engine.cancel(ticket)
    assert engine.is_idle
    assert engine.step() == []


def test_a_text_to_stop_at_is_never_shown(network):
    request = Request(prompt_of(5, 1), Sampling(max_tokens=8))
    said = alone(network, request)
    stop = f"{said[3]}><{said[4]}"
    engine = Engine(network, NEVER)
    ticket = engine.submit(Request(request.prompt, Sampling(max_tokens=8, stop=(stop,))))
    pieces = run(engine)[ticket]
    assert "".join(piece.text for piece in pieces) == "".join(f"<{one}>" for one in said[:3]) + "<"
    assert pieces[-1].finish_reason == "stop"
    assert tokens(pieces) == said[:5]


def test_the_end_token_is_not_part_of_an_answer(network):
    said = alone(network, REQUESTS[0])
    ends = SimpleNamespace(eos_token_ids={said[2]}, decode=NEVER.decode)
    engine = Engine(network, ends)
    ticket = engine.submit(REQUESTS[0])
    pieces = run(engine)[ticket]
    assert tokens(pieces) == said[: said.index(said[2])]
    assert (pieces[-1].token_id, pieces[-1].finish_reason) == (None, "stop")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_are_the_networks_own(network, temperature):
    prompt = prompt_of(5, 1)
    sampling = Sampling(max_tokens=3, temperature=temperature, logit_bias={9: 3.0}, top_logprobs=4)
    engine = Engine(network, NEVER)
    ticket = engine.submit(Request(prompt, sampling))
    ids = list(prompt)
    for piece in run(engine)[ticket]:
        logits = np.array(network(mx.array([ids]))[0, -1], np.float64)
        logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert piece.logprob.token_id == piece.token_id
        np.testing.assert_allclose(piece.logprob.logprob, logprobs[piece.token_id], atol=1e-4)
        best = np.argsort(-logprobs)[:4]
        assert [token for token, _ in piece.logprob.likeliest] == best.tolist()
        np.testing.assert_allclose([one for _, one in piece.logprob.likeliest], logprobs[best], atol=1e-4)
        ids.append(piece.token_id)


def test_log_probabilities_are_told_to_those_who_ask(network):
    engine = Engine(network, NEVER)
    plain = engine.submit(Request(prompt_of(5), SHORT))
    drawn_alone = engine.submit(Request(prompt_of(6), Sampling(max_tokens=2, top_logprobs=0)))
    found = run(engine)
    assert {piece.logprob for piece in found[plain]} == {None}
    assert [piece.logprob.likeliest for piece in found[drawn_alone]] == [(), ()]


def test_a_prompt_without_tokens_is_refused(network):
    with pytest.raises(DataError, match="the prompt is empty"):
        Engine(network, NEVER).submit(Request([], SHORT))


@pytest.mark.parametrize("slow", [False, True], ids=["MLX", "NumPy"])
def test_the_gpus_precision_serves_too(tmp_path, monkeypatch, slow):
    monkeypatch.setattr(exponentials, "are_slow", lambda: slow)
    network = tiny_llama(**SHAPE, quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    bank = AdapterBank(network)
    bank.add("left", write_adapter(tmp_path / "left", seed=1, **SHAPE))
    engine = Engine(network, NEVER, bank=bank, keeps_answers=True)
    drawn = Sampling(max_tokens=4, temperature=0.8, top_p=0.9, top_k=20, min_p=0.01, top_logprobs=2)
    requests = [Request(prompt_of(20, 1), drawn, adapter=name, shared=16) for name in bank.names]
    requests.append(Request(prompt_of(30, 1), Sampling(max_tokens=4, presence_penalty=0.5, top_logprobs=2)))
    long, greedy = prompt_of(WORTH_SHARING, 2), Sampling(max_tokens=4, top_logprobs=2)
    requests += [Request([*long, last, 9], greedy, shared=len(long)) for last in (7, 8)]
    tickets = [engine.submit(one) for one in requests]
    found = run(engine)
    assert engine._beginnings.longest(BASE, [*long, 3, 9])[0][0].prefix.keys.dtype == mx.bfloat16
    for request, ticket in zip(requests, tickets, strict=True):
        answer = tokens(found[ticket])
        assert len(answer) == 4
        bank.select(request.adapter)
        logits = network(mx.array([[*request.prompt, *answer[:-1]]]))[0, len(request.prompt) - 1 :].astype(mx.float32)
        expected = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))[range(4), answer]
        told = [piece.logprob.logprob for piece in found[ticket] if piece.logprob]
        np.testing.assert_allclose(told, expected, atol=0.05)

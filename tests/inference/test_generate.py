from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import llama
from tiny import tiny_config, tiny_llama, tiny_tokenizer

from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.errors import DataError
from mlxtune.inference.generate import generate

MAX_TOKENS = 8
NEVER = SimpleNamespace(eos_token_ids=set(), decode=lambda ids, **_: " ".join(map(str, ids)))
"""A tokenizer that ends nothing."""


def ends_at(*tokens):
    return SimpleNamespace(eos_token_ids=set(tokens), decode=NEVER.decode)


def random_prompts(*lengths, prefix=0, seed=0):
    generator = np.random.default_rng(seed)
    start = generator.integers(3, 259, prefix).tolist()
    return [start + generator.integers(3, 259, length).tolist() for length in lengths]


def likeliest(network, prompt, count):
    """Greedy decoding as one would write it down: all tokens again for every next one, no cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(mx.argmax(network(mx.array([ids]))[0, -1]).item()))
    return tuple(ids[len(prompt) :])


@pytest.fixture(scope="module")
def network():
    return tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False)  # a tied one says its last token again and again


@pytest.fixture(scope="module")
def windowed():
    """Layers that see the last six tokens alone: nothing is read for all prompts at once."""
    kinds = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 6}
    mx.random.seed(0)
    return llama.Model(llama.ModelArgs.from_dict(tiny_config(hidden=32, heads=2, kv_heads=1, tied=False) | kinds))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("prefix", [0, 10])
def test_greedy_answers_are_those_of_a_plain_loop(network, prefix, batch_size):
    prompts = random_prompts(5, 1, 9, 3, 3, 12, 7, prefix=prefix)
    found = generate(network, NEVER, prompts, max_tokens=MAX_TOKENS, batch_size=batch_size)
    assert [one.token_ids for one in found] == [likeliest(network, prompt, MAX_TOKENS) for prompt in prompts]
    assert [one.prompt_tokens for one in found] == [len(prompt) for prompt in prompts]
    assert {one.finish_reason for one in found} == {"length"}
    assert {one.completion_tokens for one in found} == {MAX_TOKENS}
    assert found[0].text == " ".join(map(str, found[0].token_ids))


def test_a_prompt_alone_is_answered_as_among_others(network):
    prompts = random_prompts(5, 9, 3, prefix=10)
    together = generate(network, NEVER, prompts, max_tokens=MAX_TOKENS)
    assert [generate(network, NEVER, [prompt], max_tokens=MAX_TOKENS)[0] for prompt in prompts] == together


def test_prompts_that_are_all_the_same_or_each_others_beginnings_are_answered(network):
    (prompt,) = random_prompts(6)
    prompts = [prompt, prompt, prompt[:4], prompt[:1]]
    found = generate(network, NEVER, prompts, max_tokens=MAX_TOKENS)
    assert [one.token_ids for one in found] == [likeliest(network, prompt, MAX_TOKENS) for prompt in prompts]


def test_layers_with_a_window_are_answered_as_by_a_plain_loop(windowed):
    prompts = random_prompts(5, 9, 3, prefix=10)
    found = generate(windowed, NEVER, prompts, max_tokens=MAX_TOKENS)
    assert [one.token_ids for one in found] == [likeliest(windowed, prompt, MAX_TOKENS) for prompt in prompts]


def test_an_end_token_ends_one_answer_and_is_no_part_of_it(network):
    prompts = random_prompts(5, 9, 3)
    whole = [likeliest(network, prompt, MAX_TOKENS) for prompt in prompts]
    end = whole[1][4]
    wanted = [ids[: ids.index(end)] if end in ids else ids for ids in whole]
    found = generate(network, ends_at(end), prompts, max_tokens=MAX_TOKENS)
    assert [one.token_ids for one in found] == wanted
    assert [one.finish_reason for one in found] == ["stop" if end in ids else "length" for ids in whole]
    assert "stop" in {one.finish_reason for one in found}


def test_an_answer_may_be_empty(network):
    (prompt,) = random_prompts(5)
    (first,) = likeliest(network, prompt, 1)
    (found,) = generate(network, ends_at(first), [prompt], max_tokens=MAX_TOKENS)
    assert (found.token_ids, found.text, found.finish_reason) == ((), "", "stop")


@pytest.mark.parametrize(("lengths", "batch_size"), [((5, 9, 3), 1), ((5,), 16)])
def test_whether_prompts_fit_together_is_tried_only_where_they_would_be(network, monkeypatch, lengths, batch_size):
    monkeypatch.setattr("mlxtune.inference.engine.can_batch", None)
    prompts = random_prompts(*lengths)
    found = generate(network, NEVER, prompts, max_tokens=2, batch_size=batch_size)
    assert [one.token_ids for one in found] == [likeliest(network, prompt, 2) for prompt in prompts]


def test_no_prompts_are_no_answers(network):
    assert generate(network, NEVER, [], max_tokens=MAX_TOKENS) == []


def test_an_empty_prompt_is_refused_by_its_number(network):
    with pytest.raises(DataError, match="the prompt is empty") as error:
        generate(network, NEVER, [[5, 6], []], max_tokens=MAX_TOKENS)
    assert error.value.where == "prompt 2"


def test_a_prompts_draws_depend_on_seed_and_number_and_not_on_the_company(network):
    prompts = random_prompts(5, 9, 3, 7, 4, prefix=4)
    options = {"max_tokens": MAX_TOKENS, "temperature": 1.0}
    drawn = generate(network, NEVER, prompts, seed=1, **options)
    mx.random.seed(17)  # the global random state has no say
    assert generate(network, NEVER, prompts, seed=1, batch_size=2, **options) == drawn
    assert generate(network, NEVER, prompts[:2], seed=1, **options) == drawn[:2]
    assert generate(network, NEVER, prompts, seed=2, **options) != drawn
    assert generate(network, NEVER, [prompts[0]] * 2, seed=1, **options)[1] != drawn[0]


def test_samples_follow_the_softmax_at_the_temperature(network):
    (prompt,) = random_prompts(5)
    temperature, draws = 0.25, 600
    logits = np.array(network(mx.array([prompt]))[0, -1], np.float64) / temperature
    p = np.exp(logits - logits.max())
    p /= p.sum()
    found = generate(network, NEVER, [prompt] * draws, max_tokens=1, temperature=temperature, seed=3, batch_size=draws)
    counts = np.bincount([one.token_ids[0] for one in found], minlength=len(p))
    top = np.argsort(p)[-5:]
    assert p[top].min() > 0.02
    np.testing.assert_allclose(counts[top] / draws, p[top], atol=4 * np.sqrt(0.25 / draws))


def test_progress_tells_of_every_prompt(network):
    told = []
    generate(
        network,
        NEVER,
        random_prompts(5, 9, 3),
        max_tokens=2,
        batch_size=2,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert told == [("generate: prompts", done, 3) for done in range(4)]


def test_text_comes_from_the_tokenizer(network, tmp_path):
    tokenizer = tiny_tokenizer(tmp_path)
    prompt = tokenizer.encode("Say it . Now !")
    (found,) = generate(network, tokenizer, [prompt], max_tokens=4)
    assert found.text == tokenizer.decode(list(found.token_ids))


def test_a_tokenizers_clean_up_takes_no_space_out_of_an_answer(network):
    def decode(ids, clean_up_tokenization_spaces=True):
        return "is ?".replace(" ?", "?" if clean_up_tokenization_spaces else " ?")

    tokenizer = SimpleNamespace(eos_token_ids=set(), decode=decode)
    assert generate(network, tokenizer, [[5]], max_tokens=1)[0].text == "is ?"


def test_the_gpus_precision_generates_too():
    network = tiny_llama(hidden=32, heads=2, kv_heads=1, quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    prompts = random_prompts(5, 3, prefix=6)
    found = generate(network, NEVER, prompts, max_tokens=4)
    assert [len(one.token_ids) for one in found] == [4, 4]


def test_an_answer_ends_before_a_text_to_stop_at_and_the_others_go_on(network):
    prompts = random_prompts(5, 1, 9, 3)
    whole = generate(network, NEVER, prompts, max_tokens=MAX_TOKENS)
    stop = f"{whole[0].token_ids[2]} {whole[0].token_ids[3]}"  # two tokens: no end token would do
    found = generate(network, NEVER, prompts, max_tokens=MAX_TOKENS, stop=["", stop], batch_size=2)
    assert (found[0].token_ids, found[0].finish_reason) == (whole[0].token_ids[:4], "stop")
    assert found[0].text == whole[0].text.split(stop)[0]
    for one, expected in zip(found[1:], whole[1:], strict=True):
        if stop not in expected.text:
            assert one == expected


def test_a_text_to_stop_at_that_comes_with_the_last_token_ends_the_answer(network):
    (prompt,) = random_prompts(5)
    (whole,) = generate(network, NEVER, [prompt], max_tokens=3)
    (found,) = generate(network, NEVER, [prompt], max_tokens=3, stop=[f" {whole.token_ids[2]}"])
    assert (found.finish_reason, found.token_ids) == ("stop", whole.token_ids)

"""Small chat templates, one of each kind that there is: what is learned of a chat, or why a template is refused."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import load
from tiny import CHATML, write_tokenizer

from mlxtune.data.batch import make_batch
from mlxtune.data.example import Example, Message, ToolCall
from mlxtune.data.faults import Fault
from mlxtune.data.render import Renderer
from mlxtune.data.rendering.chat_text import ChatTemplate
from mlxtune.errors import DataError

END = "<|im_end|>"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
GENERATION = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
    "{% else %}" + TURN + "{% endif %}{% endfor %}" + PROMPT
)
FORGETTING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT
)
CALLING = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<|call|>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "<|end_call|>{% endfor %}<|im_end|>\n{% endfor %}" + PROMPT
)
CALLING_IN_TEXT = CALLING.replace("call.function.arguments | tojson", "'' + call.function.arguments")
CALLING_IN_PYTHON = CALLING.replace("call.function.arguments | tojson", "call.function.arguments")
ONE_CALL = CALLING.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
STRIPPING = "{% for m in messages %}" + TURN.replace("m.content", "m.content.split('</think>')[-1] | trim")
STRIPPING += "{% endfor %}" + PROMPT
UNPROMPTED = "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %}{{ m.content }}<|im_end|>"
UNPROMPTED += "{% endif %}{% endfor %}"
UNSYSTEMATIC = "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}" + CHATML
CALL = ToolCall("find", {"words": 'a "b"', "most": 3, "deep": {"exact": True, "none": None}}, id="call_1")
TOOLS = ({"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}},)


def tokenizer_of(folder, template, *, special=("<|call|>", "<|end_call|>"), rstrip=()):
    """The tiny tokenizer with a template, more special tokens, and some merges, as trained ones have."""
    write_tokenizer(folder, chat_template=template)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    content["model"]["merges"] = [["Ġ", "a"], ["a", "b"], ["Ċ", "a"], ["Ċ", "Ċ"], ["Ġ", "Ġ"]]
    for left, right in content["model"]["merges"]:
        vocabulary[left + right] = len(vocabulary)
    kind = content["added_tokens"][0]
    for text in special:
        content["added_tokens"].append({**kind, "id": len(vocabulary), "content": text})
        vocabulary[text] = len(vocabulary)
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] in rstrip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return load(folder, eos_token_ids=[2])


@pytest.fixture
def make(tmp_path):
    return lambda template, **more: tokenizer_of(tmp_path, template, **more)


def chat(*messages, tools=()):
    return Example("chat", "rows.jsonl:3", messages=messages, tools=tools)


def user(content="Hi"):
    return Message("user", content)


def answer(content="Hello", **more):
    return Message("assistant", content, **more)


def learned(tokenizer, example, train_on="completions"):
    row = Renderer(tokenizer).render(example, train_on)
    return tokenizer.decode(row.token_ids[row.is_target].tolist())


def refusal(tokenizer, example, train_on="completions"):
    with pytest.raises(DataError) as caught:
        Renderer(tokenizer).render(example, train_on)
    assert caught.value.where == "rows.jsonl:3"
    assert caught.value.remedy
    return caught.value.message


TWO = chat(user(), answer(), user("More"), answer("Done"))


@pytest.mark.parametrize("template", [CHATML, GENERATION, UNPROMPTED, UNSYSTEMATIC, STRIPPING, FORGETTING, CALLING])
def test_plain_answers_are_learned_whatever_the_kind_of_template(make, template):
    assert learned(make(template), TWO) == f"Hello{END}Done{END}"


def test_a_template_that_raises_on_a_system_message_is_refused_with_its_words(make):
    tokenizer = make(UNSYSTEMATIC)
    message = refusal(tokenizer, chat(Message("system", "Be brief"), user(), answer()))
    assert message == "the chat template refuses the messages: no system messages"


def test_a_template_that_strips_thoughts_out_of_the_words_is_refused(make):
    row = chat(user(), answer("<think>hm</think>Hello"))
    assert "changes the words of messages[1] (assistant)" in refusal(make(STRIPPING), row)


def test_a_turn_that_is_left_out_is_noticed_though_its_words_stand_elsewhere(make):
    tokenizer = make("{% for m in messages if m.role != 'system' %}" + TURN + "{% endfor %}" + PROMPT)
    assert "words of messages[0] (system)" in refusal(tokenizer, chat(Message("system", "Hi"), user("Hi"), answer()))


def test_thoughts_are_learned_with_the_templates_signs_around_them(make):
    tokenizer = make(FORGETTING)
    row = chat(user(), answer(thinking="They greet."))
    assert learned(tokenizer, row) == f"<think>\nThey greet.\n</think>\nHello{END}"


def test_an_answer_whose_thoughts_later_turns_drop_is_refused_unless_only_the_last_is_learned(make):
    tokenizer = make(FORGETTING)
    row = chat(user(), answer(thinking="They greet."), user("More"), answer("Done"))
    assert "rewrites earlier turns" in refusal(tokenizer, row)
    assert learned(tokenizer, row, "last_completion") == f"Done{END}"


def test_a_template_without_a_place_for_thoughts_is_refused(make):
    row = chat(user(), answer(thinking="They greet."))
    assert "has no place for the thoughts of messages[1]" in refusal(make(CHATML), row)


def test_an_answer_with_thoughts_is_asked_for_with_thinking_on(make):
    tokenizer = make(CHATML + "{% if add_generation_prompt and not enable_thinking %}<think></think>{% endif %}")
    row = chat(user(), answer("<think>hm</think>Hello"))
    assert learned(tokenizer, row) == f"<think>hm</think>Hello{END}"
    prompt, _ = Renderer(tokenizer).prompt(row, None)
    assert tokenizer.decode(prompt).endswith("assistant\n")


@pytest.mark.parametrize("special", [("<|call|>", "<|end_call|>"), ()])
def test_a_call_is_learned_with_its_signs_up_to_the_end_of_the_turn(make, special):
    tokenizer = make(CALLING, special=special)
    row = chat(user(), answer("", tool_calls=(CALL,)), Message("tool", "none"), answer("Nothing"), tools=TOOLS)
    arguments = json.dumps(CALL.arguments)
    call = f'<|call|>{{"name": "find", "arguments": {arguments}}}<|end_call|>'
    assert learned(tokenizer, row) == f"{call}{END}Nothing{END}"
    prompt, asked = Renderer(tokenizer).prompt(chat(*row.messages[:2], tools=TOOLS), None)
    assert asked == call
    assert '"find"' in tokenizer.decode(prompt)


def test_words_before_a_call_are_learned_too(make):
    row = chat(user(), answer("Let me look.", tool_calls=(CALL,)), tools=TOOLS)
    assert learned(make(CALLING), row).startswith("Let me look.<|call|>")


@pytest.mark.parametrize("template", [CALLING_IN_TEXT, CALLING_IN_PYTHON])
def test_arguments_are_given_as_text_where_the_template_cannot_write_an_object_as_json(make, template):
    row = chat(user(), answer("", tool_calls=(CALL,)), tools=TOOLS)
    assert json.dumps(CALL.arguments, ensure_ascii=False) in learned(make(template), row)


def test_a_template_that_leaves_out_a_call_is_refused(make):
    row = chat(user(), answer("", tool_calls=(CALL, ToolCall("open", {"page": 12}))), tools=TOOLS)
    assert "leaves out or changes a tool call of messages[1]" in refusal(make(ONE_CALL), row)
    assert "leaves out or changes a tool call" in refusal(make(CHATML), chat(*row.messages))


def test_a_template_that_leaves_out_the_tools_is_refused(make):
    assert refusal(make(CHATML), chat(user(), answer(), tools=TOOLS)) == "the chat template leaves out the tools"


def test_an_end_of_turn_in_an_argument_is_refused(make):
    row = chat(user(), answer("", tool_calls=(ToolCall("find", {"words": f"a{END}b"}),)), tools=TOOLS)
    assert "ends the model's turn" in refusal(make(CALLING), row)


def test_a_turn_of_weight_0_is_not_learned(make):
    row = chat(user(), answer(weight=0), user("More"), answer("Done"))
    tokenizer = make(CHATML)
    assert learned(tokenizer, row) == f"Done{END}"
    everything = Renderer(tokenizer).render(row, "everything")
    assert tokenizer.decode(everything.token_ids[~everything.is_target].tolist()) == f"<|im_start|>Hello{END}"


def test_what_comes_after_the_last_answer_learned_is_left_out(make):
    row = chat(user(), answer(thinking="hm"), user("More"), answer("Done", weight=0))
    rendered = Renderer(tokenizer := make(FORGETTING)).render(row, "completions")
    assert tokenizer.decode(rendered.token_ids.tolist()).endswith(f"hm\n</think>\nHello{END}")


def test_a_row_whose_answers_all_have_the_weight_0_has_no_targets(make):
    rendered = Renderer(make(CHATML)).render(chat(user(), answer(weight=0)), "last_completion")
    assert not rendered.is_target.any()


def test_weights_are_those_of_the_turns_and_count_in_the_batch(make):
    row = chat(user(), answer("ok", weight=0.5), user("More"), answer("Done", weight=2))
    rendered = Renderer(make(CHATML)).render(row, "completions")
    assert rendered.weight is not None
    assert rendered.weight[rendered.is_target].tolist() == [0.5] * 3 + [2] * 5
    assert (rendered.weight[~rendered.is_target] == 0).all()
    plain = Renderer(make(CHATML)).render(chat(user("ab"), answer("ok")), "completions")
    batch = make_batch([rendered, plain], [0, 1], share_prefix=False, multiple=4)
    assert np.array(batch.target_weight).tolist() == [0.5] * 3 + [2] * 5 + [1] * 3 + [0]
    assert batch.weight_sum == 0.5 * 3 + 2 * 5 + 3
    assert batch.target_count == 11


def test_everything_counts_an_answer_by_its_weight_and_all_else_once(make):
    rendered = Renderer(make(CHATML)).render(chat(user(), answer("ok", weight=3)), "everything")
    assert rendered.weight is not None
    assert sorted(set(rendered.weight.tolist())) == [0, 1, 3]
    assert rendered.weight.tolist().count(3) == 3


def pair(better, worse, *before):
    return Example("preference", "rows.jsonl:3", messages=(*before, better), rejected=(worse,))


def test_both_sides_of_a_preference_have_the_same_prompt(make):
    tokenizer = make(CHATML)
    example = pair(answer("yes"), answer(" ab"), user())
    chosen, rejected = Renderer(tokenizer).render_pair(example, "completions")
    first = [int(side.is_target.argmax()) for side in (chosen, rejected)]
    assert first[0] == first[1]
    np.testing.assert_array_equal(chosen.token_ids[: first[0]], rejected.token_ids[: first[0]])
    said = [tokenizer.decode(side.token_ids[side.is_target].tolist()) for side in (chosen, rejected)]
    assert said == [f"yes{END}", f" ab{END}"]


def test_a_preference_whose_sides_are_asked_for_differently_is_refused(make):
    tokenizer = make(CHATML + "{% if add_generation_prompt and not enable_thinking %}<think></think>{% endif %}")
    template = make(
        tokenizer.chat_template.replace(
            "message['content']",
            "('' if '<think>' in message['content'] or "
            "message['role'] != 'assistant' else '<think></think>') + message['content']",
        )
    )
    example = pair(answer("<think>hm</think>yes"), answer("no"), user())
    with pytest.raises(DataError, match="begins the two answers otherwise"):
        Renderer(template).render_pair(example, "completions")


words = st.text(st.sampled_from("ab \n\té\U0001f600<|>"), min_size=0, max_size=8)
said = words.filter(lambda text: text.strip())
calls = st.lists(
    st.builds(ToolCall, st.sampled_from(["find", "open"]), st.dictionaries(said, said, max_size=2)), max_size=2
)


@st.composite
def examples(draw):
    """Any example: also such as a template refuses."""
    kind = draw(st.sampled_from(["text", "chat", "chat", "chat", "preference", "prompt_completion"]))
    if kind == "text":
        return Example(kind, "rows.jsonl:3", text=draw(said))
    if kind == "prompt_completion":
        return Example(kind, "rows.jsonl:3", messages=(user(draw(said)), answer(draw(said))))
    messages = [Message("system", draw(words))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [user(draw(said)), draw_answer(draw, kind)]
    rejected = (answer(draw(said)),) if kind == "preference" else ()
    tools = TOOLS if kind == "chat" and draw(st.booleans()) else ()
    return Example(kind, "rows.jsonl:3", messages=tuple(messages), rejected=rejected, tools=tools)


def draw_answer(draw, kind):
    own = tuple(draw(calls)) if kind == "chat" else ()
    thinking = draw(st.sampled_from(["", "", "hm"]))
    return answer(
        draw(words if own else said), thinking=thinking, tool_calls=own, weight=draw(st.sampled_from([0, 1, 1, 2.5]))
    )


@pytest.fixture(scope="module", params=[CHATML, FORGETTING, CALLING, STRIPPING, UNPROMPTED, None], ids=str)
def any_renderer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    return Renderer(tokenizer_of(folder, request.param, rstrip=("<|im_end|>",)))


def render_or_fault(renderer, example, train_on):
    try:
        return renderer.render(example, train_on)
    except DataError as error:
        return Fault("rows.jsonl:3", error.message, "rendering", str(error.remedy))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    rows=st.lists(examples(), min_size=1, max_size=6),
    train_on=st.sampled_from(["completions", "last_completion", "everything"]),
)
def test_many_rows_at_once_come_to_what_each_comes_to_alone(any_renderer, rows, train_on):
    together = list(any_renderer.render_stream(rows, train_on))
    for example, found in zip(rows, together, strict=True):
        alone = render_or_fault(any_renderer, example, train_on)
        if isinstance(alone, Fault):
            assert found == alone
            continue
        assert not isinstance(found, Fault)
        assert found[0] is example
        np.testing.assert_array_equal(found[1].token_ids, alone.token_ids)
        np.testing.assert_array_equal(found[1].is_target, alone.is_target)
        np.testing.assert_array_equal(found[1].weight, alone.weight)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(rows=st.lists(examples(), min_size=1, max_size=5), multiple=st.sampled_from([1, 8]))
def test_counts_of_tokens_agree_from_the_row_to_the_batch(any_renderer, rows, multiple):
    items = any_renderer.render_stream(rows, "completions")
    kept = [item[1] for item in items if not isinstance(item, Fault) and item[1].is_target.any()]
    for row in kept:
        assert row.token_ids.dtype == np.int32
        assert len(row.token_ids) == len(row.is_target)
        assert not row.is_target[0]
        assert row.weight is None or (row.weight > 0).tolist() == row.is_target.tolist()
    if not kept:
        return
    batch = make_batch(kept, range(len(kept)), share_prefix=len(kept) > 1, multiple=multiple)
    weights = [np.ones(len(row.token_ids)) if row.weight is None else row.weight for row in kept]
    assert batch.tokens == sum(len(row.token_ids) for row in kept)
    assert batch.target_count == sum(int(row.is_target.sum()) for row in kept)
    assert batch.weight_sum == pytest.approx(sum(w[row.is_target].sum() for w, row in zip(weights, kept, strict=True)))
    assert float(batch.target_weight.sum()) == pytest.approx(batch.weight_sum)


def test_faults_pass_through_in_their_places(make):
    fault = Fault("rows.jsonl:2", "it is no JSON")
    first, second, third = Renderer(make(CHATML)).render_stream([TWO, fault, TWO], "completions")
    assert second is fault
    assert not isinstance(first, Fault)
    assert not isinstance(third, Fault)


def test_a_template_is_given_what_transformers_gives_it(make):
    tokenizer = make(CALLING)
    message = answer("Well", thinking="hm", tool_calls=(CALL,))
    ours = ChatTemplate(tokenizer).text([user(), message], "rows.jsonl:3", tools=TOOLS, generation_prompt=True)
    function = {"name": CALL.name, "arguments": CALL.arguments}
    theirs = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Well", "reasoning_content": "hm", "tool_calls": [{"function": function}]},
    ]
    given = {"tools": list(TOOLS), "tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    assert ours == tokenizer.apply_chat_template(theirs, **given)

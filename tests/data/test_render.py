"""Tokens and masks: what is learned is the answers and the ends of their turns, for templates that allow it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import load
from reference.masks import byte_mask, chatml_pieces
from tiny import CHATML, SPECIAL, tiny_tokenizer, write_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError

END = "<|im_end|>"
TURNS = [("user", "Hi"), ("assistant", "Hello"), ("user", "More"), ("assistant", "Done")]
PLAIN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
PLAIN_PROMPT = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("chatml"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("bare"), chat_template=None)


@pytest.fixture
def with_template(tmp_path):
    return lambda template: tiny_tokenizer(tmp_path, chat_template=template)


def chat(turns, kind="chat"):
    return Example(kind, "rows.jsonl:3", messages=tuple(Message(role, content) for role, content in turns))


def text(string):
    return Example("text", "rows.jsonl:3", text=string)


def render(example, tokenizer, train_on="completions"):
    return Renderer(tokenizer).render(example, train_on)


def render_prompt(example, tokenizer, answer_after=None):
    return Renderer(tokenizer).prompt(example, answer_after)


def learned(row, tokenizer) -> str:
    return tokenizer.decode(row.token_ids[row.is_target].tolist())


def refusal(example, tokenizer, train_on="completions") -> DataError:
    with pytest.raises(DataError) as caught:
        render(example, tokenizer, train_on)
    assert caught.value.where == "rows.jsonl:3"
    assert caught.value.remedy
    return caught.value


def merging(folder, merges, template):
    """The tiny tokenizer with some merges, as trained ones have."""
    write_tokenizer(folder, chat_template=template)
    content = json.loads((folder / "tokenizer.json").read_text())
    for left, right in merges:
        content["model"]["vocab"][left + right] = len(content["model"]["vocab"])
    content["model"]["merges"] = merges
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return load(folder, eos_token_ids=[2])


# Everything but special tokens, which no answer may hold, and surrogates, which no file does.
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda string: string.strip() and not any(token in string for token in SPECIAL)
)
exchanges = st.lists(st.tuples(words, words), min_size=1, max_size=4)


@st.composite
def chats(draw):
    turns = [("system", draw(st.one_of(st.just(""), words)))] if draw(st.booleans()) else []
    for user, assistant in draw(exchanges):
        turns += [("user", user), ("assistant", assistant)]
    return turns


@given(turns=chats())
def test_the_learned_text_is_each_answer_and_its_end_of_turn(tokenizer, turns):
    row = render(chat(turns), tokenizer)
    assert learned(row, tokenizer) == "".join(content + END for role, content in turns if role == "assistant")
    assert row.token_ids.dtype == np.int32
    assert row.where == "rows.jsonl:3"


@given(turns=chats())
def test_the_mask_is_the_one_counted_by_hand(tokenizer, turns):
    row = render(chat(turns), tokenizer)
    pieces = chatml_pieces(turns, default_system="You are small.")
    assert tokenizer.decode(row.token_ids.tolist()) == "".join(piece for piece, _ in pieces)
    np.testing.assert_array_equal(row.is_target, byte_mask(pieces))


@given(turns=chats())
def test_last_completion_learns_the_last_answer_of_the_same_tokens(tokenizer, turns):
    row = render(chat(turns), tokenizer, "last_completion")
    assert learned(row, tokenizer) == turns[-1][1] + END
    np.testing.assert_array_equal(row.token_ids, render(chat(turns), tokenizer).token_ids)


@given(turns=chats())
def test_everything_learns_each_token_but_the_first(tokenizer, turns):
    row = render(chat(turns), tokenizer, "everything")
    assert not row.is_target[0]
    assert row.is_target[1:].all()
    np.testing.assert_array_equal(row.token_ids, render(chat(turns), tokenizer).token_ids)


@given(turns=chats())
def test_a_row_goes_on_where_its_prompt_ends(tokenizer, turns):
    prompt, reference = render_prompt(chat(turns), tokenizer)
    row = render(chat(turns), tokenizer, "last_completion")
    first = int(np.flatnonzero(row.is_target)[0])
    assert row.token_ids[:first].tolist() == prompt
    assert reference == turns[-1][1]


@given(string=words)
def test_a_text_row_is_learned_throughout_and_ends_with_eos(tokenizer, string):
    row = render(text(string), tokenizer)
    assert tokenizer.decode(row.token_ids.tolist()) == string + END
    assert not row.is_target[0]
    assert row.is_target[1:].all()


@given(prompt=words, completion=words)
def test_without_a_template_prompt_and_completion_stand_in_sequence(bare, prompt, completion):
    turns = [("user", prompt), ("assistant", completion)]
    row = render(chat(turns, "prompt_completion"), bare)
    assert bare.decode(row.token_ids.tolist()) == prompt + completion + END
    assert learned(row, bare) == completion + END
    assert render_prompt(chat(turns, "prompt_completion"), bare) == (bare.encode(prompt), completion)


def test_with_a_template_a_prompt_and_its_completion_are_a_chat(tokenizer):
    pair = render(chat(TURNS[:2], "prompt_completion"), tokenizer)
    np.testing.assert_array_equal(pair.token_ids, render(chat(TURNS[:2]), tokenizer).token_ids)


def test_a_text_that_ends_with_eos_gets_no_second(tokenizer):
    assert render(text(f"a{END}"), tokenizer).token_ids.tolist().count(2) == 1


def test_where_the_tokenizer_adds_bos_the_first_word_of_a_text_is_learned_too(tmp_path):
    write_tokenizer(tmp_path, chat_template=None)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load(tmp_path, eos_token_ids=[2])
    row = render(text("ab"), tokenizer)
    assert tokenizer.decode(row.token_ids.tolist()) == f"<|im_start|>ab{END}"
    assert row.is_target.tolist() == [False, True, True, True]
    np.testing.assert_array_equal(row.token_ids, render(text("<|im_start|>ab"), tokenizer).token_ids)
    pair = render(chat([("user", "a"), ("assistant", "b")], "prompt_completion"), tokenizer)
    np.testing.assert_array_equal(pair.token_ids, row.token_ids)
    assert pair.is_target.tolist() == [False, False, True, True]
    assert Renderer(tokenizer).encode_text("ab") == row.token_ids[:-1].tolist()


def test_a_token_that_would_span_prompt_and_answer_is_split_as_generation_would_have_it(tmp_path):
    tokenizer = merging(tmp_path, [["Ġ", "H"]], PLAIN + PLAIN_PROMPT)
    whole = tokenizer.encode("user: Hi\nassistant: Hello", add_special_tokens=False)
    row = render(chat(TURNS[:2]), tokenizer)
    prompt, _ = render_prompt(chat(TURNS[:2]), tokenizer)
    assert len(row.token_ids) == len(whole) + 2  # the space apart, and EOS
    assert row.token_ids[: len(prompt)].tolist() == prompt
    assert learned(row, tokenizer) == "Hello" + END
    assert tokenizer.decode(row.token_ids.tolist()) == "user: Hi\nassistant: Hello" + END


def test_a_template_that_ends_no_turn_gets_eos_after_the_last_answer(with_template):
    tokenizer = with_template(PLAIN + PLAIN_PROMPT)
    row = render(chat(TURNS), tokenizer)
    said = "user: Hi\nassistant: Hello\nuser: More\nassistant: Done" + END
    assert tokenizer.decode(row.token_ids.tolist()) == said
    assert learned(row, tokenizer) == "HelloDone" + END


def test_a_template_may_add_to_the_end_of_a_whole_conversation(with_template):
    ends = "{% if not add_generation_prompt %}{{ '<|endoftext|>' }}{% endif %}"
    tokenizer = with_template(CHATML + ends)
    row = render(chat(TURNS), tokenizer)
    assert learned(row, tokenizer) == f"Hello{END}Done{END}"
    assert row.token_ids[-1] == 2


def test_a_template_may_trim_answers_and_set_them_apart_with_spaces(with_template):
    tokenizer = with_template(
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[' + m['content'] + ']' }}"
        "{% else %}{{ ' ' + m['content'] | trim + ' <|im_end|>' }}{% endif %}{% endfor %}"
    )
    row = render(chat([("user", "Hi"), ("assistant", "\nHello  ")]), tokenizer)
    assert learned(row, tokenizer) == f" Hello {END}"


def test_a_template_that_rewrites_earlier_turns_is_refused_unless_only_the_last_answer_is_learned(with_template):
    # As thinking models do: only the last answer has room for thoughts.
    tokenizer = with_template(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
        "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think></think>' }}{% endif %}"
    )
    error = refusal(chat(TURNS), tokenizer)
    assert "rewrites earlier turns" in error.message
    assert "messages[1] (assistant)" in error.message
    assert "last_completion" in str(error.remedy)
    assert learned(render(chat(TURNS), tokenizer, "last_completion"), tokenizer) == "Done" + END


def test_templates_are_asked_with_thinking_off(with_template):
    tokenizer = with_template(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' %}{{ '<think></think>' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if not enable_thinking %}{{ '<think></think>' }}{% endif %}{% endif %}"
    )
    assert learned(render(chat(TURNS), tokenizer), tokenizer) == f"Hello{END}Done{END}"
    prompt = Renderer(tokenizer).encode_prompt([Message("user", "Hi")], "prompt 1")
    assert tokenizer.decode(prompt).endswith("assistant\n<think></think>")


def test_a_template_whose_answer_reads_otherwise_once_turns_follow_is_refused(with_template):
    tokenizer = with_template(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
        "{{ '<|im_end|>' if loop.last else '<|endoftext|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert "rewrites earlier turns" in refusal(chat(TURNS), tokenizer).message


def test_a_template_that_strips_thoughts_is_refused(with_template):
    tokenizer = with_template(CHATML.replace("message['content']", "message['content'].split('</think>')[-1]"))
    thoughtful = [("user", "Hi"), ("assistant", "<think>hm</think>Hello")]
    assert "leaves out or changes the words of messages[1]" in refusal(chat(thoughtful), tokenizer).message


def test_a_template_that_drops_a_turn_is_refused(with_template):
    tokenizer = with_template(
        "{% for m in messages if m['role'] != 'system' %}{{ m['role'] + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
    )
    assert "words of messages[0] (system)" in refusal(chat([("system", "Be brief"), *TURNS]), tokenizer).message


def test_a_template_that_puts_words_before_the_answer_is_refused(with_template):
    tokenizer = with_template(CHATML.replace("message['role'] + '\n'", "message['role'] + '\nfinal: '"))
    assert "puts others before them" in refusal(chat(TURNS), tokenizer).message


def test_a_template_that_refuses_the_roles_is_quoted(with_template):
    tokenizer = with_template("{{ raise_exception('System role not supported') }}")
    assert refusal(chat(TURNS), tokenizer).message.endswith("System role not supported")


def test_a_chat_row_without_a_template_is_refused(bare):
    assert "no chat template" in refusal(chat(TURNS), bare).message


@pytest.mark.parametrize("kind", ["chat", "prompt_completion"])
def test_an_end_of_turn_inside_an_answer_is_refused(tokenizer, bare, kind):
    turns = [("user", "Hi"), ("assistant", f"a{END}b")]
    assert repr(END) in refusal(chat(turns, kind), tokenizer if kind == "chat" else bare).message


def test_a_tokenizer_without_eos_is_refused_where_it_is_needed(tmp_path):
    write_tokenizer(tmp_path, chat_template=None)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["eos_token"]
    path.write_text(json.dumps(config))
    assert "no EOS token" in refusal(text("a"), load(tmp_path)).message


def test_the_prompt_of_a_text_row_ends_after_the_first_answer_mark(tokenizer):
    prompt, reference = render_prompt(text("Q: a\nA: b\nA: c\n"), tokenizer, "\nA:")
    assert tokenizer.decode(prompt) == "Q: a\nA:"
    assert reference == "b\nA: c"


@pytest.mark.parametrize(("string", "mark"), [("Q: a", "\nA:"), ("Q: a\nA: ", "\nA:"), ("Q: a\nA: b", None)])
def test_a_text_row_without_a_prompt_or_an_answer_cannot_be_asked(tokenizer, string, mark):
    with pytest.raises(DataError) as caught:
        render_prompt(text(string), tokenizer, mark)
    assert caught.value.where == "rows.jsonl:3"


def test_a_prompt_of_messages_is_encoded_as_training_had_it(tokenizer):
    messages = [Message("user", "Hi")]
    assert Renderer(tokenizer).encode_prompt(messages, "prompt 1") == render_prompt(chat(TURNS[:2]), tokenizer)[0]

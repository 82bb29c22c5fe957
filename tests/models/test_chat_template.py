"""A template in place of the model's own: what it renders, where it ends a turn, and which are refused."""

import hashlib
from functools import partial

import pytest
from tiny import tiny_backend, tiny_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.render import Renderer
from mlxtune.deployment.export.ollama_template import go_template
from mlxtune.errors import DataError, ModelError
from mlxtune.models import chat_sandbox
from mlxtune.models.chat_template import PACKAGED, chat_template_sha256, put_chat_template
from mlxtune.models.sandbox_budget import Budget
from mlxtune.models.tokenizer import add_ends, open_tokenizer
from mlxtune.recipe.choices import CHAT_TEMPLATES

TURNS = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"), ("user", "So?"), ("assistant", "No")]
EXPECTED = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\nNo<|im_end|>"
    ),
    "instruction": (
        "### System:\nBe brief.\n\n### Instruction:\nHi\n\n### Response:\nYes<|im_end|>\n\n"
        "### Instruction:\nSo?\n\n### Response:\nNo<|im_end|>"
    ),
}
LOOP = "{% for message in messages %}{{ message['content'] }}"


@pytest.fixture
def bare(tmp_path):
    return tiny_tokenizer(tmp_path, chat_template=None)


@pytest.fixture
def written(tmp_path):
    """A function that writes a template into a file."""

    def write(text):
        path = tmp_path / "own.jinja"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def example():
    return Example("chat", "rows.jsonl:1", messages=tuple(Message(*turn) for turn in TURNS))


def test_the_packaged_templates_are_those_that_a_recipe_may_name():
    assert sorted(path.stem for path in PACKAGED.iterdir()) == sorted(CHAT_TEMPLATES)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_packaged_template_renders_turns_whose_answers_and_ends_are_learned(bare, name):
    put_chat_template(bare, name)
    row = Renderer(bare).render(example(), "completions")
    assert bare.decode(row.token_ids.tolist()) == EXPECTED[name]
    assert bare.decode(row.token_ids[row.is_target].tolist()) == "Yes<|im_end|>No<|im_end|>"


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_packaged_template_begins_with_bos_where_the_tokenizer_puts_it_before_any_text(tmp_path, bare, name):
    put_chat_template(bare, name)
    without = Renderer(bare).encode_prompt([Message("user", "Hi")], "here")
    backend = tiny_backend()
    add_ends(backend, bos="<|im_start|>")
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = open_tokenizer(tmp_path, name)
    assert Renderer(tokenizer).encode_prompt([Message("user", "Hi")], "here") == [tokenizer.bos_token_id, *without]


def test_a_template_replaces_the_models_own(tmp_path, written):
    tokenizer = tiny_tokenizer(tmp_path)
    own = tokenizer.chat_template
    tokenizer = open_tokenizer(tmp_path, written(LOOP + "{{ eos_token }}{% endfor %}"))
    assert own is not None
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x<|im_end|>"


def test_the_token_that_ends_a_turn_ends_a_generation(bare, written):
    assert bare.eos_token_ids == {2}
    put_chat_template(bare, written(LOOP + "<|endoftext|>{% endfor %}"))
    assert bare.eos_token_ids == {0, 2}


def test_a_template_that_ends_no_turn_is_left_so_and_rows_get_eos(bare, written):
    put_chat_template(bare, written(LOOP + "\n{% endfor %}"))
    assert bare.eos_token_ids == {2}
    row = Renderer(bare).render(example(), "last_completion")
    assert bare.decode(row.token_ids[row.is_target].tolist()) == "No<|im_end|>"


@pytest.mark.parametrize("end", ["<|eot_id|>\n", " ###"])
def test_an_end_of_turn_that_is_no_token_is_refused(bare, written, end):
    path = written(LOOP + end + "{% endfor %}")
    with pytest.raises(ModelError, match="could never stop") as caught:
        put_chat_template(bare, path)
    assert repr(end.strip()) in caught.value.message
    assert "instruction" in str(caught.value.remedy)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a\n{% for message in messages %}\nb", 3, "endfor"),
        ("a\n\n{{ messages | sparkle }}", 3, "sparkle"),
        ("a\n{% if true %}\n{{ messages | sparkle }}{% endif %}", 3, "sparkle"),
        ("a\n{{ messages[0].content + 1 }}", 2, "concatenate"),
        ("a\n{{ raise_exception('no system') }}", 2, "no system"),
        ("a\n{{ messages.__class__.__mro__ }}\n{{ messages.append(1) }}", 2, "unsafe"),
    ],
)
def test_what_is_wrong_in_a_template_is_told_with_its_line(bare, written, text, line, said):
    path = written(text)
    with pytest.raises(ModelError, match=said) as caught:
        put_chat_template(bare, path)
    assert caught.value.where == f"{path}:{line}"
    assert caught.value.remedy


FAILING = {
    "{{ 1/0 }}": "division by zero",
    "{{ range(10**9) }}": "Range too big",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "recursion",
    "{{ 'a' * 10**18 }}": "it makes too much of one row",
    "{{ 'a'.encode('nope') }}": "a chat template may not call 'encode'",
    "{{ 'abc' | dictsort }}": "'str' object has no attribute 'items'",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "it makes too much of one row",
    "{{ (1e400) | int }}": "'inf' is not defined",
}
"""A stranger's program goes wrong in every way that a program can."""


@pytest.mark.parametrize("text", FAILING)
def test_a_template_that_fails_in_any_other_way_is_refused_too(tmp_path, bare, written, text, monkeypatch):
    monkeypatch.setattr(chat_sandbox, "Budget", partial(Budget, seconds=600))  # a busy machine is no failure
    with pytest.raises(ModelError, match=FAILING[text]):
        put_chat_template(bare, written(text))
    with pytest.raises(DataError, match=FAILING[text]):
        Renderer(tiny_tokenizer(tmp_path, chat_template=text)).render(example(), "completions")
    with pytest.raises(ModelError, match=f"(?s)cannot be said in Ollama's.*{FAILING[text]}"):
        go_template(tiny_tokenizer(tmp_path, chat_template=text), "here", leaves_bos=False)


def test_a_template_without_the_answer_is_refused(bare, written):
    with pytest.raises(ModelError, match="leaves out the answer"):
        put_chat_template(bare, written("{{ messages[0].content }}"))


def test_what_cannot_be_read_is_told_with_the_names_of_those_that_can(bare, tmp_path):
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    for template in ("chatmI", tmp_path / "none.jinja", tmp_path, tmp_path / "latin.jinja"):
        with pytest.raises(ModelError) as caught:
            put_chat_template(bare, template)
        assert caught.value.where == str(template)
        assert "chatml, instruction" in str(caught.value.remedy)


def test_a_template_is_known_by_what_it_says(written):
    path = written("{{ messages }}")
    assert chat_template_sha256(path) == hashlib.sha256(b"{{ messages }}").hexdigest()
    assert chat_template_sha256(None) is None
    assert chat_template_sha256("chatml") != chat_template_sha256("instruction")

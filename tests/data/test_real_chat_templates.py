"""Real models' chat templates: what is learned of a chat is the answers and their ends, or the template is refused.

The templates are other people's and lie beside the checkout, where they are; tests of each kind of template that need
nothing from there are in test_render.py.
"""

import json
import re
from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import load
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mlxtune.data.normalize import Example, Message
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "chat_templates"
SPECIAL = re.compile(r"<\|[a-z_]+\|>|</?s>|<bos>|<eos>|<(?:start|end)_of_turn>|\[/?INST\]")
DATE = re.compile(r"Date: .*")  # some templates write today's

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"needs the chat templates in {FOLDER}")

END = {"llama": "<|eot_id|>", "gemma": "<end_of_turn>", "phi": "<|end|>", "mistral": "</s>"}
REFUSED = {
    # an earlier answer loses the room for thoughts that generation would have given it
    ("qwen3", "two answers"): "rewrites earlier turns",
    ("qwen3", "system"): "rewrites earlier turns",
    ("gemma-2", "system"): "System role not supported",
    ("mistral-7b-instruct-v0.1", "system"): "roles must alternate",
    # the first drops a system message; the second has it in the last turn alone, if that is the user's
    ("mistral-7b-instruct-v0.3", "system"): "words of messages[0] (system)",
    ("mistral-nemo-instruct-2407", "system"): "words of messages[0] (system)",
}
CHATS = {
    "one answer": [("user", "Hi there"), ("assistant", "Hello\n\nyou")],
    "two answers": [("user", "Hi"), ("assistant", "Hello you"), ("user", "More?"), ("assistant", "Done. é")],
    "system": [("system", "Be brief"), ("user", "Hi"), ("assistant", "A"), ("user", "More?"), ("assistant", "B")],
}


def read(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").split("\n") if line]


def templates():
    return {row["template"]: row["chat_template"] for row in read("templates.jsonl")} if FOLDER.is_dir() else {}


@pytest.fixture(params=templates())
def named_tokenizer(request, tmp_path):
    """A template's name, and a tokenizer of bytes with it and the special tokens of its renderings."""
    cases = [row for row in read("rendered.jsonl") if row["template"] == request.param]
    named = {key: cases[0]["data"][key] for key in ("bos_token", "eos_token") if cases[0]["data"].get(key)}
    found = SPECIAL.findall("".join(case.get("expected", "") for case in cases))
    special = sorted({*found, *named.values()})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate([*special, *alphabet])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in special])
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    config["chat_template"] = templates()[request.param]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return request.param, load(tmp_path)


@pytest.mark.parametrize("chat", CHATS)
def test_the_learned_text_is_the_answers_and_their_ends_or_the_template_is_refused(named_tokenizer, chat):
    name, tokenizer = named_tokenizer
    example = Example("chat", "rows.jsonl:1", messages=tuple(Message(*turn) for turn in CHATS[chat]))
    if (name, chat) in REFUSED:
        with pytest.raises(DataError, match=re.escape(REFUSED[name, chat])):
            Renderer(tokenizer).render(example, "completions")
        return
    row = Renderer(tokenizer).render(example, "completions")
    learned = tokenizer.decode(row.token_ids[row.is_target].tolist())
    end = END.get(name.split("-")[0], "<|im_end|>")
    space = " " if name == "mistral-7b-instruct-v0.3" else ""
    answers = [content for role, content in CHATS[chat] if role == "assistant"]
    assert learned == "".join(space + answer + space + end for answer in answers)
    prompt, _ = Renderer(tokenizer).prompt(example, None)
    assert row.token_ids[: len(prompt)].tolist() == prompt


def test_the_rows_text_is_the_reference_rendering_up_to_its_last_end(named_tokenizer):
    name, tokenizer = named_tokenizer
    if name == "smollm3":
        pytest.skip("the reference has thinking on, which changes the system message")
    compared = 0
    for case in read("rendered.jsonl"):
        messages = case["data"]["messages"]
        fits = case["template"] == name and "expected" in case and messages[-1]["role"] == "assistant"
        if not fits or case["data"]["add_generation_prompt"]:
            continue
        turns = tuple(Message(turn["role"], turn["content"]) for turn in messages)
        try:
            row = Renderer(tokenizer).render(Example("chat", "rows.jsonl:1", messages=turns), "last_completion")
        except DataError:
            continue
        text, expected = (DATE.sub("Date: ", t) for t in (tokenizer.decode(row.token_ids.tolist()), case["expected"]))
        assert expected.startswith(text)
        assert not SPECIAL.sub("", expected[len(text) :]).strip()
        compared += 1
    assert compared

"""The Modelfile asks as training asked: the same text for every chat, the same ends, the same system message."""

import json
import re
from pathlib import Path

import gguf
import pytest
from tiny import CHATML, tiny_model_folder, tiny_tokenizer

from mlxtune.deployment.export.gguf import export_gguf
from mlxtune.deployment.export.go_template import quoted, render
from mlxtune.deployment.export.ollama import export_ollama
from mlxtune.deployment.export.ollama_template import RAW, go_template
from mlxtune.errors import ModelError, UsageError
from mlxtune.models.gguf.header import read_header
from mlxtune.runs.prompting import Prompting

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "chat_templates"


def with_template(folder, template, bos="<s>"):
    """A real tokenizer, whose template is another."""
    tokenizer = tiny_tokenizer(folder, chat_template=template)
    tokenizer.bos_token, tokenizer.eos_token = bos, "</s>"
    return tokenizer


def jinja(tokenizer, turns):
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=False)


def said_by_ollama(text, turns):
    """What Ollama makes of a chat: system messages joined in one, and all turns in Messages."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    messages = [{"Role": turn["role"], "Content": turn["content"]} for turn in turns]
    return render(text, {"System": system, "Messages": messages})


def shared(name):
    path = SHARED / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.is_file() else []


TEMPLATES = {one["template"]: one["chat_template"] for one in shared("templates.jsonl")}
needs_shared = pytest.mark.skipif(not TEMPLATES, reason=f"{SHARED} is not there")


@needs_shared
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_chats_of_a_real_template_come_out_as_other_code_rendered_them(tmp_path, name):
    cases = [one for one in shared("rendered.jsonl") if one["template"] == name and "expected" in one]
    asked = [one for one in cases if one["data"].get("add_generation_prompt")]
    bos = asked[0]["data"].get("bos_token", "<s>")
    go = go_template(with_template(tmp_path, TEMPLATES[name], bos), name, leaves_bos=True)
    compared = 0
    for case in asked:
        turns = case["data"]["messages"]
        if "strftime_now" in TEMPLATES[name] or "enable_thinking" in TEMPLATES[name]:
            continue  # rendered on another day, or with thoughts
        if turns[-1]["role"] != "user":
            continue  # Ollama goes on with such an answer
        if turns[0]["role"] == "system" and any("system message" in note for note in go.notes):
            continue
        expected = case["expected"].removeprefix(bos) if case["expected"].startswith(bos) else case["expected"]
        assert said_by_ollama(go.text, turns) == expected, turns
        compared += 1
    assert compared or go.notes or "enable_thinking" in TEMPLATES[name]


@needs_shared
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_real_template_can_be_said(tmp_path, name):
    tokenizer = with_template(tmp_path, TEMPLATES[name])
    go = go_template(tokenizer, "here", leaves_bos=False)
    turns = [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(["user", "assistant", "user"])]

    assert said_by_ollama(go.text, turns) == jinja(tokenizer, turns)
    assert any("date" in note for note in go.notes) == ("strftime_now" in TEMPLATES[name])


MINE = {
    "chatml": (CHATML, []),
    "system in the user's turn": (
        """{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{% elif m.role == 'user' %}[INST] {%
        if loop.last and messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif
        %}{{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}""",
        [],
    ),
    "no system": (
        """{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif
        %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}<assistant>""",
        ["takes no system message", "takes white space off the ends"],
    ),
    "system left out": (
        "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>",
        ["leaves system messages out"],
    ),
    "braces of its own around a turn": (
        "{{ bos_token }}{{ '{' }}{% for m in messages %}{{ m.role + '{' + m.content + '}' }}{% endfor %}{",
        [],
    ),
    "a template in the template": (
        "{% for m in messages %}{{ '{{ ' + m.role + ' }}' + m.content }}{% endfor %}{{ '{{' }}>",
        [],
    ),
}


@pytest.mark.parametrize("name", MINE)
def test_a_template_of_another_shape_can_be_said_and_its_limits_are_told(tmp_path, name):
    template, notes = MINE[name]
    tokenizer = with_template(tmp_path, template)

    go = go_template(tokenizer, "here", leaves_bos=False)

    assert len(go.notes) == len(notes)
    for said, expected in zip(go.notes, notes, strict=True):
        assert expected in said
    turns = [{"role": "user", "content": '{{ .System }} "x"'}]
    assert said_by_ollama(go.text, turns) == jinja(tokenizer, turns)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ loop.index }}: {{ m.content }}{% endfor %}", "depends on more than who speaks"),
        ("{% for m in messages[-1:] %}{{ m.content }}{% endfor %}", "leaves out a turn"),
        ("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", "on how many there are"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "leaves out a turn"),
        ("{% for m in messages %}{{ m.content | replace('2', 'two') }}{% endfor %}", "says one twice|leaves out"),
        ("{% for m in messages %}{{ m.content | escape }}{% endfor %}", "a chat of 3 turns|a chat of 5 turns"),
        ("{{ raise_exception('not today') }}", "not today"),
        (
            "{% for m in messages %}{{ '[' if messages[0].role == 'system' else '(' }}{{ m.content }}{% endfor %}",
            "system",
        ),
    ],
)
def test_a_template_that_go_cannot_say_is_refused_with_the_reason(tmp_path, template, reason):
    with pytest.raises(ModelError, match=f"(?s)cannot be said in Ollama's template language: .*({reason})") as caught:
        go_template(with_template(tmp_path, template), "here", leaves_bos=False)
    assert "llama.cpp's server" in caught.value.remedy


def test_bos_is_left_to_ollama_only_where_ollama_adds_it(tmp_path):
    tokenizer = with_template(tmp_path, "{{ bos_token }}" + CHATML)

    texts = [go_template(tokenizer, "here", leaves_bos=one).text for one in (True, False)]

    assert "<s>" not in texts[0]
    assert texts[1].count("<s>") == 2  # with a system message and without


def test_bos_is_left_out_before_a_brace_too(tmp_path):
    template = "{{ bos_token }}{{ '{' }}{% for m in messages %}{{ m.role + m.content }}{% endfor %}>"
    tokenizer = with_template(tmp_path, template)

    text = go_template(tokenizer, "here", leaves_bos=True).text

    turns = [{"role": "user", "content": "x"}]
    assert "<s>" + said_by_ollama(text, turns) == jinja(tokenizer, turns)


def modelfile(folder):
    """Instructions and their values, read as Ollama's parser reads three quotes."""
    text, found = (folder / "Modelfile").read_text(encoding="utf-8"), []
    while text:
        name, _, rest = text.partition(" ")
        if name == "PARAMETER":
            key, _, rest = rest.partition(" ")
            name = f"PARAMETER {key}"
        if rest.startswith('"""'):
            value, _, text = rest[3:].partition('"""')
            text = text.removeprefix("\n")
        else:
            value, _, text = rest.partition("\n")
        found.append((name, value))
    return found


def test_the_folder_has_the_model_and_asks_as_in_training(tmp_path):
    model = tiny_model_folder(tmp_path / "model")
    (model / "mlxtune.json").write_text(Prompting(raw=False, system='Say "yes".\nNothing else').to_json())
    (model / "LICENSE").write_text('All of it,\u00a0"""as is"""')

    report = export_ollama(model, tmp_path / "out", type="q8_0")

    said = modelfile(tmp_path / "out")
    assert [name for name, _ in said[:3]] == ["FROM", "TEMPLATE", "SYSTEM"]
    values = dict(said)
    assert values["FROM"] == "./model.gguf"
    assert values["SYSTEM"] == 'Say "yes".\nNothing else'
    assert (values["PARAMETER temperature"], values["PARAMETER repeat_penalty"]) == ("0.0", "1.0")
    assert values["PARAMETER num_ctx"] == "2048"
    assert ("PARAMETER stop", "<|im_end|>") in said
    assert values["LICENSE"] == "All of it, '''as is'''"
    turns = [{"role": "user", "content": "Hello"}]
    assert said_by_ollama(values["TEMPLATE"], turns) == (
        "<|im_start|>system\nYou are small.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    types = {one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors}
    assert types == {"F32", "Q8_0"}
    # the template says bos itself, so nobody else may
    assert read_header(tmp_path / "out" / "model.gguf").metadata["tokenizer.ggml.add_bos_token"] is False
    assert (report.name, report.type, report.notes) == ("model", "q8_0", [])


def test_what_is_read_is_never_replaced(tmp_path):
    model = tiny_model_folder(tmp_path / "model")
    export_gguf(model, tmp_path / "x.gguf", type="f32")

    for export, source, out in ((export_ollama, model, model), (export_gguf, tmp_path / "x.gguf", tmp_path / "x.gguf")):
        before = out.stat().st_mtime_ns
        with pytest.raises(UsageError, match="the base model is there, and is not replaced"):
            export(source, out, force=True)
        assert out.stat().st_mtime_ns == before


def test_a_model_of_plain_text_gets_its_prompt_as_it_is(tmp_path):
    model = tiny_model_folder(tmp_path / "model", chat_template=None)

    export_ollama(model, tmp_path / "out")

    said = modelfile(tmp_path / "out")
    assert dict(said)["TEMPLATE"] == RAW
    assert ("PARAMETER stop", "<|im_end|>") in said
    assert "SYSTEM" not in dict(said)


@pytest.mark.parametrize(("system", "what"), [('a """ b', "three quotes"), ("a\u200bb", r"U\+200B")])
def test_a_system_message_that_the_parser_would_change_is_refused(tmp_path, system, what):
    model = tiny_model_folder(tmp_path / "model")
    (model / "mlxtune.json").write_text(Prompting(raw=False, system=system).to_json())

    with pytest.raises(ModelError, match=f"no way to say .*{what}"):
        export_ollama(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{{ .System }}", "S"),
        ("{{ if .System }}a{{ else }}b{{ end }}c", "ac"),
        ("{{ if .Absent }}a{{ else if .System }}b{{ else }}c{{ end }}", "b"),
        ("{{ if not .System }}{{ if .System }}a{{ end }}b{{ else }}c{{ end }}", "c"),
        ("{{ range $i, $m := .Messages }}{{ .Role }}{{ $i }}{{ $.System }}{{ $m.Content }};{{ end }}", "u0Sx;a1Sy;"),
        (
            "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ $last }} {{ end }}",
            "false true ",
        ),
        ("{{ if and .System .Absent }}a{{ end }}{{ if and .System 1 }}b{{ end }}", "b"),
        (quoted('a {{ .System }} "b"\n'), 'a {{ .System }} "b"\n'),
        (f"{quoted('U{')}{{{{ .System }}}}{quoted('}')}", "U{S}"),
        ("{ {{ .System }}{", "{ S{"),
    ],
)
def test_the_renderer_does_what_go_does(template, expected):
    """By the documentation of text/template."""
    messages = [{"Role": "u", "Content": "x"}, {"Role": "a", "Content": "y"}]
    assert render(template, {"System": "S", "Messages": messages}) == expected


@pytest.mark.parametrize("template", ["U{{{ .System }}", "{{{{ .System }}", "a {{.System}}"])
def test_braces_that_go_would_take_for_the_beginning_of_an_action_are_refused(template):
    with pytest.raises(ValueError, match="brace"):
        render(template, {"System": "S"})


@pytest.mark.parametrize("name", ["run of Jörg", "Модель", "模型-7b.", "..."])
def test_the_name_is_one_that_ollama_takes(tmp_path, name):
    report = export_ollama(tiny_model_folder(tmp_path / name), tmp_path / "out")

    assert re.fullmatch("[a-z0-9][a-z0-9._-]*", report.name)


@pytest.mark.parametrize("template", ["{{ end }}", "{{ if .System }}a"])
def test_a_template_without_its_other_half_is_no_template(template):
    with pytest.raises(ValueError, match="has no"):
        render(template, {"System": "S"})

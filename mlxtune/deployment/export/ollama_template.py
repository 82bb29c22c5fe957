"""A chat template in Jinja as the same one in Go's template language, which Ollama speaks.

The two cannot be translated line by line, so the Jinja template is asked what it makes of a few chats with marked
words. Where it puts the same text at the same place each time, that text is what the Go template says; then both render
other chats, and have to agree to the last character. A template whose text depends on more than the place of a turn is
refused. The price is that what the chats asked did not show, such as tools, is not in the Go template.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mlxtune.data.example import Message, Role
from mlxtune.data.rendering.chat_text import ChatTemplate
from mlxtune.deployment.export.go_template import quoted, render
from mlxtune.errors import DataError, ModelError
from mlxtune.models.chat_template import failure_of

RAW = "{{ .Prompt }}"
"""For a model that takes plain text."""

Turns = Sequence[Mapping[str, str]]
Jinja = Callable[[Turns], str]
"""What the chat template makes of turns, with the generation prompt. Raises: _RefusedError."""

SYSTEM, USERS, ANSWERS = "Zsystem0Z", ("Zuser1Z", "Zuser3Z", "Zuser5Z"), ("Zanswer2Z", "Zanswer4Z")

CHATS = (
    ("Hello there",),
    ("What is 1 + 1?", "2", "And 2 + 2?"),
    (
        'Write {{ code }} in "Go"\nand Jinja\'s {% if %}',
        "No.\n\nNever: <b>&amp;</b>",
        "日本語 🙂",
        "{}",
        "Again, please",
    ),
)
"""User and assistant by turns: what the two templates are compared on, each with and without a system message."""
SYSTEM_MESSAGES = (None, "Answer with one JSON object.\nNothing else.")


class _OtherError(Exception):
    """The template does something that the Go template has no way to say, in a sentence."""


class _RefusedError(_OtherError):
    """The template refuses a chat, or fails."""


@dataclass(frozen=True)
class GoTemplate:
    """The Go template, and what has to be known with it."""

    text: str
    ends_turn: str
    """What follows an answer."""
    notes: list[str]


@dataclass(frozen=True)
class _Texts:
    """What stands between the turns: before the first, after a user's, after an answer, and at the end."""

    start: str
    to_answer: str
    to_user: str
    end: str


def go_template(tokenizer: Any, where: object, *, leaves_bos: bool) -> GoTemplate:
    """The chat template of an mlx_lm tokenizer in Go's template language.

    Args:
        leaves_bos: whether Ollama puts bos before every prompt itself, as the GGUF file has it.

    Raises: ModelError, if it has no chat template, or one that cannot be said so.
    """

    template = ChatTemplate(tokenizer)

    def jinja(turns: Turns) -> str:
        messages = [Message(cast("Role", turn["role"]), turn["content"]) for turn in turns]
        try:
            # As in training: without thinking.
            return template.text(messages, str(where), generation_prompt=True)
        except DataError as error:
            cause = error.__cause__
            raise _RefusedError(failure_of(cause if isinstance(cause, Exception) else error)) from error

    try:
        bos = tokenizer.bos_token or ""
        left_out = bos if leaves_bos and jinja(_chat(CHATS[0], None)).startswith(bos) else ""
        text, notes = _derive(lambda turns: jinja(turns).removeprefix(left_out))
        _compare(jinja, text, left_out, has_system="$.System" in text)
        ends_turn = _plain(jinja).to_user
        strips = jinja(_chat((" x ",), None)) != jinja(_chat(("x",), None)).replace("x", " x ", 1)
    except _OtherError as error:
        what = f"the chat template cannot be said in Ollama's template language: {error}"
        remedy = "export gguf instead: llama.cpp's server reads the chat template itself"
        raise ModelError(what, where=where, remedy=remedy) from error
    if "strftime_now" in str(tokenizer.chat_template):
        notes.append("the chat template writes the day's date; the Modelfile keeps that of this export")
    if strips:
        notes.append("the chat template takes white space off the ends of messages; Ollama leaves it")
    return GoTemplate(text, ends_turn, notes)


def _chat(words: Sequence[str], system: str | None) -> Turns:
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": word} for i, word in enumerate(words)]
    return ([] if system is None else [{"role": "system", "content": system}]) + turns


def _marked(count: int) -> list[str]:
    """``count`` user turns and the answers between them."""
    return [word for pair in zip(USERS, (*ANSWERS, ""), strict=True) for word in pair][: 2 * count - 1]


def _between(text: str, marks: Sequence[str]) -> list[str]:
    """The texts around ``marks``, which stand in ``text`` once each and in this order."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise _OtherError("it leaves out a turn, says one twice, or puts them in another order")
        parts.append(before)
    return [*parts, text]


def _texts(parts: Sequence[str]) -> _Texts:
    start, *middle, end = parts
    answers, users = set(middle[0::2]), set(middle[1::2])
    if len(answers) > 1 or len(users) > 1:
        raise _OtherError("what it writes around a turn depends on more than who speaks")
    return _Texts(start, next(iter(answers), ""), next(iter(users), ""), end)


def _plain(jinja: Jinja) -> _Texts:
    """Without a system message."""
    longest = _texts(_between(jinja(_chat(_marked(3), None)), _marked(3)))
    for count in (1, 2):
        shorter = _texts(_between(jinja(_chat(_marked(count), None)), _marked(count)))
        if (shorter.start, shorter.end) != (longest.start, longest.end):
            raise _OtherError("what it writes around a turn depends on how many there are")
    return longest


def _derive(jinja: Jinja) -> tuple[str, list[str]]:
    plain = _plain(jinja)
    try:
        one, three = (jinja(_chat(_marked(count), SYSTEM)) for count in (1, 3))
    except _RefusedError:
        note = "the chat template takes no system message; Ollama leaves one out"
        return _written(plain, quoted(plain.start), ""), [note]
    if SYSTEM not in three:
        return _written(plain, quoted(plain.start), ""), ["the chat template leaves system messages out"]
    if three.index(SYSTEM) < three.index(USERS[0]):
        before, *parts = _between(three, [SYSTEM, *_marked(3)])
        with_system = _texts(parts)
        if (with_system.to_answer, with_system.to_user, with_system.end) != (plain.to_answer, plain.to_user, plain.end):
            raise _OtherError("what it writes around a turn depends on whether there is a system message")
        said = f"{quoted(before)}{{{{ $.System }}}}{quoted(with_system.start)}"
        return _written(plain, f"{{{{ if $.System }}}}{said}{{{{ else }}}}{quoted(plain.start)}{{{{ end }}}}", ""), []
    # Before the last turn, as Mistral has it.
    before, after, _ = _between(one, [SYSTEM, USERS[0]])
    if not before.startswith(plain.start):
        raise _OtherError("the system message changes what stands before it")
    lead = before.removeprefix(plain.start)
    said = f"{{{{ if and $last $.System }}}}{quoted(lead)}{{{{ $.System }}}}{quoted(after)}{{{{ end }}}}"
    return _written(plain, quoted(plain.start), said), []


def _written(texts: _Texts, start: str, before_last: str) -> str:
    """The Go template. An answer that comes last is one to go on with, so nothing follows it."""
    after_user = quoted(texts.end)
    if texts.to_answer != texts.end:
        after_user = f"{{{{ if $last }}}}{after_user}{{{{ else }}}}{quoted(texts.to_answer)}{{{{ end }}}}"
    return (
        f"{start}"
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{before_last}{{{{ .Content }}}}{after_user}'
        '{{ else if eq .Role "assistant" }}{{ .Content }}'
        f"{{{{ if not $last }}}}{quoted(texts.to_user)}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
    )


def _compare(jinja: Jinja, text: str, bos: str, *, has_system: bool) -> None:
    """Raises: _OtherError, if the two templates do not render the same."""
    for system in SYSTEM_MESSAGES if has_system else (None,):
        for words in CHATS:
            turns = _chat(words, system)
            messages = [{"Role": turn["role"], "Content": turn["content"]} for turn in turns]
            rendered = bos + render(text, {"System": system or "", "Messages": messages})
            if rendered != jinja(turns):
                raise _OtherError(f"a chat of {len(turns)} turns comes out otherwise")

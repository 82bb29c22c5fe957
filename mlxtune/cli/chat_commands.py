"""What a message in a chat means: words to the model, or a command, which begins with a slash.

Between triple quotes, and after two slashes, everything is words. A command that is not there is told with the nearest
one and never said to the model. Knows the chat and what shows it; nothing of where messages come from.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlxtune.cli.chat_lines import QUOTES, quoted_text
from mlxtune.cli.chat_view import ChatView
from mlxtune.deployment.chat import INTERRUPTED, Chat
from mlxtune.errors import UsageError
from mlxtune.synced import warning_of_synced

BACK = "-"
"""Of ``/system``: the one that training had, again."""


@dataclass(frozen=True)
class Command:
    """One word after a slash; ``argument`` is what it is called in the help where it takes one."""

    run: Callable[[ChatView, str], None]
    help: str
    argument: str = ""


def obey(message: str, view: ChatView) -> None:
    """Do what a message says, and show what comes of it.

    Raises: UsageError, for a command that is not there or cannot be followed; what `Chat` raises.
    """
    words = quoted_text(message)
    if words is None and message.startswith("/") and not message.startswith("//"):
        _run(message, view)
        return
    text = words if words is not None else message.removeprefix("/") if message.startswith("//") else message
    view.show(partial(view.chat.ask, text))


def _run(message: str, view: ChatView) -> None:
    name, *rest = message.split(maxsplit=1)
    argument = rest[0].strip() if rest else ""
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"there is no command {name:.40}",
            where="the chat",
            remedy=f"{meant}/help lists them; begin with // to say it to the model",
        )
    if argument and not command.argument:
        raise UsageError(f"{name} takes nothing after it", where=name, remedy=f"write {name} alone")
    command.run(view, argument)


def _tuned(view: ChatView, _: str) -> None:
    view.chat.choose(view.chat.names[0])


def _base(view: ChatView, _: str) -> None:
    view.chat.choose(_other(view.chat))


def _both(view: ChatView, _: str) -> None:
    view.chat.choose(view.chat.names[0], _other(view.chat))


def _other(chat: Chat) -> str:
    """The base's name, where it is another model than the first."""
    return "base" if len(chat.names) == 1 else chat.names[1]


def _system(view: ChatView, text: str) -> None:
    if text:
        view.chat.system = None if text == BACK else quoted_text(text) or text
        if view.chat.turns:
            view.note("it holds from here on, for what was said before too; /new begins another conversation")
    else:
        view.tell(view.chat.system or "there is no system message of its own")


def _save(view: ChatView, path: str) -> None:
    if not path:
        raise UsageError("/save has no file", where="/save", remedy="write /save FILE.jsonl")
    target = Path(path).expanduser()
    rows = view.chat.save(target)
    view.note(f"{target}: {len(rows)} {'row' if len(rows) == 1 else 'rows'}, readable by you alone")
    if warning := warning_of_synced(target):
        view.note(warning)


def _retry(view: ChatView, _: str) -> None:
    replies = view.chat.turns[-1].replies if view.chat.turns else {}
    is_again = any(name in replies and replies[name].finish_reason != INTERRUPTED for name in view.chat.asked)
    if is_again and view.chat.sampling.temperature == 0:
        view.note("the likeliest token is always taken, so the answer stays the same; --temperature 0.7 draws others")
    view.show(view.chat.retry)


def _undo(view: ChatView, _: str) -> None:
    view.tell(f"taken back: {view.chat.undo().text}")


def _new(view: ChatView, _: str) -> None:
    view.chat.turns.clear()


def _help(view: ChatView, _: str) -> None:
    shown = {f"{name} {command.argument}".rstrip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, shown)) + 2
    lines = [f"{usage:{width}}{text}" for usage, text in shown.items()]
    if view.is_live:
        lines.append("Enter sends, Alt-Enter begins a line; Ctrl-C stops an answer, Ctrl-D leaves.")
    lines.append(f"{QUOTES} before and after holds several lines; // says a slash to the model.")
    view.tell("\n".join(lines))


COMMANDS = {
    "/tuned": Command(_tuned, "Let the tuned model answer."),
    "/base": Command(_base, "Let the base model answer, which goes on from what was said."),
    "/both": Command(_both, "Let both answer; each goes on from its own answers."),
    "/system": Command(_system, f"Show the system message, or set it; {BACK}: as in training.", "[TEXT]"),
    "/retry": Command(_retry, "Answer the last message again, by whoever is to answer now."),
    "/undo": Command(_undo, "Take back the last message and its answers."),
    "/new": Command(_new, "Begin another conversation."),
    "/save": Command(_save, "Write the conversation as rows to train on, JSON Lines.", "FILE"),
    "/help": Command(_help, "Say this."),
}

"""Rows with two answers to the same prompt, the better ``chosen``, the other ``rejected``.

The answers are texts, or lists of turns. The prompt is a text or a list in ``prompt``, the list ``messages``, or, where
both lists of an answer carry it, what they begin with alike; a prompt that is given as well has to be that beginning.
After it each has one answer: pairs that differ in more than their last turn are refused, since no common prompt
would stand before them.
"""

from collections.abc import Sequence

from mlxtune.data.example import Example, Message
from mlxtune.data.forms.prompt_completion import turns_of
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.tools import read_tools
from mlxtune.data.forms.turns import check_conversation, with_system

REMEDY = "give the row one prompt, and two answers to it that differ"


def read_preference(row: Row) -> Example:
    tools = read_tools(row)
    row.refuse_meaningful("completion")
    prompt = _prompt(row)
    chosen, rejected = turns_of(row, "chosen", "assistant"), turns_of(row, "rejected", "assistant")
    if prompt is None or chosen is None or rejected is None:
        return Example("preference", row.where, tools=tools)
    better, worse = (_whole(row, prompt, turns) for turns in (chosen, rejected))
    common = _common(better, worse)
    if better == worse:
        row.fault("preference", "chosen and rejected are the same", REMEDY)
    elif len(better) - common != 1 or len(worse) - common != 1 or {better[-1].role, worse[-1].role} != {"assistant"}:
        said = "chosen and rejected do not end with one answer each after what they begin with alike"
        row.fault("preference", said, REMEDY)
    elif not any(message.role != "assistant" for message in better[:common]):
        row.fault("preference", "there is no prompt, nor do chosen and rejected begin with one", REMEDY)
    else:
        check_conversation(row, better)
        return Example("preference", row.where, tuple(better), rejected=(worse[-1],), tools=tools)
    return Example("preference", row.where, tools=tools)


def _prompt(row: Row) -> list[Message] | None:
    """The turns of the prompt that the row gives; none, if it gives none; None after a fault."""
    given = [name for name in ("prompt", "messages") if row.has(name)]
    if len(given) > 1:
        row.fault("preference", "the row has both 'prompt' and 'messages'", "keep one of the two")
        return None
    if not given:
        system = row.optional_text("system")
        return [Message("system", system)] if system else []
    turns = turns_of(row, given[0], "user")
    return None if turns is None else with_system(row, turns)


def _whole(row: Row, prompt: Sequence[Message], turns: Sequence[Message]) -> list[Message]:
    """An answer's turns with the prompt before them, once."""
    carried = prompt[1:] if prompt and prompt[0].role == "system" != turns[0].role else prompt
    if list(turns[: len(carried)]) == list(carried):
        return [*prompt[: len(prompt) - len(carried)], *turns]
    if turns[0].role != "assistant":
        # turns that carry a system message of their own before the given prompt
        if turns[0].role == "system" and list(turns[1 : 1 + len(prompt)]) == list(prompt):
            return list(turns)
        row.fault("preference", "the prompt is not what chosen and rejected begin with", REMEDY)
    return [*prompt, *turns]


def _common(better: Sequence[Message], worse: Sequence[Message]) -> int:
    """How many turns two conversations begin with alike."""
    pairs = enumerate(zip(better, worse, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(better), len(worse)))

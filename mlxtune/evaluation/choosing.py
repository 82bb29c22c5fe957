"""Rows whose answer is one of some labels: each label as the tokens that would follow the row's prompt, and the choice.

A label's tokens are those that would be learned of a row with that answer, its end included, so every model is asked
for what training teaches. They are made for each way in which a prompt ends, not for each row: a chat's prompt ends
alike in every row, and a text's with what stands before its answer. Whether a row's own answer comes out as these
tokens say is looked at in each row; where it does not, the row's labels are made for it alone.
"""

from collections.abc import Sequence

from mlx import nn

from mlxtune.data.example import Example
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError
from mlxtune.inference.choice import choose, make_tree
from mlxtune.inference.likelihood import make_reader
from mlxtune.progress import Progress, silent

Tokens = tuple[tuple[int, ...], ...]
"""Of each label."""

TAIL = 3
"""Tokens of a prompt that say how it ends, where no special token stands near its end."""
NEAR = 16
"""Tokens."""


def check_choice(renderer: Renderer, example: Example, labels: Sequence[str], answer_after: str | None) -> None:
    """Find out whether labels are different ones to the model, as answers to a row.

    Raises: DataError, if two have the same tokens, or one the first of another's.
    """
    try:
        make_tree(_tokens_of(renderer, example, labels, answer_after))
    except ValueError as error:
        raise DataError(
            "to this model's tokenizer two of the labels are one, or one has no end",
            where=example.where,
            remedy="give the labels names that differ in more than case, accents or white space",
        ) from error


def choose_labels(
    network: nn.Module,
    renderer: Renderer,
    examples: Sequence[Example],
    labels: Sequence[str],
    answer_after: str | None,
    *,
    progress: Progress = silent,
) -> list[str]:
    """The label that the network finds likeliest as the answer to each row.

    Raises: DataError, as `Renderer.answered` does.
    """
    known: dict[tuple[object, ...], Tokens] = {}
    groups: dict[Tokens, list[int]] = {}
    prompts: list[list[int]] = []
    special = set(renderer.special.values())
    own_answers = [own_answer(example, answer_after) for example in examples]
    for i, (example, answer) in enumerate(zip(examples, own_answers, strict=True)):
        place = labels.index(answer) if answer in labels else 0
        prompt, own = renderer.answered(example, labels[place], answer_after)
        ending = _ending(prompt, special)
        tokens = known.get(ending)
        if tokens is None or tokens[place] != tuple(own):
            tokens = _tokens_of(renderer, example, labels, answer_after)
            known.setdefault(ending, tokens)
        prompts.append(prompt)
        groups.setdefault(tokens, []).append(i)
    reader = make_reader(network)
    chosen = [""] * len(examples)
    done = 0
    for tokens, rows in groups.items():

        def tell(what: str, count: int, _total: int, before: int = done) -> None:
            progress(what, before + count, len(examples))

        for i, one in zip(rows, choose(reader, [prompts[i] for i in rows], tokens, progress=tell), strict=True):
            chosen[i] = labels[one.label]
        done += len(rows)
    return chosen


def _tokens_of(renderer: Renderer, example: Example, labels: Sequence[str], answer_after: str | None) -> Tokens:
    return tuple(tuple(renderer.answered(example, label, answer_after)[1]) for label in labels)


def _ending(prompt: Sequence[int], special: set[int]) -> tuple[int, ...]:
    """What of a prompt its answer's tokens may depend on: from the last special token on, where a tokenizer begins
    anew, or the last few.
    """
    near = range(len(prompt) - 1, max(-1, len(prompt) - 1 - NEAR), -1)
    last = next((i for i in near if prompt[i] in special), len(prompt) - TAIL)
    return tuple(prompt[max(0, last) :])


def own_answer(example: Example, answer_after: str | None) -> str:
    """The answer that a row has, without white space at its ends; "" for a text that has none."""
    if example.kind == "text":
        return example.text.partition(answer_after or "\0")[2].strip()
    return example.messages[-1].content.strip()

"""How an untuned model is asked what a tuned one is asked: the same rows, in the template that it was made with.

Whatever stands in the way is found with the tokenizer alone, before a network is opened: a row too long for the
model's context, with its examples before it, is an error that names the row. A likelihood that would not be of the
same text as the tuned model's is left out, with a note that says why. Knows tokenizers and rows; nothing of runs.

Of chat templates: a model has its own. One that has none gets the recipe's, if there is one and it fits, else the
packaged one that fits every model. One whose template refuses system messages gets them at the top of the first
question, as its makers advise. What was done is in the notes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault, refuse
from mlxtune.data.pairs import SIDES, sides
from mlxtune.data.render import Rendered, Renderer
from mlxtune.errors import DataError, ModelError
from mlxtune.evaluation.shots import with_shots
from mlxtune.evaluation.tasks import Task
from mlxtune.iteration.opening import learned_of
from mlxtune.iteration.scoring.one_model import prompt_of
from mlxtune.models.chat_template import ChatTemplate
from mlxtune.models.load import read_config
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.recipe.choices import TrainOn
from mlxtune.recipe.schema import DataSettings

FITS_ALL: ChatTemplate = "instruction"


@dataclass(frozen=True, eq=False)
class Asked:
    """What one model is to be asked.

    ``rendered`` are the rows for their likelihood, of ``pairs`` two each, none where that could not be compared;
    ``first_prompt`` are the
    tokens of the first row's prompt; ``template`` is the chat template in place of the model's own; ``notes`` are
    sentences.
    """

    examples: Sequence[Example]
    rendered: Sequence[Rendered]
    first_prompt: Sequence[int]
    template: ChatTemplate | None
    notes: Sequence[str] = field(default_factory=tuple)
    pairs: bool = False


def ask_untuned(
    folder: Path,
    examples: Sequence[Example],
    shots: Sequence[Example],
    tasks: Sequence[Task],
    data: DataSettings,
    *,
    is_base: bool,
    is_cut: bool,
    pairs: bool = False,
    path: Path,
) -> Asked:
    """What the model in ``folder`` is asked, so that its answers compare with those of a tuned one.

    Args:
        examples: the rows that the tuned model is scored on.
        shots: rows to stand before each.
        data: how the recipe has rows rendered.
        is_base: the model is the one that was tuned, and is asked by the template that it was tuned with.
        pairs: the rows are preferences, of which both answers are read.
        is_cut: some rows were cut to the length that the tuned model sees, which is another text for another tokenizer.
        path: the rows' file, for errors.

    Raises: DataError, for all rows at once that the model cannot be asked, and if nothing is left to compare;
        ModelError, if its tokenizer cannot be opened.
    """
    tokenizer, template, notes = _with_template(folder, examples, data.chat_template, is_base=is_base)
    is_joined = not tokenizer.has_chat_template
    renderer = Renderer(tokenizer)
    asked = [with_shots(example, shots, is_joined=is_joined) for example in examples]
    if _refuses_system(renderer, asked):
        asked, notes = [_without_system(example) for example in asked], [*notes, NO_SYSTEM]
    train_on = learned_of(data, pairs="both" if pairs else "refused")
    why_not = _why_no_likelihood(asked[0], len(shots), train_on, is_base=is_base, is_cut=is_cut)
    rendered: list[Rendered] = []
    if why_not is None:
        try:
            rows = [side for example in asked for side in sides(example)] if pairs else asked
            rendered = [renderer.render(row, train_on) for row in rows]
        except DataError as error:
            why_not = f"{error.where}: {error.message}"
    if why_not is not None:
        notes = [*notes, f"no likelihood (loss, bits per byte, token accuracy): {why_not}"]
        if not tasks:
            raise DataError(
                f"there is nothing to compare: {why_not}",
                where=path,
                remedy="give the recipe a task (evaluation.tasks), or leave this model or --shots out",
            )
    own = SIDES if pairs else 1
    longest = [max(len(row.token_ids) for row in rendered[i : i + own]) for i in range(0, len(rendered), own)]
    _refuse_too_long(folder, renderer, asked, longest, tasks, len(shots), path)
    prompt = prompt_of(rendered[0]) if rendered else renderer.prompt(asked[0], tasks[0].answer_after)[0]
    return Asked(asked, rendered, prompt, template, tuple(notes), pairs)


NO_SYSTEM = "its chat template refuses system messages: they stand at the top of the first question"


def _with_template(
    folder: Path, examples: Sequence[Example], recipes: ChatTemplate | None, *, is_base: bool
) -> tuple[Any, ChatTemplate | None, list[str]]:
    """The model's tokenizer with the template that it is asked by, that template where it is not its own, and notes."""
    if is_base:
        return open_tokenizer(folder, recipes), recipes, []
    tokenizer = open_tokenizer(folder)
    if tokenizer.has_chat_template or not any(example.kind == "chat" for example in examples):
        return tokenizer, None, []
    for template in (recipes, FITS_ALL):
        if template is None:
            continue
        try:
            tokenizer = open_tokenizer(folder, template)
        except ModelError:
            if template == FITS_ALL:
                raise
            continue
        name = template if isinstance(template, str) else template.name
        return tokenizer, template, [f"it has no chat template of its own, and is asked by {name}"]
    raise AssertionError("the packaged template was tried")


def _refuses_system(renderer: Renderer, examples: Sequence[Example]) -> bool:
    """Whether the template takes rows only without their system messages."""
    example = next((example for example in examples if _has_system(example)), None)
    if example is None:
        return False
    try:
        renderer.encode_prompt(example.messages[:-1], example.where, tools=example.tools)
    except DataError:
        pass
    else:
        return False
    try:
        renderer.encode_prompt(_without_system(example).messages[:-1], example.where, tools=example.tools)
    except DataError:
        return False
    return True


def _has_system(example: Example) -> bool:
    return len(example.messages) > 1 and [turn.role for turn in example.messages[:2]] == ["system", "user"]


def _without_system(example: Example) -> Example:
    """The row with its system message at the top of its first question."""
    if not _has_system(example):
        return example
    system, question, *rest = example.messages
    merged = replace(question, content=f"{system.content}\n\n{question.content}")
    return replace(example, messages=(merged, *rest))


def _why_no_likelihood(example: Example, shots: int, train_on: TrainOn, *, is_base: bool, is_cut: bool) -> str | None:
    """Why the likelihood of the rows would not be of the text that the tuned model's is of; None where it would be."""
    if is_cut:
        return "some rows are cut to the tuned model's data.max_seq_length, which is another text in other tokens"
    if shots and (example.kind == "text" or train_on == "everything"):
        return "prompts are learned too (text rows, or train_on: everything), and examples would count as such"
    if train_on == "everything" and example.kind != "text" and not is_base:
        return "prompts are learned too (train_on: everything), in the words of each model's own template"
    return None


def _refuse_too_long(
    folder: Path,
    renderer: Renderer,
    asked: Sequence[Example],
    lengths: Sequence[int],
    tasks: Sequence[Task],
    shots: int,
    path: Path,
) -> None:
    """Raises: DataError, for all rows that, with the longest answer to them, the model's context has no room for; or
    that cannot be asked at all.

    Args:
        lengths: tokens of each row as it is read for its likelihood; none where it is not.
    """
    longest = context_of(folder)
    faults = []
    for number, example in enumerate(asked):
        needed = lengths[number] if lengths else 0
        try:
            for task in tasks:
                prompt, _ = renderer.prompt(example, task.answer_after)
                needed = max(needed, len(prompt) + task.max_tokens)
        except DataError as error:
            faults.append(Fault(example.where, error.message))
            continue
        if longest is not None and needed > longest:
            before = f"with {shots} examples before it " if shots else ""
            told = f"{before}the row and its answer need {needed} tokens; {folder.name} has {longest}"
            faults.append(Fault(example.where, told))
    fewer = "show fewer examples (--shots), or leave" if shots else "leave"
    refuse(faults, path=path, remedy=f"{fewer} this model out of --against: it cannot be asked these rows")


def context_of(folder: Path) -> int | None:
    """The most tokens that a model's config says it reads; None where it names no limit. Raises: ModelError."""
    config = read_config(folder)
    found = config.get("max_position_embeddings", (config.get("text_config") or {}).get("max_position_embeddings"))
    return found if isinstance(found, int) and found > 0 else None

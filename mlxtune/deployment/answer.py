"""Answers from a model, a fused folder or a run: opened, asked in the shape that training gave prompts, generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxtune.adapters.open import attach_adapter
from mlxtune.data.normalize import ROLES, Message
from mlxtune.data.read import read_records
from mlxtune.data.render import Renderer
from mlxtune.device.choose import open_device
from mlxtune.errors import DataError, RunError
from mlxtune.inference.generate import generate
from mlxtune.iteration.opening import find_recipe_model
from mlxtune.models.load import Model, open_model
from mlxtune.models.source import find_model
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import is_run_folder, open_run
from mlxtune.runs.prompting import Prompting, from_record, prompting_of_folder

Prompt = tuple[Message, ...]
"""The turns before the answer."""


@dataclass(frozen=True)
class Answerer:
    """A model ready to answer, and how it wants to be asked."""

    model: Model
    raw: bool
    system: str | None


@dataclass(frozen=True)
class Answer:
    """One prompt's answer; ``finish_reason`` is ``stop`` or ``length``."""

    prompt: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def open_answerer(
    source: str,
    *,
    adapter: Path | None = None,
    device: str = "auto",
    raw: bool | None = None,
    progress: Progress = silent,
) -> Answerer:
    """Open a run (its tuned model), a model folder, a catalogue name or a GGUF file.

    Args:
        source: what to open.
        adapter: an adapter folder to put on a model.
        raw: send prompts without a chat template; None: as in training, or by whether there is a template.

    Raises: RunError, if the run has no adapter yet; ModelError; AdapterError.
    """
    chosen = open_device(device)
    if is_run_folder(Path(source)):
        run = open_run(Path(source))
        if not run.adapter.exists():
            raise RunError(
                "the run has no adapter yet", where=source, remedy=f"finish it: mlxtune train --resume {source}"
            )
        folder = find_recipe_model(load_recipe(run.resolved).recipe, progress=progress).path
        adapter = adapter or run.adapter
        prompting = from_record(run.read_manifest().get("prompting"))
    else:
        folder = find_model(source, progress=progress).path
        prompting = prompting_of_folder(folder)
    model = open_model(folder, chosen.precision)
    if adapter is not None:
        attach_adapter(model.network, adapter)
    return Answerer(model, _is_raw(raw, prompting, model), prompting.system)


def _is_raw(asked: bool | None, prompting: Prompting, model: Model) -> bool:
    if asked is not None:
        return asked
    if prompting.raw is not None:
        return prompting.raw
    return not model.tokenizer.has_chat_template


def as_prompt(text: str, system: str | None = None) -> Prompt:
    """One user's turn, after a system message if there is one."""
    before = () if system is None else (Message("system", system),)
    return (*before, Message("user", text))


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from JSON Lines (``prompt`` or ``messages`` in each row), or from any other file, one a line.

    Raises: DataError, for a row that has neither key.
    """
    if path.suffix not in (".jsonl", ".json", ".ndjson"):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read as text: {error}", where=path, remedy="give a UTF-8 file") from error
        prompts = [as_prompt(line) for line in lines if line.strip()]
        if not prompts:
            raise DataError("there is no prompt in the file", where=path, remedy="write one prompt a line")
        return prompts
    return [_from_row(record.fields, record.where) for record in read_records(path)]


def _from_row(fields: dict[str, object], where: str) -> Prompt:
    if isinstance(prompt := fields.get("prompt"), str) and prompt:
        return as_prompt(prompt)
    messages = fields.get("messages")
    if isinstance(messages, list) and messages and all(_is_turn(turn) for turn in messages):
        return tuple(Message(turn["role"], turn["content"]) for turn in messages)
    raise DataError(
        "the row has neither a text in prompt nor turns with role and content in messages",
        where=where,
        remedy='write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}',
    )


def _is_turn(turn: object) -> bool:
    return isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)


def answer(
    answerer: Answerer,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Answer]:
    """Answer each prompt, in order.

    A prompt without a system message of its own gets the one that training had. A raw prompt is the last turn's text.

    Raises: DataError, if the chat template refuses a prompt.
    """
    renderer = Renderer(answerer.model.tokenizer)
    ids = []
    for number, prompt in enumerate(prompts, 1):
        if answerer.raw:
            ids.append(renderer.encode_text(prompt[-1].content))
            continue
        turns = prompt
        if answerer.system is not None and prompt[0].role != "system":
            turns = (Message("system", answerer.system), *prompt)
        ids.append(renderer.encode_prompt(turns, f"prompt {number}"))
    found = generate(
        answerer.model.network,
        answerer.model.tokenizer,
        ids,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        progress=progress,
    )
    return [
        Answer(prompt[-1].content, one.text, one.finish_reason, one.prompt_tokens, one.completion_tokens)
        for prompt, one in zip(prompts, found, strict=True)
    ]

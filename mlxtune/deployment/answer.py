"""Answers from a model, a fused folder or a run: opened, asked in the shape that training gave prompts, generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxtune.data.example import Message
from mlxtune.data.render import Renderer
from mlxtune.deployment.prompts import Prompt, as_prompt
from mlxtune.deployment.sampling import MAX_TOKENS, SEED, TEMPERATURE
from mlxtune.deployment.tuned import find_tuned
from mlxtune.device.choose import open_device
from mlxtune.errors import DataError
from mlxtune.inference.generate import generate as continue_prompts
from mlxtune.models.load import Model
from mlxtune.progress import Progress, silent
from mlxtune.runs.prompting import Prompting


@dataclass(frozen=True)
class Answerer:
    """A model ready to answer, and how it wants to be asked."""

    model: Model
    raw: bool
    """Prompts are sent as plain text, without a chat template."""
    system: str | None
    """The system message of a prompt that has none of its own."""
    note: str | None = None
    """What whoever asks should know: that the adapter was trained on another base, maybe."""
    thinking: bool = False
    """It is asked for answers with thoughts before them, as it was trained."""


@dataclass(frozen=True)
class Answer:
    """One prompt's answer."""

    prompt: str
    text: str
    finish_reason: str
    """``stop``: the model ended; ``length``: the limit was reached."""
    prompt_tokens: int
    completion_tokens: int


def open_answerer(
    source: str | Path,
    *,
    adapter: str | Path | None = None,
    device: str = "auto",
    raw: bool | None = None,
    progress: Progress = silent,
) -> Answerer:
    """Open a run (its tuned model), a model folder, a catalogue name or a GGUF file.

    Args:
        source: what to open.
        adapter: an adapter folder to put on a model.
        raw: send prompts without a chat template; None: as in training, or by whether there is a template.

    Raises: UsageError, for a run with another adapter; RunError, if the run has no adapter yet or another base;
        ModelError; AdapterError.
    """
    tuned = find_tuned(source, adapter, progress=progress)
    model = tuned.open(open_device(device).precision)
    prompting = tuned.prompting
    return Answerer(model, _is_raw(raw, prompting, model), prompting.system, tuned.other_base, prompting.thinking)


def _is_raw(asked: bool | None, prompting: Prompting, model: Model) -> bool:
    if asked is not None:
        return asked
    if prompting.raw is not None:
        return prompting.raw
    return not model.tokenizer.has_chat_template


def generate(
    answerer: Answerer,
    prompts: str | Sequence[str | Prompt],
    *,
    max_tokens: int = MAX_TOKENS,
    temperature: float = TEMPERATURE,
    seed: int = SEED,
    progress: Progress = silent,
) -> list[Answer]:
    """Answer each prompt, in order.

    A prompt without a system message of its own gets the one that training had.

    Args:
        prompts: texts, or turns; a single text is a list of one.
        max_tokens: the longest answer.
        temperature: 0 takes the likeliest token; above it tokens are drawn, each prompt's from ``seed``.

    Raises: DataError, if a prompt is empty, the chat template refuses it, or it has turns where the model takes plain
        text.
    """
    numbered = enumerate([prompts] if isinstance(prompts, str) else prompts, 1)
    asked = [as_prompt(one, where=f"prompt {i}") if isinstance(one, str) else one for i, one in numbered]
    renderer = Renderer(answerer.model.tokenizer)
    found = continue_prompts(
        answerer.model.network,
        answerer.model.tokenizer,
        [_encode(answerer, renderer, prompt) for prompt in asked],
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        progress=progress,
    )
    return [
        Answer(prompt.text, one.text, one.finish_reason, one.prompt_tokens, one.completion_tokens)
        for prompt, one in zip(asked, found, strict=True)
    ]


def _encode(answerer: Answerer, renderer: Renderer, prompt: Prompt) -> list[int]:
    if not (prompt.text if answerer.raw else prompt.text.strip()):
        raise DataError("the prompt is empty", where=prompt.where, remedy="write something to answer")
    if answerer.raw:
        if len(prompt.messages) > 1 or prompt.tools:
            raise DataError(
                "the model takes plain text, without a chat template, and this prompt has turns, a system message or "
                "tools",
                where=prompt.where,
                remedy="give a single text",
            )
        return renderer.encode_text(prompt.text)
    turns = prompt.messages
    if answerer.system is not None and turns[0].role != "system":
        turns = (Message("system", answerer.system), *turns)
    return renderer.encode_prompt(turns, prompt.where, tools=prompt.tools, thinking=answerer.thinking)

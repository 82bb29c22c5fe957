"""Answers from a model, a fused folder or a run: opened, asked in the shape that training gave prompts, generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxtune.deployment.asking import Asking, asking_of
from mlxtune.deployment.prompts import Prompt, as_prompt
from mlxtune.deployment.sampling import MAX_TOKENS, SEED, TEMPERATURE
from mlxtune.deployment.tuned import find_tuned
from mlxtune.device.choose import open_device
from mlxtune.inference.generate import generate as continue_prompts
from mlxtune.inference.sampling import Sampling
from mlxtune.models.load import Model
from mlxtune.progress import Progress, silent


@dataclass(frozen=True)
class Answerer:
    """A model ready to answer, and how it wants to be asked."""

    model: Model
    asking: Asking
    note: str | None = None
    """What whoever asks should know: that the adapter was trained on another base, maybe."""


@dataclass(frozen=True)
class Answer:
    """One prompt's answer."""

    prompt: str
    text: str
    finish_reason: str
    """``stop``: the model ended, or a text to stop at came; ``length``: the limit was reached."""
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
    return Answerer(model, asking_of(model.tokenizer, tuned.prompting, raw=raw), tuned.other_base)


def generate(
    answerer: Answerer,
    prompts: str | Sequence[str | Prompt],
    *,
    max_tokens: int = MAX_TOKENS,
    temperature: float = TEMPERATURE,
    top_p: float = Sampling.top_p,
    top_k: int = Sampling.top_k,
    min_p: float = Sampling.min_p,
    seed: int = SEED,
    stop: str | Sequence[str] = (),
    progress: Progress = silent,
) -> list[Answer]:
    """Answer each prompt, in order.

    A prompt without a system message of its own gets the one that training had.

    Args:
        prompts: texts, or turns; a single text is a list of one.
        max_tokens: the longest answer.
        temperature: 0 takes the likeliest token; above it tokens are drawn, each prompt's from ``seed``.
        top_p, top_k, min_p: which tokens are drawn from, as in `Sampling`; without them all are.
        stop: a text before which an answer ends, or several.

    Raises: DataError, if a prompt is empty, the chat template refuses it, or it has turns where the model takes plain
        text; UsageError, for a setting out of range.
    """
    numbered = enumerate([prompts] if isinstance(prompts, str) else prompts, 1)
    asked = [as_prompt(one, where=f"prompt {i}") if isinstance(one, str) else one for i, one in numbered]
    found = continue_prompts(
        answerer.model.network,
        answerer.model.tokenizer,
        [answerer.asking.encode(prompt) for prompt in asked],
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        seed=seed,
        stop=[stop] if isinstance(stop, str) else stop,
        progress=progress,
    )
    return [
        Answer(prompt.text, one.text, one.finish_reason, one.prompt_tokens, one.completion_tokens)
        for prompt, one in zip(asked, found, strict=True)
    ]

"""A tuned model as a folder that ``ollama create`` takes: a GGUF file and the Modelfile that says how it is asked.

Template, stop tokens and system message are those of training, and answers are the likeliest, as `generate` gives them:
Ollama's own defaults draw at random and punish repetition, which spoils what was trained to repeat, such as JSON.

Source: docs/modelfile.md and parser/parser.go of https://github.com/ollama/ollama
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mlxtune.data.render import Renderer, special_tokens
from mlxtune.deployment.export.gguf import export_gguf, model_name, takes_text
from mlxtune.deployment.export.ollama_template import RAW, go_template
from mlxtune.deployment.sampling import TEMPERATURE
from mlxtune.deployment.tuned import Tuned, check_not_replaced, find_tuned
from mlxtune.errors import ModelError
from mlxtune.files import check_new_folder, new_folder, write_text
from mlxtune.models.catalogue import CATALOGUE
from mlxtune.models.load import read_config
from mlxtune.models.tokenizer import end_tokens
from mlxtune.progress import Progress, silent

GGUF = "model.gguf"
MODELFILE = "Modelfile"
FALLBACK = "tuned"
"""The model's name, where its own has no letter that Ollama takes."""
CONTEXT_LIMIT = 4096
"""Tokens that a chat may have; more is for the owner to ask for, since Ollama takes the memory at once."""


@dataclass(frozen=True)
class OllamaReport:
    """What was written."""

    out: Path
    name: str
    """To create the model under."""
    type: str
    bytes: int
    adapted_layers: int
    update_kept: float
    """As of `GgufReport`."""
    notes: list[str] = field(default_factory=list)


def export_ollama(
    source: str | Path,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    type: str = "f16",  # noqa: A002 - as of `export_gguf`
    accept_loss: bool = False,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> OllamaReport:
    """Write a run, or a model with or without an adapter, to the folder ``out``, whole or not at all.

    Args: as of `export_gguf`.
    Raises: ModelError, if the chat template, or the system message of training, cannot be said in a Modelfile; and as
        `export_gguf`.
    """
    out = Path(out)
    check_new_folder(out, force=force)
    tuned = find_tuned(source, adapter, progress=progress)
    check_not_replaced(out, tuned)
    tokenizer = tuned.open_tokenizer()
    ends = {*end_tokens(tuned.base.path), *tokenizer.eos_token_ids}
    stops = {text for text, i in special_tokens(tokenizer).items() if i in ends}
    template, notes = RAW, []
    if not takes_text(tuned, tokenizer):
        said = go_template(tokenizer, tuned.base.path, leaves_bos=bool(Renderer(tokenizer).before))
        template, notes = said.text, said.notes
        turn = said.ends_turn.strip()
        stops |= {text for text in special_tokens(tokenizer) if turn.startswith(text)}
    lines = _modelfile(tuned, template, sorted(stops))
    with new_folder(out, force=force) as part:
        report = export_gguf(
            source,
            part / GGUF,
            adapter=adapter,
            type=type,
            accept_loss=accept_loss,
            device=device,
            progress=progress,
        )
        write_text(part / MODELFILE, lines)
    layers, kept = report.adapted_layers, report.update_kept
    name = re.sub("[^a-z0-9._-]+", "-", model_name(tuned).lower()).strip("._-") or FALLBACK
    return OllamaReport(out, name, type, report.bytes, layers, kept, notes + report.notes)


def _modelfile(tuned: Tuned, template: str, stops: Iterable[str]) -> str:
    where = tuned.base.path
    context = read_config(where).get("max_position_embeddings", CONTEXT_LIMIT)
    parameters = [("temperature", TEMPERATURE), ("repeat_penalty", 1.0), ("num_ctx", min(context, CONTEXT_LIMIT))]
    lines = [f"FROM ./{GGUF}", f"TEMPLATE {_value(template, where)}"]
    if tuned.prompting.system is not None:
        lines.append(f"SYSTEM {_value(tuned.prompting.system, where)}")
    lines += [f"PARAMETER {key} {value}" for key, value in parameters]
    lines += [f"PARAMETER stop {_value(stop, where)}" for stop in stops]
    if licence := _licence(tuned):
        lines.append(f"LICENSE {_value(licence, where)}")
    return "\n".join(lines) + "\n"


def _value(text: str, where: Path) -> str:
    """A text as Ollama reads it back, to the last character.

    Raises: ModelError, if it would not: the parser ends a text at three quotes, and drops what it does not print.
    """
    lost = [one for one in text if not _is_kept(one)]
    if '"""' in text or lost:
        what = "three quotes in a row" if '"""' in text else f"the character U+{ord(lost[0]):04X}"
        remedy = "export gguf instead, and say it where you serve the model"
        raise ModelError(f"a Modelfile has no way to say {what}", where=where, remedy=remedy)
    return f'"""{text}"""'


def _is_kept(character: str) -> bool:
    return character in " \t\r\n" or unicodedata.category(character)[0] in "LMNPS"


def _licence(tuned: Tuned) -> str | None:
    """The base's licence: its text where it is in the folder, else its name where the catalogue has it."""
    for file in sorted(tuned.base.path.glob("LICENSE*")):
        text = file.read_text(encoding="utf-8", errors="replace").replace('"""', "'''")
        return "".join(one if _is_kept(one) else " " for one in text)
    return next((entry.licence for entry in CATALOGUE if entry.name == tuned.base.source), None)

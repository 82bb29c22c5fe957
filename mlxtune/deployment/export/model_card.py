"""The README.md of a tuned model on the hub: what it is, what it was made of and how, what it can do, how to load it.

Its front matter is what the hub reads. Says counts and scores of the data, and no word of them: names of fields, which
per-field scores are called by, are left out too, as is all that names the machine. Knows plain values and text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

from mlxtune.evaluation.statistics import Interval
from mlxtune.evaluation.table import comparison, to_markdown
from mlxtune.iteration.card import UNSEEN
from mlxtune.models.licence import Licence
from mlxtune.printable import printable
from mlxtune.recipe.method import FullSettings, method_in_words
from mlxtune.recipe.schema import Recipe

What = Literal["adapter", "fused", "gguf"]
LIBRARIES: Mapping[What, str] = {"adapter": "peft", "fused": "mlx", "gguf": "gguf"}
RELATIONS: Mapping[What, str] = {"adapter": "adapter", "fused": "finetune", "gguf": "quantized"}
FORMS: Mapping[What, str] = {
    "adapter": "a LoRA adapter, which needs its base model",
    "fused": "the base model with the adapter folded in, in MLX's form",
    "gguf": "the base model with the adapter folded in, as one GGUF file",
}
VERSIONS = ("mlxtune", "mlx", "mlx-lm", "transformers", "python")
SPLITS = {
    "valid": "The valid rows chose the checkpoint.",
    "test": "The test rows were used for nothing but scores.",
}
START = "Training started from an adapter that had learned other rows before; those are not counted here."
DIGITS = 4


@dataclass(frozen=True)
class CardFacts:
    """All that a card says."""

    repo: str
    what: What
    recipe: Recipe
    manifest: Mapping[str, Any]
    """What run.json holds."""
    rows: Mapping[str, int]
    """Of each split."""
    scores: Mapping[str, Any] | None
    base_model: str | None
    """On the hub; None for a base that is not there."""
    licence: Licence | None
    has_system: bool
    """Whether training began every chat with one system message, which mlxtune.json holds."""


def model_card(facts: CardFacts) -> str:
    """The whole README.md."""
    return f"---\n{front_matter(facts)}---\n\n{_text(facts)}"


def front_matter(facts: CardFacts) -> str:
    """What the hub reads, as YAML."""
    from ruamel.yaml import YAML

    name = facts.repo.rpartition("/")[2]
    values: dict[str, Any] = {"license": facts.licence.id if facts.licence else "unknown"}
    if facts.base_model is not None:
        values |= {"base_model": facts.base_model, "base_model_relation": RELATIONS[facts.what]}
    values |= {
        "library_name": LIBRARIES[facts.what],
        "pipeline_tag": "text-generation",
        "tags": ["mlxtune", "mlx", facts.recipe.method.type, *(["gguf"] if facts.what == "gguf" else [])],
    }
    metrics = [
        {"type": metric, "name": f"{metric}, tuned", "value": round(interval.mean, DIGITS)}
        for metric, interval in _metrics(facts.scores, "tuned").items()
    ]
    if metrics:
        task = {"type": "text-generation"}
        data = {"type": "private", "name": "the owner's held-out rows, not published"}
        values["model-index"] = [{"name": name, "results": [{"task": task, "dataset": data, "metrics": metrics}]}]
    written = StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 1000
    yaml.dump(values, written)
    return written.getvalue()


def _metrics(scores: Mapping[str, Any] | None, model: str) -> dict[str, Interval]:
    """Scores by name; those of a single field are left out, since its name is the data's."""
    found = {} if scores is None else scores[model]
    return {name: Interval(**interval) for name, interval in found.items() if _is_told(name)}


def _is_told(metric: str) -> bool:
    return ":" not in metric


def _text(facts: CardFacts) -> str:
    recipe, licence = facts.recipe, facts.licence
    base = f"[{facts.base_model}](https://huggingface.co/{facts.base_model})" if facts.base_model else "A local model"
    said = f"{licence.said_in_card} " if licence and licence.said_in_card else ""
    sections = [
        f"# {printable(facts.repo.rpartition('/')[2])}",
        f"{base}, tuned on private data with mlxtune: {FORMS[facts.what]}. {said}".rstrip(),
        "## Data",
        _data(facts),
        "## Training",
        _training(recipe, facts.manifest),
        "## Before and after",
        _scores(facts.scores),
        "## Intended use",
        "The task that it was tuned for, on inputs like those it was tuned on; answers are to be checked by a person.",
        "## Limits",
        _limits(facts),
        "## Use",
        _use(facts),
        "## Versions",
        ", ".join(f"{name} {facts.manifest['versions'][name]}" for name in VERSIONS) + ".",
    ]
    return "\n\n".join(sections) + "\n"


def _data(facts: CardFacts) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.rows.items())
    finished = facts.manifest["finished"]
    return " ".join(
        [
            f"Rows: {counts}. Training read {finished['tokens']:,} tokens over all epochs, and learned",
            f"{finished['target_tokens']:,} of them.",
            *([START] if facts.recipe.model.adapter is not None else []),
            *(sentence for split, sentence in SPLITS.items() if split in facts.rows),
            "The data are not published.",
        ]
    )


def _method(recipe: Recipe) -> str:
    """The method and the settings that it differs by."""
    method = recipe.method
    told = method_in_words(method.model_dump())
    if isinstance(method, FullSettings):
        return told
    patterns = {"rank_pattern": method.rank_pattern, "alpha_pattern": method.alpha_pattern}
    said = "".join(f", {key} {json.dumps(value)}" for key, value in patterns.items() if value)
    return f"{told}, alpha {method.alpha:g}, dropout {method.dropout:g}{said}"


def _training(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    training = recipe.training
    batch = f"batches of {training.batch_size}, {training.gradient_accumulation_steps} an update"
    rates = f"{training.optimizer}, learning rate {training.learning_rate:g}, {training.lr_schedule}"
    rows = [
        ("method", _method(recipe)),
        ("objective", recipe.objective.type),
        ("updates", f"{manifest['finished']['steps']:,}, {batch}"),
        ("optimizer", f"{rates}, weight decay {training.weight_decay:g}"),
        ("longest row", f"{recipe.data.max_seq_length:,} tokens"),
        ("seed", str(recipe.seed)),
        ("precision", str(manifest["device"]["precision"])),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _scores(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return "Not scored on held-out rows."
    table = to_markdown([row for row in comparison(scores) if _is_told(row.metric)])
    return f"On {scores['rows']:,} {UNSEEN[scores['split']]}.\n\n{table.rstrip()}"


def _limits(facts: CardFacts) -> str:
    licence = facts.licence
    under = f"That of its base: {licence.id}." if licence else "Not known: the base does not say it."
    if licence is not None and licence.is_non_commercial:
        under += " No commercial use."
    lines = [
        "- It can be wrong in ways that the scores do not show, and has its base's faults too.",
        "- What it does on other tasks, languages and inputs than those above was not measured.",
        "- A tuned model can repeat what it was trained on.",
        f"- Licence. {under}",
    ]
    return "\n".join(lines)


def _use(facts: CardFacts) -> str:
    base, repo = facts.base_model or "BASE_MODEL", facts.repo
    code = {
        "adapter": [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            "",
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{repo}")',
        ],
        "fused": ["from mlx_lm import load", "", f'model, tokenizer = load("{repo}")'],
        "gguf": [],
    }[facts.what]
    shell = {
        "adapter": [
            f"hf download {repo} --local-dir adapter",
            f"mlxtune generate {base} --adapter adapter --prompt TEXT",
            f"mlx_lm.generate --model {base} --adapter-path adapter --prompt TEXT",
        ],
        "fused": [f"mlxtune generate {repo} --prompt TEXT"],
        "gguf": [f"llama-cli -hf {repo}", f"mlxtune generate {repo} --prompt TEXT"],
    }[facts.what]
    blocks = [_block("sh", shell), *([_block("python", code)] if code else [])]
    if facts.has_system:
        kept = "is in `mlxtune.json`" if facts.what != "gguf" else "is not in the file"
        blocks.append(
            f"Training began every chat with the same system message; it {kept}. mlxtune puts it before each prompt "
            "where it has it; other programs have to be given it."
        )
    return "\n\n".join(blocks)


def _block(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])

"""A configuration of ``mlx_lm.lora`` as a recipe, and what of it has no counterpart.

Follows `CONFIG_DEFAULTS` of mlx-lm 0.32: a key that the file leaves out means what it means there, so a recipe says
every value that differs from ours. Knows keys and units, not whether model and data are there. The price of writing
what is said and no more: where the two programs do the same thing in different ways (the mean over a batch, the order
of rows), the losses are near each other, not equal; the adapter has the same layers and shapes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from mlxtune.errors import RecipeError
from mlxtune.recipe.choices import OptimizerName, TrackerName
from mlxtune.recipe.document import read_document

DEFAULTS: dict[str, Any] = {
    "model": "Qwen/Qwen3-0.6b",
    "fine_tune_type": "lora",
    "optimizer": "adam",
    "data": "mlx-community/WikiSQL",
    "seed": 0,
    "num_layers": 16,
    "batch_size": 4,
    "iters": 1000,
    "learning_rate": 1e-5,
    "steps_per_eval": 200,
    "save_every": 100,
    "test": False,
    "max_seq_length": 2048,
    "grad_checkpoint": False,
    "grad_accumulation_steps": 1,
    "mask_prompt": False,
}
LORA_DEFAULTS: dict[str, Any] = {"rank": 8, "dropout": 0.0, "scale": 20.0}
WEIGHT_DECAYS = {"adamw": 0.01, "muon": 0.01}
"""What these optimizers of MLX decay by where the file says nothing."""
NO_COUNTERPART = {
    "val_batches": "left out: all rows of data.valid are looked at",
    "steps_per_report": "left out: metrics.jsonl has every step",
    "test_batches": "left out: all rows of data.test are scored",
    "adapter_path": "left out: name the run's folder with mlxtune train --run-dir",
    "clear_cache_threshold": "left out: mlxtune sets MLX's cache limit itself",
    "project_name": "left out: trackers are told the recipe's name",
    "trust_remote_code": "left out: mlxtune never runs a model's own code",
}
FEATURES = {
    "prompt_feature": "prompt",
    "completion_feature": "completion",
    "text_feature": "text",
    "chat_feature": "messages",
}
KINDS = ("lora", "dora", "full")
SILENT = {"train", "config"}
"""Keys that say which command was meant."""
STEPS = ("iters", "steps_per_eval", "save_every")


@dataclass
class _Reading:
    """The file's values; ``notes`` grows while they are turned into a recipe's."""

    values: Mapping[str, Any]
    where: str
    read: set[str] = field(default_factory=lambda: set(SILENT))
    notes: dict[str, str] = field(default_factory=dict)

    def get(self, key: str, kind: type | tuple[type, ...] = str) -> Any:
        """A value; the program's default for null, as there. Raises: RecipeError, for one of another kind."""
        self.read.add(key)
        value = self.values.get(key)
        return DEFAULTS.get(key) if value is None else self.check(key, value, kind)

    def check(self, key: str, value: Any, kind: type | tuple[type, ...]) -> Any:
        """The value. Raises: RecipeError, for one of another kind."""
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(one.__name__ for one in kinds)
            raise RecipeError(
                f"{key} is no {names}: {value!r}", where=self.where, remedy="mend it there, and try again"
            )
        return value


@dataclass(frozen=True)
class Imported:
    """``values`` are a recipe's keys; ``notes`` tell, by key of the file, what was left out or written otherwise."""

    values: dict[str, Any]
    notes: dict[str, str]


def import_config(path: Path) -> Imported:
    """Read an ``mlx_lm.lora`` configuration. Its relative paths start at the current folder, as there.

    Raises: RecipeError, for a file that is no YAML mapping, and for a value that ``mlx_lm.lora`` would refuse.
    """
    _, document = read_document(path)
    reading = _Reading(document.values, str(path))
    updates = _updates(reading)
    values = {
        "schema_version": 1,
        "name": _name(path),
        "seed": reading.get("seed", int),
        "model": _model(reading),
        "method": _method(reading),
        "data": _data(reading),
        "training": _training(reading, updates["iters"]),
        "evaluation": {"every_steps": updates["steps_per_eval"]},
        "checkpoint": {"every_steps": updates["save_every"]},
    }
    if trackers := _trackers(reading):
        values["report_to"] = trackers
    for key in reading.values:
        if key not in reading.read:
            reading.notes[str(key)] = NO_COUNTERPART.get(
                key, "left out: mlx_lm.lora has no such key that mlxtune knows"
            )
    return Imported(values, reading.notes)


def as_yaml(values: Mapping[str, Any], head: str) -> str:
    """A recipe's text, with ``head`` as its first comment."""
    import io

    from ruamel.yaml import YAML

    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue] - ruamel has no types
    yaml.dump(dict(values), stream)
    return f"# {head}\n{stream.getvalue()}"


def _name(path: Path) -> str:
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in path.stem
    )
    return kept.lstrip("._-")[:100] or "imported"


def _absolute(place: str) -> str:
    return os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111 - lexically, as recipe/paths.py does


def _updates(reading: _Reading) -> dict[str, int]:
    """Counts of iterations, which are batches there, as counts of updates."""
    accumulated = reading.get("grad_accumulation_steps", int)
    counts = {}
    for key in STEPS:
        counts[key] = max(1, reading.get(key, int) // max(1, accumulated))
        if accumulated > 1:
            reading.notes[key] = f"counts batches; written as {counts[key]} updates of {accumulated} batches"
    return counts


def _model(reading: _Reading) -> dict[str, Any]:
    source = reading.get("model")
    model: dict[str, Any] = {"source": _absolute(source) if Path(source).expanduser().exists() else source}
    if (adapter := reading.get("resume_adapter_file")) is not None:
        model["adapter"] = str(Path(_absolute(adapter)).parent)
        reading.notes["resume_adapter_file"] = (
            "written as model.adapter, its folder; the optimizer starts anew, as there"
        )
    return model


def _method(reading: _Reading) -> dict[str, Any]:
    kind, blocks = reading.get("fine_tune_type"), reading.get("num_layers", int)
    if kind not in KINDS:
        raise RecipeError(
            f"fine_tune_type is one of {', '.join(KINDS)}, not {kind}",
            where=reading.where,
            remedy="mend it there, and try again",
        )
    told = reading.get("lora_parameters", dict) or {}
    method = {"type": kind, **(_full(reading, told) if kind == "full" else _low_rank(reading, told))}
    method["layers"] = {"top": blocks} if blocks > 0 else "all"
    if reading.values.get("num_layers") is None:
        reading.notes["num_layers"] = f"not in the file; {blocks} is its default"
    return method


def _low_rank(reading: _Reading, told: Mapping[str, Any]) -> dict[str, Any]:
    """Of LoRA and DoRA, all but which blocks."""
    lora = {**LORA_DEFAULTS, **{key: value for key, value in told.items() if value is not None}}
    scale, rank, dropout = (
        reading.check(f"lora_parameters.{key}", lora[key], (int, float)) for key in ("scale", "rank", "dropout")
    )
    reading.notes["lora_parameters.scale"] = f"written as alpha = scale * rank = {scale:g} * {rank}"
    for key in told.keys() - {"scale", "rank", "dropout", "keys"}:
        reading.notes[f"lora_parameters.{key}"] = "left out: mlx_lm.lora does not read it"
    modules = _modules(reading, lora.get("keys"))
    return {"rank": rank, "alpha": float(scale * rank), "dropout": float(dropout), "target_modules": modules}


def _full(reading: _Reading, told: Mapping[str, Any]) -> dict[str, Any]:
    """Of full tuning, all but which blocks; what is outside them does not train there either."""
    if told:
        reading.notes["lora_parameters"] = "left out: full tuning has none, as there"
    reading.notes["fine_tune_type"] = (
        "full: weights train in float32 here, and as they are stored there, which takes more memory; "
        "a quantized model is refused, of which norms alone train there"
    )
    return {}


def _modules(reading: _Reading, keys: Any) -> str | list[str]:
    """The last names of the modules that get an adapter; of one module of one block, its path."""
    if keys is None:
        return "all-linear"
    told = [str(key) for key in reading.check("lora_parameters.keys", keys, list)]
    paths = [key for key in told if any(part.isdigit() for part in key.split("."))]
    if paths:
        reading.notes["lora_parameters.keys"] = (
            f"{', '.join(paths)}: there whichever blocks train, here if method.layers has its block; check it"
        )
    return list(dict.fromkeys(key if key in paths else key.rpartition(".")[2] for key in told))


def _data(reading: _Reading) -> dict[str, Any]:
    if (remote := reading.get("hf_dataset", (dict, list))) is not None:
        data = _hub_data(reading, remote)
    else:
        data = _folder_data(reading)
    data["train_on"] = "last_completion" if reading.get("mask_prompt", bool) else "everything"
    data |= {"max_seq_length": reading.get("max_seq_length", int), "overflow": "truncate_right"}
    return data


def _folder_data(reading: _Reading) -> dict[str, Any]:
    place, folder = reading.get("data"), Path(_absolute(reading.get("data")))
    tests = reading.get("test", bool)
    if not folder.exists() and "/" in place and not place.startswith(("/", ".", "~")):
        reading.notes["data"] = f"there is no such folder here: written as a data set of the hub, hf://datasets/{place}"
        return dict.fromkeys(("train", "valid", *(["test"] if tests else [])), f"hf://datasets/{place}")
    data = {"train": str(folder / "train.jsonl")}
    if (folder / "valid.jsonl").is_file():
        data["valid"] = str(folder / "valid.jsonl")
    if tests and (folder / "test.jsonl").is_file():
        data["test"] = str(folder / "test.jsonl")
    elif (folder / "test.jsonl").is_file():
        reading.notes["test"] = "false: data.test is left out, and nothing is scored; name the file to score on it"
    return data


def _hub_data(reading: _Reading, remote: Any) -> dict[str, Any]:
    if isinstance(remote, list):
        raise RecipeError(
            "hf_dataset is a list of data sets", where=reading.where, remedy="leave one, and add others to data.train"
        )
    path = reading.check("hf_dataset.path", remote.get("path"), str)
    data: dict[str, Any] = dict.fromkeys(("train", "valid"), f"hf://datasets/{path}")
    columns = {ours: remote[theirs] for theirs, ours in FEATURES.items() if remote.get(theirs)}
    if columns:
        data["columns"] = columns
    for key in remote.keys() - FEATURES.keys() - {"path"}:
        reading.notes[f"hf_dataset.{key}"] = f"left out: the splits of {path} are read by their names"
    return data


def _training(reading: _Reading, updates: int) -> dict[str, Any]:
    optimizer = reading.get("optimizer").lower()
    if optimizer not in get_args(OptimizerName):
        raise RecipeError(f"there is no optimizer {optimizer}", where=reading.where, remedy="mend it, and try again")
    settings = dict((reading.get("optimizer_config", dict) or {}).get(optimizer) or {})
    decay = settings.pop("weight_decay", WEIGHT_DECAYS.get(optimizer, 0.0))
    for key in settings:
        reading.notes[f"optimizer_config.{optimizer}.{key}"] = "left out: mlxtune's optimizers have MLX's defaults"
    if optimizer == "sgd":
        reading.notes["optimizer"] = "sgd has momentum 0.9 here"
    return {
        "max_steps": updates,
        "batch_size": reading.get("batch_size", int),
        "gradient_accumulation_steps": reading.get("grad_accumulation_steps", int),
        **_rate(reading, updates),
        "optimizer": optimizer,
        "weight_decay": decay,
        "max_grad_norm": None,
        "grad_checkpoint": {"every": 1} if reading.get("grad_checkpoint", bool) else "off",
    }


def _rate(reading: _Reading, updates: int) -> dict[str, Any]:
    """The learning rate and how it goes on; a schedule's first argument stands for the rate, as there."""
    rate, schedule = reading.get("learning_rate", (int, float)), reading.get("lr_schedule", dict)
    if schedule is None:
        return {"learning_rate": float(rate), "lr_schedule": "constant", "warmup_ratio": 0.0}
    name, arguments = schedule.get("name"), list(schedule.get("arguments") or [])
    first = reading.check("lr_schedule.arguments", arguments[0] if arguments else None, (int, float))
    told = {"cosine_decay": "cosine", "linear_schedule": "linear"}.get(str(name), "constant")
    if told == "constant":
        reading.notes["lr_schedule"] = f"{name} has no counterpart: the rate stays at {first:g}"
    else:
        reading.notes["lr_schedule"] = f"written as {told}, down to zero at the last of {updates} updates"
    warmup = reading.check("lr_schedule.warmup", schedule.get("warmup") or 0, int)
    if schedule.get("warmup_init"):
        reading.notes["lr_schedule.warmup_init"] = "left out: warm-up begins at zero"
    return {"learning_rate": float(first), "lr_schedule": told, "warmup_ratio": round(min(1.0, warmup / updates), 4)}


def _trackers(reading: _Reading) -> list[str]:
    named = [name.strip() for name in (reading.get("report_to") or "").split(",") if name.strip()]
    for name in named:
        if name not in get_args(TrackerName):
            reading.notes["report_to"] = f"{name} is left out: mlxtune tells {', '.join(get_args(TrackerName))}"
    return [name for name in named if name in get_args(TrackerName)]

"""Run by training_vs_mlx_lm.py: the rows that both programs get, and how many useful tokens they have.

The first so many rows of a file that are short enough, in the file's order, as one file for mlxtune and mlx_lm alike.
A row longer than both are to see is left out here, before either meets it: each has its own way with such rows.

The argument is a JSON file: ``{"model", "splits": {name: {"source", "out", "count", "multiple_of"}}, "train_on",
"max_seq_length"}``. Of a split ``count`` rows are chosen at most, and a multiple of ``multiple_of``.
Standard output: ``{name: {"rows", "tokens", "target_tokens"}}``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx
from mlxtune.data.dataset import load_rendered
from mlxtune.models.tokenizer import open_tokenizer


def choose(settings: dict[str, Any]) -> dict[str, Any]:
    """Write every split's rows; what they hold, by split."""
    tokenizer = open_tokenizer(Path(settings["model"]))
    return {name: choose_split(split, tokenizer, settings) for name, split in settings["splits"].items()}


def choose_split(split: dict[str, Any], tokenizer: Any, settings: dict[str, Any]) -> dict[str, int]:
    """Write one split's rows; how many there are, their tokens and the targets among them."""
    source = Path(split["source"])
    length = settings["max_seq_length"]
    dataset = load_rendered(source, tokenizer, train_on=settings["train_on"], max_seq_length=length, overflow="drop")
    count = min(split["count"], len(dataset.rows))
    kept = dataset.rows[: count - count % split["multiple_of"]]
    lines = source.read_bytes().split(b"\n")
    numbers = [int(row.where.rpartition(":")[2]) - 1 for row in kept]
    Path(split["out"]).write_bytes(b"".join(lines[number] + b"\n" for number in numbers))
    return {
        "rows": len(kept),
        "tokens": sum(len(row.token_ids) for row in kept),
        "target_tokens": sum(int(row.is_target.sum()) for row in kept),
    }


if __name__ == "__main__":
    json.dump(choose(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout)

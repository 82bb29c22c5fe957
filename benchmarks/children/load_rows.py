"""Run by data_vs_mlx_lm.py: what mlxtune does with a file of rows before the first batch: read, render, tokenize.

As ``mlxtune train`` does it, the cache included: what is not in it is rendered and put there. Each row is then asked
for once.

The argument is a JSON file: ``{"model", "rows": file}``. Standard output: ``{"rows", "tokens", "target_tokens",
"seconds"}``, the seconds of all that comes after the imports and the opening of the tokenizer.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx
from mlxtune.data.dataset import load_rendered
from mlxtune.models.tokenizer import open_tokenizer

LONGEST = 1 << 20
"""Tokens: no row is cut, by either program."""


def load(asked: dict[str, Any]) -> dict[str, float]:
    """Load all rows and go through them."""
    folder = Path(asked["model"])
    tokenizer = open_tokenizer(folder)
    started = time.perf_counter()
    dataset = load_rendered(
        Path(asked["rows"]),
        tokenizer,
        train_on="last_completion",
        max_seq_length=LONGEST,
        tokenizer_folder=folder,
    )
    tokens = sum(len(row.token_ids) for row in dataset.rows)
    return {
        "rows": len(dataset.rows),
        "tokens": tokens,
        "target_tokens": dataset.report.target_tokens,
        "seconds": time.perf_counter() - started,
    }


if __name__ == "__main__":
    json.dump(load(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout)

"""Run by data_vs_mlx_lm.py: what ``mlx_lm.lora`` does with a file of rows before the first batch, prompts masked.

Its own functions: ``load_dataset``, and `CacheDataset`, which renders and tokenizes a row when it is first asked for
and keeps it; its trainer asks for every row before the first batch, to sort them by length.

The argument is a JSON file: ``{"model", "rows": file}``, the file being a folder's ``train.jsonl``. Standard output:
``{"rows", "tokens", "target_tokens", "seconds"}``, as of load_rows.py.
"""

import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any


def load(asked: dict[str, Any]) -> dict[str, float]:
    """Load all rows and go through them."""
    from mlx_lm.tokenizer_utils import load as load_tokenizer
    from mlx_lm.tuner.datasets import CacheDataset, load_dataset

    tokenizer: Any = load_tokenizer(Path(asked["model"]))
    started = time.perf_counter()
    args = types.SimpleNamespace(
        data=str(Path(asked["rows"]).parent), train=True, test=False, mask_prompt=True, hf_dataset=False
    )
    train_set: Any = load_dataset(args, tokenizer)
    rows = CacheDataset(train_set[0])
    tokens = target_tokens = 0
    for number in range(len(rows)):
        row: Any = rows[number]
        token_ids, offset = row
        tokens += len(token_ids)
        target_tokens += len(token_ids) - offset
    return {
        "rows": len(rows),
        "tokens": tokens,
        "target_tokens": target_tokens,
        "seconds": time.perf_counter() - started,
    }


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # as mlx_lm.lora.main does
    json.dump(load(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout)

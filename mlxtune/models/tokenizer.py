"""Opening the tokenizer of a local model folder, with no code from it and no network.

Knows folders that hold a tokenizer in Hugging Face's form; gguf_tokenizer.py makes one from GGUF metadata.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlxtune.device.limits import import_mlx_lm
from mlxtune.errors import ModelError

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

ENDS = ("config.json", "generation_config.json")
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def open_tokenizer(folder: Path) -> "TokenizerWrapper":
    """mlx_lm's wrapper around the tokenizer of the model in ``folder``, with all the tokens that end a generation.

    Raises: ModelError, if there is none, it is damaged, or it needs code that the folder brings along.
    """
    if not any((folder / name).is_file() for name in FILES):
        raise ModelError(
            "there is no tokenizer", where=folder, remedy="copy tokenizer.json and tokenizer_config.json there"
        )
    import_mlx_lm()
    from mlx_lm.utils import load_tokenizer

    ends = end_tokens(folder) or None  # None: mlx_lm knows those of some families
    # Without trust_remote_code=False transformers asks on the terminal whether to run the folder's code.
    settings = {"local_files_only": True, "trust_remote_code": False}
    try:
        return load_tokenizer(folder, settings, eos_token_ids=ends)
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the tokenizer cannot be opened: {said[0]}",
            where=folder,
            remedy="get the tokenizer's files again; code from a model folder is never run",
        ) from error


def end_tokens(folder: Path) -> list[int]:
    """Every ``eos_token_id`` that config.json or generation_config.json names; the tokenizer's own is not among them.

    A chat model's end of turn is often in the second file alone.

    Raises: ModelError, if one of the files is there and cannot be read, or names what is no token's id.
    """
    ends: set[int] = set()
    for path in (folder / name for name in ENDS):
        if not path.is_file():
            continue
        try:
            named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")  # some have Infinity elsewhere
        except (OSError, ValueError, RecursionError, AttributeError) as error:
            raise ModelError(f"{path.name} is not a JSON object", where=path, remedy="get the file again") from error
        ids = [] if named is None else named if isinstance(named, list) else [named]
        if not all(type(one) is int for one in ids):
            raise ModelError(f"eos_token_id is {named!r}, no token's id", where=path, remedy="get the file again")
        ends.update(ids)
    return sorted(ends)

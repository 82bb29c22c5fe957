"""Opening the tokenizer of a local model folder, with no code from it and no network.

Knows folders that hold a tokenizer in Hugging Face's form; gguf_tokenizer.py makes one from GGUF metadata.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxtune.device.limits import import_mlx_lm
from mlxtune.errors import ModelError

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def open_tokenizer(folder: Path, config: dict[str, Any]) -> "TokenizerWrapper":
    """mlx_lm's wrapper around the tokenizer in ``folder``.

    Args:
        config: the model's; its ``eos_token_id``, one or several, end a generation, and so does the tokenizer's own.

    Raises: ModelError, if there is none, it is damaged, or it needs code that the folder brings along.
    """
    if not any((folder / name).is_file() for name in FILES):
        raise ModelError(
            "there is no tokenizer", where=folder, remedy="copy tokenizer.json and tokenizer_config.json there"
        )
    import_mlx_lm()
    from mlx_lm.utils import load_tokenizer

    # Without trust_remote_code=False transformers asks on the terminal whether to run the folder's code.
    settings = {"local_files_only": True, "trust_remote_code": False}
    try:
        return load_tokenizer(folder, settings, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the tokenizer cannot be opened: {said[0]}",
            where=folder,
            remedy="get the tokenizer's files again; code from a model folder is never run",
        ) from error

"""Opening the tokenizer of a local model folder, with no code from it and no network.

Knows folders that hold a tokenizer in Hugging Face's form, or a ``tokenizer.model`` alone, which becomes one on the way
(sentencepiece_tokenizer.py); gguf/tokenizer.py makes one from GGUF metadata. The folder itself is only read: the price
is a second or so each time for a vocabulary of 32,000 pieces.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, processors

from mlxtune.device.limits import import_mlx_lm
from mlxtune.errors import ModelError
from mlxtune.files import write_json
from mlxtune.models.chat_template import ChatTemplate, put_chat_template
from mlxtune.models.sentencepiece_tokenizer import SentencePieceModel, read_sentencepiece, sentencepiece_tokenizer

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

ENDS = ("config.json", "generation_config.json")
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
BESIDE = ("config.json", "special_tokens_map.json", "added_tokens.json", "chat_template*", "additional_chat_templates")
"""What transformers reads with a tokenizer, beside its settings."""


def open_tokenizer(folder: Path, chat_template: ChatTemplate | None = None) -> "TokenizerWrapper":
    """mlx_lm's wrapper around the tokenizer of the model in ``folder``, with all the tokens that end a generation.

    Args:
        chat_template: in place of the tokenizer's own.

    Raises: ModelError, if there is none, it is damaged, or it needs code that the folder brings along; and as
        `put_chat_template` does.
    """
    tokenizer = _open_own(folder)
    if chat_template is not None:
        put_chat_template(tokenizer, chat_template)
    return tokenizer


def _open_own(folder: Path) -> "TokenizerWrapper":
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
        with _in_hugging_faces_form(folder) as opened:
            return load_tokenizer(opened, settings, eos_token_ids=ends)
    except ModelError:
        raise
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


def add_ends(backend: Tokenizer, *, bos: str | None = None, eos: str | None = None) -> None:
    """Have every text begin with ``bos`` and end with ``eos``, where they are given."""
    if bos is None and eos is None:
        return
    ends = [token for token in (bos, eos) if token is not None]
    backend.post_processor = processors.TemplateProcessing(
        single=[*([bos] if bos is not None else []), "$A", *([eos] if eos is not None else [])],
        special_tokens=[(token, backend.token_to_id(token)) for token in ends],
    )


@contextlib.contextmanager
def _in_hugging_faces_form(folder: Path) -> Iterator[Path]:
    """``folder``; or where it has a ``tokenizer.model`` alone, a temporary one with a tokenizer.json made of it."""
    source = folder / "tokenizer.model"
    if not source.is_file() or any((folder / name).is_file() for name in FILES if name != source.name):
        yield folder
        return
    settings = _settings(folder)
    model = read_sentencepiece(source, adds_space_after_special=settings.get("legacy") is not False)
    if model is None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="mlxtune-tokenizer-") as name:
        made = Path(name)
        _write_tokenizer(made, model, settings)
        for path in (path for pattern in BESIDE for path in folder.glob(pattern)):
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, made / path.name)
        yield made


def _write_tokenizer(made: Path, model: SentencePieceModel, settings: dict[str, Any]) -> None:
    """bos is added to every text where there is one, and eos is not, unless the settings say otherwise."""
    whole = dict[str, Any](model.named) | settings
    backend = sentencepiece_tokenizer(model.pieces)
    ends = {}
    for name, default in (("bos", True), ("eos", False)):
        token = whole.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        if whole.get(f"add_{name}_token", default) and isinstance(text, str) and backend.token_to_id(text) is not None:
            ends[name] = text
    add_ends(backend, **ends)
    backend.save(str(made / "tokenizer.json"))
    fixed = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(made / "tokenizer_config.json", whole | fixed)


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json without what is not set. Raises: ModelError, if it is there and no JSON object."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError("tokenizer_config.json is not JSON", where=path, remedy="get the file again") from error
    if not isinstance(settings, dict):
        raise ModelError("tokenizer_config.json is not a JSON object", where=path, remedy="get the file again")
    return {key: value for key, value in settings.items() if value is not None}

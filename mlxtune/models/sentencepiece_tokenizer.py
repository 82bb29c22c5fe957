"""SentencePiece's BPE (``tokenizer.model``, and GGUF's ``llama`` kind) as a tokenizer that Hugging Face opens.

The pieces and the rules become a tokenizer of the tokenizers package that gives the ids that sentencepiece gives; tests
hold it to that. Merges are no part of such a model: any two neighbours whose union is a piece may merge, the piece of
the best score first, so every way to cut a piece in two is written down. Two things are not for this file, since the
two packages differ in them: sentencepiece's other kind, unigram, where two ways to cut a text may score alike, and
tables of characters to be replaced, where marks combine. Llama, Mistral, Gemma and Phi have neither.

Source: src/bpe_model.cc and normalizer.cc of https://github.com/google/sentencepiece
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mlxtune.errors import ModelError
from mlxtune.models import DAMAGED

SPACE = "\u2581"  # how pieces spell a space

BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


class PieceType(IntEnum):
    """What a piece is to sentencepiece, and to GGUF, which took the numbers over."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Pieces:
    """All that decides which ids a text gets."""

    texts: list[str]
    """No text is there twice. User-defined ones have plain spaces, as they stand in a text."""
    scores: Sequence[float]
    types: Sequence[int]
    adds_space: bool = True
    """Whether a text begins with a space of its own."""
    adds_space_after_special: bool = True
    """Whether what follows a special token does too."""
    trims_spaces: bool = False
    """Whether spaces at the ends go, and runs of them become one."""
    strips_after_special: Sequence[str] = ()
    """Special tokens that swallow the white space after them."""
    finds_user_defined_first: bool = False
    """Whether user-defined pieces are found before a text is given its space, as llama.cpp does, and not after."""


def sentencepiece_tokenizer(pieces: Pieces) -> Tokenizer:
    """A tokenizer that gives the ids sentencepiece gives, but for special pieces, which it finds in the text too.

    Nothing is added around a text: bos and eos are whoever's who knows that they are wanted.
    """
    backend = Tokenizer(_bpe(pieces))
    backend.normalizer = _normalizer(pieces)
    if steps := _pre_tokenizers(pieces):
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    restore = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(restore + ([decoders.Strip(" ", 1, 0)] if pieces.adds_space else []))
    special = set(_of_type(pieces, PieceType.CONTROL, PieceType.UNKNOWN))
    whole = special if _is_cut_out(pieces) else {*special, *_of_type(pieces, PieceType.USER_DEFINED)}
    stripped = set(pieces.strips_after_special)
    backend.add_tokens(
        [
            AddedToken(text, special=text in special, normalized=False, rstrip=text in stripped)
            for text in pieces.texts
            if text in whole
        ]
    )
    return backend


def _bpe(pieces: Pieces) -> models.BPE:
    normal = {
        text: (-score, number)
        for number, (text, score, kind) in enumerate(zip(pieces.texts, pieces.scores, pieces.types, strict=True))
        if kind == PieceType.NORMAL
    }
    ranked = [
        (rank, text[:cut], text[cut:])
        for text, rank in normal.items()
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    ranked.sort(key=lambda one: one[0])  # and the earlier cut first, as they come
    is_cut_out = _is_cut_out(pieces)
    return models.BPE(
        vocab={_spelled(text, is_cut_out): number for number, text in enumerate(pieces.texts)},
        merges=[(left, right) for _, left, right in ranked],
        unk_token=next(iter(_of_type(pieces, PieceType.UNKNOWN)), None),
        fuse_unk=True,
        byte_fallback=PieceType.BYTE in pieces.types,
        ignore_merges=is_cut_out,  # else no user-defined piece would be found: merges do not make them
    )


def _of_type(pieces: Pieces, *kinds: PieceType) -> list[str]:
    return [text for text, kind in zip(pieces.texts, pieces.types, strict=True) if kind in kinds]


def _spelled(text: str, is_wanted: bool = True) -> str:
    """A piece as it stands in a normalized text."""
    return text.replace(" ", SPACE) if is_wanted else text


def _is_cut_out(pieces: Pieces) -> bool:
    """Whether user-defined pieces are cut out after the first space is added, and not found in the raw text.

    sentencepiece puts that space before such a piece too; an added token of the tokenizers package would go without.
    """
    return not pieces.finds_user_defined_first and pieces.adds_space and PieceType.USER_DEFINED in pieces.types


def _normalizer(pieces: Pieces) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if pieces.trims_spaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _pre_tokenizers(pieces: Pieces) -> list[pre_tokenizers.PreTokenizer]:
    """The space before a text, and user-defined pieces on their own.

    Metaspace leaves a text alone that begins with its space already, and sentencepiece does not. After the normalizer
    no text has a plain space, so one is put before each, and turned into sentencepiece's in a second step.
    """
    steps: list[pre_tokenizers.PreTokenizer] = []
    if pieces.adds_space:
        scheme = "always" if pieces.adds_space_after_special else "first"
        steps += [
            pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=scheme, split=False),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False),
        ]
    if _is_cut_out(pieces):
        own = map(_spelled, _of_type(pieces, PieceType.USER_DEFINED))
        longest_first = sorted(own, key=len, reverse=True)
        steps.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), behavior="isolated"))
    return steps


@dataclass(frozen=True)
class SentencePieceModel:
    """What is in a ``tokenizer.model``."""

    pieces: Pieces
    named: dict[str, str]
    """The pieces that begin and end a text and stand for what is unknown, as transformers names them."""


def read_sentencepiece(path: Path, *, adds_space_after_special: bool = True) -> SentencePieceModel | None:
    """What is in a ``tokenizer.model``; None, if it is no BPE, replaces characters first, or is in tiktoken's form.

    Raises: ModelError, if it is damaged, or its rules are not those that a tokenizer can be made of.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2  # its classes are made when it is imported, which no checker sees
    content = path.read_bytes()
    if re.match(rb"[A-Za-z0-9+/]+={0,2} 0\r?\n", content):
        return None
    model = proto.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelError("this is no sentencepiece model", where=path, remedy=DAMAGED) from error
    trainer, rules = model.trainer_spec, model.normalizer_spec
    if model.pieces and (trainer.model_type != proto.TrainerSpec.BPE or rules.precompiled_charsmap):
        return None
    if trainer.treat_whitespace_as_suffix or not rules.escape_whitespaces:
        what = "the tokenizer puts spaces after words, or leaves them as they are, which is not supported"
        raise ModelError(what, where=path, remedy="copy the model's tokenizer.json there")
    pieces = Pieces(
        texts=[
            piece.piece.replace(SPACE, " ") if piece.type == PieceType.USER_DEFINED else piece.piece
            for piece in model.pieces
        ],
        scores=[piece.score for piece in model.pieces],
        types=[piece.type for piece in model.pieces],
        adds_space=rules.add_dummy_prefix,
        adds_space_after_special=adds_space_after_special,
        trims_spaces=rules.remove_extra_whitespaces,
    )
    if problem := problem_of(pieces):
        raise ModelError(problem, where=path, remedy=DAMAGED)
    ids = {"bos_token": trainer.bos_id, "eos_token": trainer.eos_id, "unk_token": trainer.unk_id}
    ids["pad_token"] = trainer.pad_id
    named = {name: pieces.texts[number] for name, number in ids.items() if 0 <= number < len(pieces.texts)}
    return SentencePieceModel(pieces, named)


def problem_of(pieces: Pieces) -> str | None:
    """In a sentence, why no tokenizer can be made of ``pieces``; None, if one can."""
    if not pieces.texts or "" in pieces.texts or len(set(pieces.texts)) != len(pieces.texts):
        return "the list of pieces is empty, or has an empty one, or one twice"
    if not all(isinstance(score, float) and math.isfinite(score) for score in pieces.scores):
        return "a piece has a score that is no number"
    if (count := len(_of_type(pieces, PieceType.BYTE))) and set(_of_type(pieces, PieceType.BYTE)) != BYTES:
        return f"the pieces for single bytes are {count}, not one for each"
    return None

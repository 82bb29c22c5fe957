"""GGUF's ``gpt2`` tokenizers: the ids of a plain BPE with each family's pattern, and text there and back."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.awkward import TEXTS
from reference.byte_level_bpe import PATTERNS, encode, letters
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.models.gpt2 import GPT2Tokenizer
from transformers.models.qwen2 import Qwen2Tokenizer

from mlxtune.models.gguf.byte_level import PRE_TOKENIZERS, byte_level_tokenizer

WHOLE_WORDS = {"llama-bpe", "llama3", "llama-v3", "tekken"}
COMPOSED = {"qwen2"}
TRAINED_ON = [
    *TEXTS,
    Path(__file__).read_text(encoding="utf-8"),
    "the model's tokens are learned from text, 12 of 345 ",
]


@pytest.fixture(scope="module")
def learned() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and its merges, learned from these files and from the awkward texts without a pattern."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=letters(), show_progress=False, max_token_length=12)
    backend.train_from_iterator(TRAINED_ON, trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_ids_are_those_of_a_plain_bpe_with_the_familys_pattern(learned, pre):
    ids, merges = learned
    backend = byte_level_tokenizer(PRE_TOKENIZERS[pre], ids, merges)

    for text in TEXTS:
        expected = encode(text, ids, merges, pre, whole_words=pre in WHOLE_WORDS, composed=pre in COMPOSED)
        assert backend.encode(text).ids == expected, repr(text)


def test_a_reference_is_there_for_every_pre_tokenizer():
    assert PATTERNS.keys() == PRE_TOKENIZERS.keys()


@pytest.mark.parametrize(("pre", "theirs"), [("qwen2", Qwen2Tokenizer), ("gpt-2", GPT2Tokenizer)])
def test_ids_are_those_of_the_familys_tokenizer_in_transformers(learned, pre, theirs):
    ids, merges = learned
    tokenizer = theirs(vocab=dict(ids), merges=list(merges))
    backend = byte_level_tokenizer(PRE_TOKENIZERS[pre], ids, merges)

    for text in TEXTS:
        assert backend.encode(text).ids == tokenizer.encode(text, add_special_tokens=False), repr(text)


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60), pre=st.sampled_from(sorted(PATTERNS)))
def test_any_text_has_the_references_ids_and_comes_back(learned, text, pre):
    ids, merges = learned
    backend = byte_level_tokenizer(PRE_TOKENIZERS[pre], ids, merges)
    is_composed = pre in COMPOSED

    encoded = backend.encode(text).ids

    assert encoded == encode(text, ids, merges, pre, whole_words=pre in WHOLE_WORDS, composed=is_composed)
    assert backend.decode(encoded) == (unicodedata.normalize("NFC", text) if is_composed else text)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_a_word_that_is_a_token_stands_for_itself_only_where_the_family_has_it_so(pre):
    """llama.cpp: ignore_merges is true for llama-bpe and tekken; so it is in their families' tokenizer.json."""
    ids = {letter: number for number, letter in enumerate(letters())} | {"ab": 256, "bcd": 257, "cd": 258}
    ids["abcd"] = 259
    merges = [("c", "d"), ("b", "cd"), ("ab", "cd"), ("a", "b")]

    backend = byte_level_tokenizer(PRE_TOKENIZERS[pre], ids, merges)

    assert backend.encode("abcd").ids == ([259] if pre in WHOLE_WORDS else [ids["a"], 257])

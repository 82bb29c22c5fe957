"""Texts into tokens with places to split them at: many at once come to what each comes to alone."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import load
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mlxtune.data.rendering.token_cuts import Encoder, JoinedError

SPECIAL = ("<s>", "</s>", "<s>>")
UNKNOWN = {"unk_token": "<unk>"}
PIECES = ("<s>", "</s>", "<s>>", "<s", ">", "ab", "a", "b", " ", "\n", "é", "<tag>", "A")


def byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("Ġ", "a"), ("Ċ", "a"), ("<", "s"), ("Ġ", "Ġ")]
    names = [*SPECIAL, *alphabet, *("".join(merge) for merge in merges)]
    backend = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def sentencepiece(scheme):
    names = ["<unk>", *SPECIAL, *"abAé▁\n<>/stg", "ab", "▁a", "▁ab", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [("a", "b"), ("▁", "a"), ("▁", "ab")]
    vocabulary = {name: i for i, name in enumerate(dict.fromkeys(names))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=True, byte_fallback=True, **UNKNOWN))
    if scheme == "normalizer":  # as Llama 2's was converted
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return backend


def lower_case():
    backend = byte_level()
    backend.normalizer = normalizers.Lowercase()
    return backend


KINDS = {
    "byte level": (byte_level, {}),
    "takes white space after it": (byte_level, {"rstrip": True}),
    "takes white space before it": (byte_level, {"lstrip": True}),
    "a word of its own": (byte_level, {"single_word": True}),
    "looked for in lower case": (lower_case, {"normalized": True}),
    "lower case": (lower_case, {}),
    "first word marked": (lambda: sentencepiece("first"), {}),
    "each part marked": (lambda: sentencepiece("always"), {}),
    "marked by a normalizer": (lambda: sentencepiece("normalizer"), {}),
}


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build, more = KINDS[request.param]
    backend = build()
    backend.add_special_tokens([AddedToken(text, **{"normalized": False, **more}) for text in SPECIAL])
    backend.add_tokens([AddedToken("<tag>")])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Encoder(load(folder))


@st.composite
def texts_with_places(draw):
    text = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=12)))
    return text, sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))


def alone(encoder, text, cuts):
    try:
        return encoder.encode(text, cuts)
    except JoinedError as error:
        return error


@settings(deadline=None)
@given(asked=st.lists(texts_with_places(), max_size=5))
def test_many_texts_at_once_come_to_what_each_comes_to_alone(encoder, asked):
    together = encoder.encode_all([text for text, _ in asked], [cuts for _, cuts in asked])
    for (text, cuts), found in zip(asked, together, strict=True):
        expected = alone(encoder, text, cuts)
        assert type(found) is type(expected)
        if not isinstance(found, JoinedError):
            np.testing.assert_array_equal(found.ids, expected.ids)
            assert found.ends == expected.ends
            assert found.ids.dtype == np.int32


class Counting:
    """A tokenizer that counts the texts that it encodes one by one."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self._tokenizer = tokenizer._tokenizer
        self.alone = 0

    def encode(self, *args, **more):
        self.alone += 1
        return self.tokenizer.encode(*args, **more)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize("encoder", ["byte level", "first word marked"], indirect=True)
def test_texts_with_added_tokens_are_not_encoded_one_by_one(encoder):
    counting = Counting(encoder.tokenizer)
    text = "<s>a b</s><s>ab\nA</s>"
    (found,) = Encoder(counting).encode_all([text], [[3, 10, 13, 17]])
    assert counting.alone == 0
    assert not isinstance(found, JoinedError)
    np.testing.assert_array_equal(found.ids, encoder.encode(text, []).ids)


def test_a_text_that_no_tokens_can_be_split_in_is_an_error(tmp_path):
    backend = byte_level()
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(list(SPECIAL))
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    encoder = Encoder(load(tmp_path))
    encoder.tokenizer.decode = str  # a decoder that shows how a text was split
    with pytest.raises(JoinedError):
        encoder.encode("ab", [1])
    (found,) = encoder.encode_all(["ab"], [[1]])
    assert isinstance(found, JoinedError)

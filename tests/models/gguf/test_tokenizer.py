"""The tokenizer in a GGUF file's metadata: opened by transformers, splitting text as its pre-tokenizer says."""

import json
from pathlib import Path

import pytest
from tiny import CHATML
from transformers import AutoTokenizer

from mlxtune.errors import ModelError
from mlxtune.models.gguf.header import read_header
from mlxtune.models.gguf.tokenizer import write_gguf_tokenizer


def opened(path: Path, folder: Path):
    folder.mkdir()
    write_gguf_tokenizer(read_header(path).metadata, folder, where=path, rows=264)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_special_tokens_template_and_ends_are_those_of_the_file(tmp_path, tiny_gguf):
    tokenizer = opened(tiny_gguf, tmp_path / "out")

    assert tokenizer.chat_template == CHATML
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (
        1,
        2,
        2,
        0,
    )
    assert set(tokenizer.all_special_ids) >= {0, 1, 2}
    assert tokenizer.encode("<|im_start|>the<|im_end|>") == [1, tokenizer.get_vocab()["the"], 2]
    assert tokenizer.decode([1, 260, 2], skip_special_tokens=True) == "the"
    assert tokenizer.model_max_length == 128


@pytest.mark.parametrize(("pre", "digits"), [("smollm", ["1", "2"]), ("gpt-2", ["12"])])
def test_the_pre_tokenizer_decides_whether_digits_stand_alone(tmp_path, write_gguf, pre, digits):
    write_gguf(tmp_path / "x.gguf", tokenizer__ggml__pre=pre)

    tokenizer = opened(tmp_path / "x.gguf", tmp_path / "out")

    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("the12")) == ["the", *digits]


def test_bos_stands_before_every_text_where_the_family_has_it_so_and_the_file_does_not_say(tmp_path, write_gguf):
    """llama.cpp: add_bos is true for llama-bpe and tekken unless the file says otherwise."""
    settings = {"tokenizer__ggml__pre": "llama-bpe", "tokenizer__ggml__add_bos_token": None}
    write_gguf(tmp_path / "x.gguf", **settings)
    write_gguf(tmp_path / "y.gguf", **settings | {"tokenizer__ggml__add_bos_token": False})
    write_gguf(tmp_path / "z.gguf", **settings | {"tokenizer__ggml__bos_token_id": None})

    the = opened(tmp_path / "x.gguf", tmp_path / "x").get_vocab()["the"]

    assert opened(tmp_path / "x.gguf", tmp_path / "x2").encode("the") == [1, the]
    assert opened(tmp_path / "y.gguf", tmp_path / "y").encode("the") == [the]
    assert opened(tmp_path / "z.gguf", tmp_path / "z").encode("the") == [the]


def test_a_qwen2_model_cut_otherwise_than_qwen2_is_refused(tmp_path, tiny_gguf):
    """transformers builds the tokenizer of every qwen2 model with that family's pattern, whatever its file says."""
    metadata = read_header(tiny_gguf).metadata | {"general.architecture": "qwen2"}

    with pytest.raises(ModelError, match="qwen2 model with the pre-tokenizer 'smollm'"):
        write_gguf_tokenizer(metadata, tmp_path, where=tiny_gguf, rows=264)


@pytest.mark.parametrize("text", ["hello the 2024", "ünï 日本 🙂\n\ttabs", " leading and trailing ", "<|im_start|>"])
def test_text_survives_the_way_there_and_back(tmp_path, tiny_gguf, text):
    tokenizer = opened(tiny_gguf, tmp_path / "out")

    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokens_around_every_text_are_added_where_the_file_asks(tmp_path, write_gguf):
    write_gguf(tmp_path / "x.gguf", tokenizer__ggml__add_bos_token=True, tokenizer__ggml__add_eos_token=True)

    tokenizer = opened(tmp_path / "x.gguf", tmp_path / "out")

    the = tokenizer.get_vocab()["the"]
    assert tokenizer.encode("the") == [1, the, 2]
    assert tokenizer.encode("the", add_special_tokens=False) == [the]


def test_a_user_defined_token_is_whole_but_stays_in_the_text(tmp_path, write_gguf):
    types = [3, 3, 3] + [1] * 256 + [1, 1, 4]
    write_gguf(tmp_path / "x.gguf", tokenizer__ggml__token_type=types)

    tokenizer = opened(tmp_path / "x.gguf", tmp_path / "out")

    assert tokenizer.decode(tokenizer.encode("the12"), skip_special_tokens=True) == "the12"
    assert tokenizer.encode("12") == [261]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "bert"}, "of the kind 'bert' with the pre-tokenizer 'smollm'"),
        ({"model": None}, "of the kind None"),
        ({"model": "llama"}, "list of scores does not go with the list of tokens"),
        ({"pre": "falcon"}, "pre-tokenizer 'falcon'; gpt2 with smollm, gpt-2, .* and llama, are supported"),
        ({"pre": "default"}, "pre-tokenizer 'default'"),
        ({"pre": None}, "pre-tokenizer None"),
        ({"tokens": None}, "list of tokens is empty"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "has one twice"),
        ({"tokens": [f"t{i}" for i in range(265)], "token_type": [1] * 265}, "longer than the 264 rows"),
        ({"token_type": [1, 1]}, "token types does not go with"),
        ({"merges": ["t h", "th zz"]}, "merge 'th zz' is not of two tokens to a third"),
        ({"merges": ["th"]}, "merge 'th' is not"),
        ({"bos_token_id": 263}, "bos_token_id is 263, which is no token"),
        ({"bos_token_id": None, "add_bos_token": True}, "none is named"),
    ],
)
def test_a_tokenizer_that_cannot_be_taken_over_exactly_is_refused(tmp_path, write_gguf, settings, sentence):
    path = tmp_path / "x.gguf"
    write_gguf(path, **{f"tokenizer__ggml__{key}": value for key, value in settings.items()})

    with pytest.raises(ModelError, match=sentence) as caught:
        write_gguf_tokenizer(read_header(path).metadata, tmp_path, where=path, rows=264)

    assert caught.value.where == str(path)

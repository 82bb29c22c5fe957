"""A tokenizer in GGUF's metadata: named as llama.cpp names it, and the ids are the ones that it gave."""

import io
import json
from pathlib import Path

import gguf
import pytest
import sentencepiece
from reference.awkward import TEXTS
from sentencepiece import sentencepiece_model_pb2
from tiny import CHATML, SPECIAL, tiny_backend, write_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from mlxtune.errors import ModelError
from mlxtune.models.gguf.byte_level import PRE_TOKENIZERS, byte_level_tokenizer
from mlxtune.models.gguf.tokenizer import write_gguf_tokenizer
from mlxtune.models.gguf.vocabulary import make_vocabulary
from mlxtune.models.tokenizer import open_tokenizer

ROWS = 900
LLAMA = {"general.architecture": "llama", "general.name": "mine"}


def vocabulary_of(folder: Path, *, rows=ROWS, ends=(2,), metadata=LLAMA):
    return make_vocabulary(open_tokenizer(folder), metadata, rows=rows, ends=ends, where=folder)


def ids_again(vocabulary, folder, texts, *, rows=ROWS, metadata=LLAMA):
    """The ids of a tokenizer that is made of the metadata again."""
    folder.mkdir()
    write_gguf_tokenizer(metadata | vocabulary, folder, where=folder, rows=rows)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [backend.encode(text).ids for text in texts]


def folder_of(backend, folder: Path, **settings) -> Path:
    write_tokenizer(folder)
    backend.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text()) | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_the_way_that_text_is_cut_is_found_again_by_its_name(tmp_path, pre):
    how = PRE_TOKENIZERS[pre]
    ids = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"])}
    backend = byte_level_tokenizer(how, ids, [("t", "h"), ("th", "e")])
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    folder = folder_of(backend, tmp_path)

    vocabulary, notes = vocabulary_of(folder)

    named = PRE_TOKENIZERS[vocabulary["tokenizer.ggml.pre"]]
    assert (named.patterns, named.takes_whole_words, named.composes) == (
        how.patterns,
        how.takes_whole_words,
        how.composes,
    )
    assert vocabulary["tokenizer.ggml.merges"] == ["t h", "th e"]
    assert ids_again(vocabulary, tmp_path / "again", TEXTS) == [backend.encode(text).ids for text in TEXTS]
    assert notes == []


def test_every_row_has_a_token_and_each_token_its_type(tmp_path):
    backend = tiny_backend()
    backend.add_tokens([AddedToken("[TOOL]", special=False, normalized=False)])
    folder = folder_of(backend, tmp_path, add_bos_token=True)

    vocabulary, _ = vocabulary_of(folder, rows=262)

    types = vocabulary["tokenizer.ggml.token_type"]
    kinds = gguf.TokenType
    assert vocabulary["tokenizer.ggml.tokens"][:3] == list(SPECIAL)
    assert vocabulary["tokenizer.ggml.tokens"][259:] == ["[TOOL]", "[PAD260]", "[PAD261]"]
    assert types[:3] == [kinds.CONTROL] * 3
    assert set(types[3:259]) == {kinds.NORMAL}
    assert types[259:] == [kinds.USER_DEFINED, kinds.UNUSED, kinds.UNUSED]
    assert vocabulary["tokenizer.chat_template"] == CHATML
    named = {key: vocabulary[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "padding", "unknown")}
    assert named == {"bos": 1, "eos": 2, "padding": 2, "unknown": 0}
    assert vocabulary["tokenizer.ggml.add_bos_token"] is False


def test_a_token_that_the_network_has_no_row_for_is_left_out(tmp_path):
    backend = tiny_backend()
    backend.add_tokens([AddedToken("[IMAGE]", special=True)])

    vocabulary, _ = vocabulary_of(folder_of(backend, tmp_path), rows=259)

    assert len(vocabulary["tokenizer.ggml.tokens"]) == 259


def test_all_ends_are_named_as_far_as_there_are_places(tmp_path):
    folder = folder_of(tiny_backend(), tmp_path)

    vocabulary, notes = vocabulary_of(folder, ends=(0, 1, 2))
    _, more = vocabulary_of(folder, ends=(0, 1, 2, 7))

    assert [vocabulary[f"tokenizer.ggml.{key}_token_id"] for key in ("eos", "eot", "eom")] == [2, 0, 1]
    assert notes == []
    assert more == ["GGUF has no place for 1 more tokens that end an answer: [7]"]


@pytest.mark.parametrize(
    ("single", "bos", "eos"), [("<|im_start|> $A", True, False), ("<|im_start|> $A <|im_end|>", True, True)]
)
def test_tokens_around_every_text_are_said(tmp_path, single, bos, eos):
    backend = tiny_backend()
    backend.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )

    vocabulary, _ = vocabulary_of(folder_of(backend, tmp_path))

    assert vocabulary["tokenizer.ggml.add_bos_token"] is bos
    assert vocabulary["tokenizer.ggml.add_eos_token"] is eos
    assert ids_again(vocabulary, tmp_path / "again", ["a"])[0] == backend.encode("a").ids


def unknown_cut(backend):
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def other_ends(backend):
    backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (unknown_cut, "in a way that GGUF has no known name for"),
        (other_ends, "puts other tokens than bos and eos around a text"),
        (lambda backend: backend.add_tokens(["[PAD299]"]), "spelled like a gap"),
    ],
)
def test_what_gguf_cannot_say_of_a_tokenizer_is_refused(tmp_path, change, sentence):
    backend = tiny_backend()
    change(backend)

    with pytest.raises(ModelError, match=sentence) as caught:
        vocabulary_of(folder_of(backend, tmp_path), rows=300)
    assert caught.value.remedy


def test_a_tokenizer_that_is_no_bpe_is_refused(tmp_path):
    backend = Tokenizer(models.WordLevel({text: i for i, text in enumerate(SPECIAL)}, unk_token=SPECIAL[0]))

    with pytest.raises(ModelError, match="of the kind WordLevel, not BPE"):
        vocabulary_of(folder_of(backend, tmp_path))


RULES = {
    "llama": {},
    "gemma": {"add_dummy_prefix": False, "user_defined_symbols": ["[TOOL]", "\n\n"]},
    "llama with pieces of its own": {"user_defined_symbols": ["[TOOL]"]},
}


@pytest.mark.parametrize(
    ("strips", "given", "named"),
    [(True, "mine", "Phi-3 mine"), (True, "my phi3", "my phi3"), (False, "my Phi-3", "my phi")],
)
def test_phi_3s_name_stands_where_spaces_are_stripped_as_phi_3_does_it_and_nowhere_else(tmp_path, strips, given, named):
    """llama.cpp strips by general.name, and fails to load a model so named that lacks Phi 3's tokens."""
    special = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|end|>"]
    ids = {token: i for i, token in enumerate([*special, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"])}
    backend = Tokenizer(models.BPE(ids, [], unk_token=special[0], byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.add_special_tokens([AddedToken(text, rstrip=strips and text == special[-1]) for text in special])
    ends = {"bos_token": "<s>", "eos_token": "<|end|>", "pad_token": "<unk>", "unk_token": "<unk>"}
    metadata = {"general.architecture": "phi3", "general.name": given}

    vocabulary, _ = vocabulary_of(folder_of(backend, tmp_path, **ends), metadata=metadata)

    assert vocabulary["general.name"] == named


@pytest.mark.parametrize("name", RULES)
def test_sentencepieces_come_back_with_their_types_and_ids(tmp_path, name):
    texts = [text for text in TEXTS if 0 < len(text) < 90]
    model = io.BytesIO()
    settings = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 750, "character_coverage": 0.98}
    settings |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines, *texts] * 2), model_writer=model, minloglevel=2, **settings, **RULES[name]
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())

    vocabulary, _ = vocabulary_of(tmp_path)

    assert (vocabulary["tokenizer.ggml.model"], vocabulary["tokenizer.ggml.pre"]) == ("llama", "default")
    assert vocabulary["tokenizer.ggml.add_space_prefix"] is (name != "gemma")
    assert vocabulary["tokenizer.ggml.add_bos_token"] is True
    assert vocabulary["tokenizer.ggml.token_type"][:750] == [piece.type for piece in proto.pieces]
    assert vocabulary["tokenizer.ggml.tokens"][:750] == [piece.piece for piece in proto.pieces]
    scores = vocabulary["tokenizer.ggml.scores"]
    merged = [i for i, piece in enumerate(proto.pieces) if piece.type == 1 and len(piece.piece) > 1]
    assert sorted(merged, key=lambda i: -scores[i]) == sorted(merged, key=lambda i: (-proto.pieces[i].score, i))
    given = ids_again(vocabulary, tmp_path / "again", TEXTS)
    # a text that begins with a piece of one's own has no space before it, as llama.cpp has it
    assert given == [[reference.bos_id(), *reference.encode(text)] for text in TEXTS]

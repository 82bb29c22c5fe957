"""sentencepiece's BPE, from tokenizer.model or GGUF: the ids that sentencepiece gives, and text there and back."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from reference.awkward import TEXTS
from sentencepiece import sentencepiece_model_pb2
from tiny import tiny_model_folder

from mlxtune.errors import ModelError
from mlxtune.models.gguf.tokenizer import write_gguf_tokenizer
from mlxtune.models.sentencepiece_tokenizer import read_sentencepiece, sentencepiece_tokenizer
from mlxtune.models.tokenizer import open_tokenizer

SPACE = "\u2581"
# texts in which the pieces of bytes and spaces are only spelled out, which no other text of TEXTS has
OWN_TEXTS = [f"{SPACE}under", f"a{SPACE}b {SPACE}", "[TOOL]", "[TOOL] x", "x[TOOL][TOOL]y [TOOL]", "   [TOOL]   "]
RULES = {
    "llama": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "gemma": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["[TOOL]", SPACE * 2, SPACE * 3, "\n\n"],
    },
    "llama with pieces of its own": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["[TOOL]", SPACE * 3],
    },
    "spaces trimmed": {"normalization_rule_name": "identity"},
    "no byte pieces": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": False,
        "character_coverage": 0.98,
    },
}


def trained(**rules) -> bytes:
    """A model learned from this file and the awkward texts, but for the very long ones."""
    texts = [text for text in TEXTS if 0 < len(text) < 90]
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    model = io.BytesIO()
    settings = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 750, "character_coverage": 0.98}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines, *texts] * 2), model_writer=model, minloglevel=2, **(settings | rules)
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return {name: trained(**rules) for name, rules in RULES.items()}


def from_file(folder: Path, model: bytes):
    (folder / "tokenizer.model").write_bytes(model)
    found = read_sentencepiece(folder / "tokenizer.model")
    assert found is not None
    return sentencepiece_tokenizer(found.pieces)


@pytest.mark.parametrize("name", RULES)
def test_ids_and_text_are_those_of_sentencepiece(tmp_path, models, name):
    reference = sentencepiece.SentencePieceProcessor(model_proto=models[name])
    backend = from_file(tmp_path, models[name])
    # sentencepiece takes a spelled-out space for one, and makes pieces of it, or trims it. Gemma's tokenizer.json finds
    # such pieces in the raw text, as ours does.
    own = [text for text in OWN_TEXTS if name not in {"gemma", "spaces trimmed"} or SPACE not in text]

    for text in [*TEXTS, *own]:
        expected = reference.encode(text)
        assert backend.encode(text, add_special_tokens=False).ids == expected, repr(text)
        if name != "no byte pieces":  # there sentencepiece has a sign of its own for what is unknown
            assert backend.decode(expected) == reference.decode(expected), repr(text)


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters=SPACE), max_size=60))
def test_any_text_has_sentencepieces_ids_and_comes_back(tmp_path_factory, models, text):
    folder = tmp_path_factory.getbasetemp()
    for name in ("llama", "gemma", "llama with pieces of its own"):
        backend = from_file(folder, models[name])

        encoded = backend.encode(text, add_special_tokens=False).ids

        assert encoded == sentencepiece.SentencePieceProcessor(model_proto=models[name]).encode(text)
        assert backend.decode(encoded) == text


@pytest.fixture
def folder(tmp_path: Path, models: dict[str, bytes]) -> Path:
    """A model whose tokenizer is a tokenizer.model and nothing else, as Llama 2 and Mistral 7B v0.1 have it."""
    tiny_model_folder(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / "tokenizer.model").write_bytes(models["llama"])
    return tmp_path / "model"


def test_a_folder_with_a_tokenizer_model_alone_opens(folder, models):
    before = sorted(path.name for path in folder.iterdir())
    reference = sentencepiece.SentencePieceProcessor(model_proto=models["llama"])

    tokenizer = open_tokenizer(folder)

    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)
        assert tokenizer.encode(text) == [reference.bos_id(), *reference.encode(text)]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_text_that_streams_out_token_by_token_is_the_whole(folder):
    tokenizer = open_tokenizer(folder)
    for text in ("hello  world", "\u65e5\u672c\u8a9e \U0001f642 caf\u00e9", "a\n\tb"):
        detokenizer = tokenizer.detokenizer
        detokenizer.reset()
        for token in tokenizer.encode(text, add_special_tokens=False):
            detokenizer.add_token(token)
        detokenizer.finalize()
        assert detokenizer.text == text


def test_special_tokens_are_one_token_in_a_text_and_gone_from_an_answer(folder):
    tokenizer = open_tokenizer(folder)

    ids = tokenizer.encode("<s>hello</s>", add_special_tokens=False)

    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hello"


@pytest.mark.parametrize(
    ("settings", "first"), [({}, f"{SPACE}"), ({"legacy": True}, f"{SPACE}"), ({"legacy": False}, "")]
)
def test_whether_a_text_begins_anew_after_a_special_token_is_the_folders_to_say(folder, models, settings, first):
    """transformers' LlamaTokenizer: with legacy each part between special tokens has its own space, else the first."""
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    reference = sentencepiece.SentencePieceProcessor(model_proto=models["llama"])
    tokenizer = open_tokenizer(folder)

    after = tokenizer.encode("</s>hello", add_special_tokens=False)[1:]

    assert "".join(reference.id_to_piece(i) for i in after) == f"{first}hello"
    assert tokenizer.encode("  hello", add_special_tokens=False) == reference.encode("  hello")


def test_settings_added_tokens_and_template_beside_the_model_are_kept(folder):
    settings = {"add_bos_token": False, "add_eos_token": True, "pad_token": "</s>", "model_max_length": 77}
    settings["added_tokens_decoder"] = {"750": {"content": "<|user|>", "special": True, "rstrip": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")

    tokenizer = open_tokenizer(folder)

    ids = tokenizer.encode("<|user|> \n hello")
    assert ids[0] == 750
    assert ids[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.decode(ids[1:-1]) == "hello"
    assert tokenizer.model_max_length == 77
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x!"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "list of pieces is empty"),
        (b"\x00\x01\x02 no model", "no sentencepiece model"),
        (b"\x0a\xff\xff\xff\xff\x0f", "no sentencepiece model"),
    ],
)
def test_a_damaged_tokenizer_model_is_refused(folder, content, sentence):
    (folder / "tokenizer.model").write_bytes(content)

    with pytest.raises(ModelError, match=sentence) as caught:
        open_tokenizer(folder)

    assert caught.value.where == str(folder / "tokenizer.model")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: model.pieces.add(piece="<s>", score=0.0), "or one twice"),
        (lambda model: setattr(model.pieces[300], "score", float("nan")), "score that is no number"),
        (lambda model: setattr(model.pieces[5], "piece", "<0xZZ>"), "pieces for single bytes"),
        (lambda model: setattr(model.trainer_spec, "treat_whitespace_as_suffix", True), "spaces after words"),
        (lambda model: setattr(model.normalizer_spec, "escape_whitespaces", False), "leaves them as they are"),
    ],
)
def test_a_tokenizer_model_that_cannot_be_taken_over_exactly_is_refused(folder, models, change, sentence):
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(models["llama"])
    change(model)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())

    with pytest.raises(ModelError, match=sentence) as caught:
        open_tokenizer(folder)

    assert caught.value.where == str(folder / "tokenizer.model")


@pytest.mark.parametrize("rules", [{"model_type": "unigram"}, {"normalization_rule_name": "nmt_nfkc"}])
def test_what_the_tokenizers_package_does_otherwise_is_left_to_transformers(folder, rules):
    (folder / "tokenizer.model").write_bytes(trained(**(RULES["llama"] | rules)))

    assert read_sentencepiece(folder / "tokenizer.model") is None
    assert open_tokenizer(folder).decode(open_tokenizer(folder).encode("hello", add_special_tokens=False)) == "hello"


def metadata_of(model: bytes, **own) -> dict:
    """A tokenizer.model as llama.cpp's converter writes it: user-defined pieces with plain spaces."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    texts = [p.piece.replace(SPACE, " ") if p.type == 4 else p.piece for p in proto.pieces]
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": [piece.score for piece in proto.pieces],
        "tokenizer.ggml.token_type": [piece.type for piece in proto.pieces],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
    }
    return metadata | own


def opened(folder: Path, metadata: dict):
    write_gguf_tokenizer(metadata, folder, where=folder, rows=2000)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return open_tokenizer(folder)


@pytest.mark.parametrize("name", ["llama", "gemma", "no byte pieces"])
def test_ids_from_gguf_are_those_of_sentencepiece(tmp_path, models, name):
    reference = sentencepiece.SentencePieceProcessor(model_proto=models[name])

    tokenizer = opened(tmp_path, metadata_of(models[name]))

    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text), repr(text)
        assert tokenizer.encode(text) == [1, *reference.encode(text)]


def test_in_gguf_a_text_begins_anew_after_every_special_token(tmp_path, models):
    """llama.cpp: a space goes before each part of a text that follows a special token."""
    reference = sentencepiece.SentencePieceProcessor(model_proto=models["llama"])
    tokenizer = opened(tmp_path, metadata_of(models["llama"]))

    ids = tokenizer.encode("a</s>b</s> c", add_special_tokens=False)

    assert ids == [*reference.encode("a"), 2, *reference.encode("b"), 2, *reference.encode(" c")]


def test_phi_3s_special_tokens_swallow_the_white_space_after_them(tmp_path, models):
    """Phi 3's tokenizer.json has rstrip for all of them but <unk>, <s> and <|endoftext|>; llama.cpp the same."""
    reference = sentencepiece.SentencePieceProcessor(model_proto=models["llama"])
    metadata = metadata_of(models["llama"])
    tokenizer = opened(tmp_path, metadata | {"general.architecture": "phi3"})

    assert tokenizer.encode("</s>\n hello<s> x", add_special_tokens=False) == [
        2,
        *reference.encode("hello"),
        1,
        *reference.encode(" x"),
    ]


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"tokenizer.ggml.scores": None}, "scores does not go with"),
        ({"tokenizer.ggml.scores": [0.0]}, "scores does not go with"),
        ({"tokenizer.ggml.scores": [float("nan")] * 750}, "score that is no number"),
        ({"tokenizer.ggml.scores": ["high"] * 750}, "score that is no number"),
        ({"tokenizer.ggml.token_type": [6] * 750}, "pieces for single bytes"),
        ({"tokenizer.ggml.add_space_prefix": 1}, "add_space_prefix is 1, neither true nor false"),
        ({"tokenizer.ggml.add_bos_token": "yes"}, "add_bos_token is 'yes', neither"),
        ({"tokenizer.ggml.eos_token_id": 750}, "eos_token_id is 750, which is no token"),
    ],
)
def test_a_gguf_tokenizer_that_does_not_fit_itself_is_refused(tmp_path, models, own, sentence):
    with pytest.raises(ModelError, match=sentence):
        opened(tmp_path, metadata_of(models["llama"], **own))

    assert not (tmp_path / "tokenizer.json").exists()

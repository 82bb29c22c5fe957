"""What is written under a grammar follows it at every place and ends only where it is whole; bad grammars are named."""

import json
import threading

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tiny import VOCABULARY_SIZE, tiny_backend, tiny_llama, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mlxtune.errors import UsageError
from mlxtune.inference.constrain import Grammars, json_part
from mlxtune.inference.engine import Engine, Request
from mlxtune.inference.sampling import Sampling
from mlxtune.inference.text_stream import decode

END = 2
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "long one"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def grammars(tokenizer):
    return Grammars(tokenizer, VOCABULARY_SIZE)


@pytest.fixture(scope="module")
def network():
    return tiny_llama(hidden=32, heads=2, kv_heads=1)


def allows(state, tokenizer, text):
    """Whether ``text`` may be written and ended; ``state`` goes on by it."""
    for token in tokenizer.encode(text, add_special_tokens=False):
        if not state.allowed()[token]:
            return False
        state.accept(token)
    return bool(state.allowed()[min(tokenizer.eos_token_ids)])


def walk(state, tokenizer, seed, most=600):
    """The text of tokens drawn among those that are allowed, the end as soon as it is; None, if none came."""
    draw, tokens = np.random.default_rng(seed), []
    for _ in range(most):
        allowed = np.flatnonzero(state.allowed())
        if set(allowed.tolist()) & tokenizer.eos_token_ids:
            return decode(tokenizer, tokens)
        tokens.append(int(draw.choice(allowed)))
        state.accept(tokens[-1])
    return None


STRINGS = st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
                    st.integers(0, 3), st.integers(0, 4))  # fmt: skip
LEAVES = st.one_of(
    STRINGS,
    st.sampled_from([
        {"type": "integer", "minimum": -5, "maximum": 300},
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 100},
        {"type": ["boolean", "null"]},
        {"type": "string", "pattern": "^[a-c]{1,4}\\d$"},
        {"type": "string", "format": "date"},
        {"const": {"a": [1, "é"]}},
        {"enum": ["x", 'x"y', 3, None]},
    ]),
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "long name", 'q"', "é"])


def objects(inner):
    def made(properties, required, others):
        wanted = [name for name in properties if name in required]
        return {"type": "object", "properties": properties, "required": wanted, "additionalProperties": others}

    return st.builds(made, st.dictionaries(NAMES, inner, max_size=3), st.sets(NAMES), st.just(False))


def lists(inner):
    return st.builds(lambda items, low: {"type": "array", "items": items, "minItems": low, "maxItems": low + 1},
                     inner, st.integers(0, 2))  # fmt: skip


def containers(inner):
    return st.one_of(objects(inner), lists(inner), st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner))


SCHEMAS = st.recursive(LEAVES, containers, max_leaves=5)


@settings(max_examples=150)
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_whatever_is_drawn_among_the_allowed_tokens_validates(grammars, tokenizer, schema, seed):
    text = walk(grammars.json_schema(schema), tokenizer, seed)
    assume(text is not None)
    jsonschema_rs.validate(schema, json.loads(text))


@settings(max_examples=6)
@given(schemas=st.lists(objects(SCHEMAS), min_size=2, max_size=4), temperature=st.sampled_from([0.0, 0.8, 1.5]))
def test_every_answer_of_the_engine_that_ends_validates_against_its_schema(
    grammars, network, tokenizer, schemas, temperature
):
    engine = Engine(network, tokenizer)
    sampling = Sampling(max_tokens=150, temperature=temperature)
    states = [grammars.json_schema(schema) for schema in schemas]
    asked = {
        engine.submit(Request([5, 6, 7], sampling, number=i, constraint=state)): i for i, state in enumerate(states)
    }
    texts, reasons = dict.fromkeys(asked, ""), {}
    while not engine.is_idle:
        for piece in engine.step():
            texts[piece.ticket] += piece.text
            reasons[piece.ticket] = piece.finish_reason
    assume("stop" in reasons.values())
    for ticket, i in asked.items():
        assert states[i].error is None
        if reasons[ticket] == "stop":
            jsonschema_rs.validate(schemas[i], json.loads(texts[ticket]))


def test_a_json_object_is_one(grammars, tokenizer):
    texts = [walk(grammars.json_object(), tokenizer, seed) for seed in range(40)]
    ended = [text for text in texts if text is not None]  # others have strings that run on
    assert len(ended) > 10
    assert all(isinstance(json.loads(text), dict) for text in ended)


def test_an_end_token_is_allowed_only_where_the_text_is_whole(grammars, tokenizer):
    state, text = grammars.json_schema(PERSON), '{"name": "Ann", "age": 7}'
    for token in tokenizer.encode(text):
        assert not state.allowed()[END]
        assert not state.is_complete
        state.accept(token)
    assert np.flatnonzero(state.allowed()).tolist() == [END]
    assert state.is_complete
    state.accept(END)  # as the engine does, which is a token ahead
    assert np.flatnonzero(state.allowed()).tolist() == [END]
    assert state.error is None


def test_every_end_token_may_end(tmp_path):
    tokenizer = tiny_tokenizer(tmp_path)
    tokenizer.eos_token_ids = {0, 2}
    state = Grammars(tokenizer, VOCABULARY_SIZE).json_schema({"const": 1})
    assert allows(state, tokenizer, "1")
    assert np.flatnonzero(state.allowed()).tolist() == [0, 2]


def test_only_tokens_of_the_tokenizer_are_allowed_and_special_ones_in_no_string(grammars, tokenizer):
    state = grammars.json_schema({"type": "string"})
    assert state.allowed().shape == (VOCABULARY_SIZE,)
    assert not allows(state, tokenizer, '"any')
    allowed = np.flatnonzero(state.allowed())
    assert len(allowed) > 140  # every byte that a letter begins with
    assert allowed.min() >= 3
    assert allowed.max() < 259


def test_logits_may_be_fewer_than_the_tokens(tokenizer):
    assert Grammars(tokenizer, 200).json_object().allowed().shape == (200,)


@pytest.mark.parametrize("text", [
    '{"name":"Ann","age":7}',
    '{"name": "Ann", "age": 7, "tags": ["a", "long one"]}',
    '{\n    "name": "\\u00e9 é",\n    "age": 120\n}',
])  # fmt: skip
def test_json_may_be_written_as_compactly_or_widely_as_the_model_learned_to(grammars, tokenizer, text):
    assert allows(grammars.json_schema(PERSON), tokenizer, text)


@pytest.mark.parametrize("text", [
    '{"age": 7, "name": "Ann"}',  # not in the schema's order
    '{"name": "Ann"}',
    '{"name": "Ann", "age": 121}',
    '{"name": "Ann", "age": 7, "more": 1}',
    '{"name": "much too long", "age": 7}',
    ' {"name": "Ann", "age": 7}',
    '{"name": "Ann", "age": 7} ',
    "{'name': 'Ann', 'age': 7}",
])  # fmt: skip
def test_what_the_schema_does_not_say_cannot_be_written(grammars, tokenizer, text):
    assert not allows(grammars.json_schema(PERSON), tokenizer, text)


def test_white_space_does_not_go_on_for_ever(grammars, tokenizer):
    state = grammars.json_object()
    assert not allows(state, tokenizer, "{" + 64 * " ")
    assert not state.allowed()[tokenizer.encode(" ")[0]]
    assert state.allowed()[tokenizer.encode("}")[0]]


def test_a_schema_cannot_change_how_it_is_read(grammars, tokenizer):
    loose = {"x-guidance": {"lenient": True, "whitespace_flexible": False, "item_separator": ";"}, **PERSON}
    assert allows(grammars.json_schema(loose), tokenizer, '{"name": "Ann", "age": 7}')
    with pytest.raises(UsageError, match=r"no way to follow not \(at #\)"):
        grammars.json_schema({"x-guidance": {"lenient": True}, "not": {}})


REFUSED = {
    "unknown parts": (
        {"properties": {"a": {"items": {"not": {}, "if": {}}}}},
        "there is no way to follow if (at #/properties/a/items), not (at #/properties/a/items)",
    ),
    "choices that overlap": (
        {"items": {"oneOf": [{"type": "integer"}, {"type": "number"}]}},
        "oneOf (at #/items) has choices that may be met together",
    ),
    "a type": ({"type": "foo"}, "Invalid type: foo"),
    "a pattern": ({"type": "string", "pattern": "(?=a)"}, "regex parse error: (?=a): error: look-around, including"),
    "a kind of value": ({"properties": 3}, "properties must be an object"),
    "nothing fits": ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength (3) is greater than maxLength (2)"),
    "without end": ({"$ref": "#"}, "there is no text that it allows"),
    "a number": ({"minimum": float("nan")}, "expected value"),
    "half a letter": ({"enum": ["\ud800"]}, "hex escape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_followed_is_refused_with_the_part(grammars, name):
    schema, expected = REFUSED[name]
    with pytest.raises(UsageError) as caught:
        grammars.json_schema(schema)
    assert caught.value.message.startswith("the schema cannot be followed: ")
    assert expected in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy


def test_a_schema_that_costs_too_much_is_refused_before_it_is_built(grammars):
    for build in (grammars.json_schema, json_part):
        with pytest.raises(UsageError, match="units in multipleOf"):
            build({"type": "integer", "multipleOf": 1_000_003})


def test_a_grammar_that_becomes_too_much_ends_the_answer_and_says_so(grammars, tokenizer):
    """Bounds and a multiple together are a machine that grows as it is followed."""
    state = grammars.json_schema({"type": "integer", "multipleOf": 9973, "minimum": -(10**15), "maximum": 10**15})
    assert state.error is None
    assert walk(state, tokenizer, 0) is not None
    assert state.error == "lexer error: too many expressions constructed"
    assert not state.is_complete
    assert np.flatnonzero(state.allowed()).tolist() == [END]


def test_a_token_that_is_not_allowed_is_an_error_and_nothing_is_raised(grammars):
    state = grammars.json_object()
    state.accept(200)
    assert state.error is not None
    assert np.flatnonzero(state.allowed()).tolist() == [END]


def test_lark_grammars_are_followed_with_schemas_and_special_tokens_in_them(grammars, tokenizer):
    grammar = f'start: <[1]> "says: " ("yes" | %json {{"const": 1}}) | {json_part(PERSON)}'
    assert allows(grammars.lark(grammar), tokenizer, "<|im_start|>says: yes")
    assert allows(grammars.lark(grammar), tokenizer, "<|im_start|>says: 1")
    assert allows(grammars.lark(grammar), tokenizer, '{"name": "Ann", "age": 7}')
    assert not allows(grammars.lark(grammar), tokenizer, "says: yes")


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ("start: foo", 'at 1(8): unknown name: "foo"'),
        ("", "Empty grammar"),
        ("start: " + 200 * "(" + '"a"' + 200 * ")", "too deeply nested"),
        ("start: /(/", 'invalid regex "("'),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused(grammars, grammar, expected):
    with pytest.raises(UsageError) as caught:
        grammars.lark(grammar)
    assert expected in caught.value.message


@pytest.mark.parametrize(
    "grammar", ["start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(600)), "x" * (1 << 20 | 1)]
)
def test_a_grammar_that_costs_too_much_is_refused(grammars, grammar):
    with pytest.raises(UsageError, match="more than 500 rules"):
        grammars.lark(grammar)


def test_a_grammar_made_on_one_thread_is_followed_on_another(grammars, tokenizer):
    made = []
    thread = threading.Thread(target=lambda: made.append(grammars.json_schema(PERSON)))
    thread.start()
    thread.join()
    assert allows(made[0], tokenizer, '{"name": "Ann", "age": 7}')


LAST = "</s>"


def wrapped(backend, **names):
    return TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=backend, **names))


ROWS = [json.dumps({"name": "Ann", "age": age, "tags": ["a", "long one"]}) for age in range(90)]
"""What tokenizers learn, so that their tokens reach over the grammar's borders."""


def byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=[LAST], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(ROWS, trainer)
    return wrapped(backend, eos_token=LAST)


def sentencepiece():
    backend = Tokenizer(models.BPE(byte_fallback=True))
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=[LAST], show_progress=False)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.train_from_iterator(ROWS, trainer)
    model = json.loads(backend.to_str())["model"]
    vocabulary = {**model["vocab"]}
    for piece in bytes_:
        vocabulary.setdefault(piece, len(vocabulary))
    backend = Tokenizer(models.BPE(vocabulary, [tuple(pair) for pair in model["merges"]], byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\N{LOWER ONE EIGHTH BLOCK}", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens([AddedToken(LAST, special=True)])
    return wrapped(backend, eos_token=LAST)


@pytest.mark.parametrize("kind", [byte_level, sentencepiece])
def test_tokens_of_several_letters_are_followed_too(kind):
    tokenizer = kind()
    text = '{"name": "Ann", "age": 7, "tags": ["a"]}'
    assert len(tokenizer.encode(text)) < len(text) / 2
    grammars = Grammars(tokenizer, len(tokenizer) + 3)
    assert allows(grammars.json_schema(PERSON), tokenizer, text)
    for seed in range(20):
        found = walk(grammars.json_schema(PERSON), tokenizer, seed)
        assert found is not None
        jsonschema_rs.validate(PERSON, json.loads(found))


def test_a_tokenizer_that_cannot_be_followed_is_named(tokenizer):
    class Own:
        eos_token_ids = frozenset({2})

    with pytest.raises(UsageError, match="it is not one of the tokenizers package"):
        Grammars(Own(), 10).json_object()
    endless = wrapped(tiny_backend())
    with pytest.raises(UsageError, match="it has no end token"):
        Grammars(endless, 264).json_object()
    endless._tokenizer.backend_tokenizer.decoder = decoders.WordPiece()
    endless.eos_token_ids = {2}
    with pytest.raises(UsageError, match="with this model's tokenizer: "):
        Grammars(endless, 264).json_object()

"""Answers that follow a grammar: any JSON object, JSON by a schema, or a Lark grammar.

llguidance follows the grammar and says which tokens may come next; a token that does not fit cannot be drawn, so what
is written is right so far at every place, and whole once it ends. Nothing makes it end: text that may go on, such as a
string without ``maxLength``, runs on until the answer's limit where the network wants it to. Knows nothing of who asks.
The price is a step through the grammar for each token, a fraction of a millisecond for most, and that an answer waits
for its token before the next one is chosen.
"""

import json
import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlxtune.errors import UsageError
from mlxtune.inference.schema_limits import OUTSIDE, check_schema, places_of

JSON = {
    # Without a bound a network may write white space for ever, and small ones do. A line and its indentation fit.
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}",
    "json_allow_general_unicode_escapes": True,  # as Python's json writes letters beyond ASCII, and so trained models
}
"""How JSON is written, llguidance's setting."""
LIMITS = LLParserLimits(
    max_lexer_states=20_000,  # at most 40 MB an answer
    precompute_large_lexemes=False,  # a schema is used for one answer: what is looked at early is seldom needed
    verbose_errors=False,  # an error may reach a log, and the text is the user's
)
MOST_RULES = 500
"""Of a Lark grammar: llguidance follows rules through rules by recursion."""
MOST_CHARACTERS = 1 << 20
"""Of a Lark grammar, its schemas included."""

RULE = re.compile(r"^[ \t]*[?!]?[A-Za-z_]\w*[^:\n]*:", re.MULTILINE)
UNKNOWN = re.compile(r"^Unimplemented keys: (\[.*\])$")
NO_WORDS = ("NoExtension", "NoExtensionBias")
"""llguidance's reasons where no text fits a grammar."""


class GrammarState:
    """How far one answer has come in its grammar: a `drawing.Constraint`."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._vocabulary_size = vocabulary_size

    @property
    def error(self) -> str | None:
        """Why the grammar could not be followed to its end; then the answer ends before it is whole.

        That is where a grammar came to be too much for llguidance's limits, which not every one shows at once.
        """
        return _said(self._matcher) if self._matcher.is_error() else None

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return not self._matcher.is_error() and self._matcher.is_accepting()

    def allowed(self) -> np.ndarray:
        """Whether each token may come next, [V] booleans: an end token only where the text is whole, or after an
        error.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(bits, count=self._vocabulary_size, bitorder="little").view(bool)

    def accept(self, token: int) -> None:
        """Go on by a token. One that is not allowed is an error from then on."""
        self._matcher.consume_token(token)


class Grammars:
    """What answers by one tokenizer may be made to follow.

    Args:
        vocabulary_size: V of the logits, which may be above the tokenizer's: those tokens are never allowed.
    """

    def __init__(self, tokenizer: TokenizerWrapper, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size

    def json_object(self) -> GrammarState:
        """Any JSON object. Raises: UsageError, for a tokenizer that cannot be followed."""
        return self.json_schema({"type": "object"})

    def json_schema(self, schema: Mapping[str, Any]) -> GrammarState:
        """JSON by a schema, with an object's keys in the order of its ``properties``.

        A string without ``maxLength``, a list without ``maxItems`` or a number without bounds may run on until the
        answer's limit, and so may a schema whose parts require each other without end.

        Raises: UsageError, naming the part, for a schema that cannot be followed or costs too much: what llguidance
            does not know (``not``, ``if``, ``uniqueItems``), references out of the schema, more than `schema_limits`
            has.
        """
        check_schema(schema)
        return self._state(LLMatcher.grammar_from_json_schema(_guided(schema)), schema)

    def lark(self, grammar: str) -> GrammarState:
        """A text by a grammar of llguidance's kind of Lark. A schema of a stranger stands in it as `json_part`.

        Raises: UsageError, with the line, for what is no grammar or too long a one.
        """
        if len(grammar) > MOST_CHARACTERS or len(RULE.findall(grammar)) > MOST_RULES:
            raise UsageError(
                f"the grammar has more than {MOST_RULES} rules or {MOST_CHARACTERS:,} characters",
                remedy="shorten it",
            )
        return self._state(LLMatcher.grammar_from_lark(grammar))

    def _state(self, grammar: str, schema: Mapping[str, Any] | None = None) -> GrammarState:
        """The beginning of ``grammar``. Raises: UsageError, where nothing can be written by it."""
        matcher = LLMatcher(self._followed, grammar, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # what no text can follow shows when the first token is looked for
        if matcher.is_error():
            raise _refused(matcher, schema)
        return GrammarState(matcher, self._vocabulary_size)

    @cached_property
    def _followed(self) -> LLTokenizer:
        """The tokenizer as llguidance has it: a second's work for a large one, done when it is first needed."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None or not self._tokenizer.eos_token_ids:
            what = "it is not one of the tokenizers package" if backend is None else "it has no end token"
            raise UsageError(
                f"answers cannot be made to follow a grammar with this model's tokenizer: {what}",
                remedy="ask without response_format and tool_choice, or use another model",
            )
        backend = copy(backend)
        backend.no_padding()
        backend.no_truncation()
        try:
            return LLTokenizer(
                backend.to_str(),
                n_vocab=max(self._vocabulary_size, backend.get_vocab_size()),
                eos_token=sorted(self._tokenizer.eos_token_ids),
            )
        except ValueError as error:
            raise UsageError(
                f"answers cannot be made to follow a grammar with this model's tokenizer: {error}",
                remedy="ask without response_format and tool_choice, or use another model",
            ) from error


def json_part(schema: Mapping[str, Any]) -> str:
    """What stands in a Lark grammar for JSON by a schema. Raises: UsageError, for one that costs too much."""
    check_schema(schema)
    return f"%json {_guided(schema)}"


def _guided(schema: Mapping[str, Any]) -> str:
    """A schema as JSON text, with our settings where llguidance looks for them: the schema's own would change rules."""
    inside = {key: value for key, value in schema.items() if key not in OUTSIDE}
    return json.dumps({**inside, "x-guidance": JSON})


def _refused(matcher: LLMatcher, schema: Mapping[str, Any] | None) -> UsageError:
    said = _said(matcher)
    if schema is None:
        return UsageError(f"the grammar cannot be followed: {said}", remedy="change it")
    remedy = "change that part, or leave it out"
    if unknown := UNKNOWN.match(said):
        said = f"there is no way to follow {_told(schema, json.loads(unknown[1]))}"
    elif said.startswith("oneOf constraints are not supported"):
        said = f"{_told(schema, ['oneOf'])} has choices that may be met together"
        remedy = "use anyOf"
    return UsageError(f"the schema cannot be followed: {said}", remedy=remedy)


def _told(schema: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Keys with the first places that they have in the schema."""
    return ", ".join(f"{key} (at {places[0]})" if (places := places_of(schema, key)) else key for key in keys)


def _said(matcher: LLMatcher) -> str:
    """llguidance's reason: its first and, of a pattern, last line."""
    lines = matcher.get_error().strip().splitlines()
    if not lines or lines[0] in NO_WORDS:
        return "there is no text that it allows"
    return f"{lines[0]} {lines[1].strip()}: {lines[-1]}" if lines[0].endswith("regex parse error:") else lines[0]

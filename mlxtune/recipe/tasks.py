"""The keys of a task, one section a scorer: what is asked of each held-out row, and how the answer is scored.

The key ``scorer`` decides which other keys there are. A section's own keys are the settings that the scorer of its name
takes, and have their defaults here alone.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from mlxtune.recipe.settings import Names, Settings


def _compiles(pattern: str) -> str:
    import regex

    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise PydanticCustomError(
            "expected", "Input should be a regular expression ({why})", {"why": str(error)}
        ) from None
    return pattern


def _labels_differ(labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if labels is not None and len({label.strip() for label in labels} - {""}) < max(2, len(labels)):
        raise PydanticCustomError("expected", "Input should be two labels or more, all different, none empty")
    return labels


def _names_a_function(name: str) -> str:
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):  # noqa: PLR2004 - a module and a function
        raise PydanticCustomError("expected", "Input should be module.function")
    return name


Pattern = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_compiles)]
"""A regular expression as Python writes it; it is looked for anywhere in a text."""


class TaskSettings(Settings):
    """What all tasks have."""

    name: str = Field(min_length=1)
    """What the scores are called."""
    answer_after: str | None = Field(default="\nA:", min_length=1)
    """In text rows: what the prompt ends with, the rest being the answer; null scores no text rows."""


class ChoiceTask(TaskSettings):
    """The likeliest of some labels is the answer: a class, yes or no, one of the letters of a question."""

    scorer: Literal["choice"]
    """`choice`."""
    labels: Annotated[Names | None, AfterValidator(_labels_differ)] = None
    """What there is to choose from; null is all different answers of the rows in data.train."""


class AnswerTask(TaskSettings):
    """A text is written, greedily, and scored."""

    max_tokens: int = Field(default=128, ge=1)
    """Most tokens of an answer."""


class ExactMatchTask(AnswerTask):
    """The answer equals the reference."""

    scorer: Literal["exact_match"]
    """`exact_match`."""


class ContainsTask(AnswerTask):
    """The reference stands in the answer, as words of it."""

    scorer: Literal["contains"]
    """`contains`."""


class NumericTask(AnswerTask):
    """A number of the answer is that of the reference."""

    scorer: Literal["numeric"]
    """`numeric`."""
    pattern: Pattern | None = None
    """Where the number stands: the first group of the first match, or all of it, as `####\\s*(.+)`; null takes the last
    number that there is."""
    tolerance: float = Field(default=0.0, ge=0)
    """How far the number may be off."""
    relative_tolerance: float = Field(default=0.0, ge=0)
    """How far it may be off, as a share of the reference's; the larger of the two counts."""
    decimal_mark: Literal[".", ","] = "."
    """What stands before decimals; the other of the two may stand between thousands."""


class RegexTask(AnswerTask):
    """A pattern is found in the answer, and takes from it what it takes from the reference."""

    scorer: Literal["regex"]
    """`regex`."""
    pattern: Pattern
    """What to look for. What its first group takes is compared with what it takes from the reference; without a group
    it has to be found, and the reference is not looked at."""


class JsonValidTask(AnswerTask):
    """The answer is JSON."""

    scorer: Literal["json_valid"]
    """`json_valid`."""


class JsonFieldsTask(AnswerTask):
    """The answer is a JSON object, compared field by field with the reference."""

    scorer: Literal["json_fields"]
    """`json_fields`."""
    fields: Names | None = None
    """The fields to compare; null compares those of the reference."""


class BleuTask(AnswerTask):
    """The answer has the words of the reference in their order, as a translation should (BLEU)."""

    scorer: Literal["bleu"]
    """`bleu`."""
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"
    """How sacrebleu finds words: `13a` as WMT does, `intl` for any script with spaces, `zh` for Chinese, `char` for
    scripts without spaces, `none` where the rows have them apart already."""
    lowercase: bool = False
    """Whether upper and lower case are one."""


class ChrfTask(AnswerTask):
    """The answer has the letters of the reference in their order, whatever the language (chrF)."""

    scorer: Literal["chrf"]
    """`chrf`."""
    word_order: int = Field(default=0, ge=0, le=4)
    """Runs of words, up to so many, that count as well: 0 is chrF, 2 is chrF++."""


class RougeLTask(AnswerTask):
    """The answer has the words of the reference in their order, with others between them, as a summary may."""

    scorer: Literal["rouge_l"]
    """`rouge_l`."""


class SqlTask(AnswerTask):
    """The answer is a query that gives the rows that the reference gives, on tables that the row brings with it."""

    scorer: Literal["sql"]
    """`sql`."""
    setup: Names
    """The columns of a row that hold its tables, contents and all: SQL text, or an object of table names to lists of
    objects, a table's row each."""
    row_order: Literal["auto", "matters", "ignored"] = "auto"
    """Whether rows have to come in the reference's order: auto where its query has ORDER BY."""


class PythonTask(AnswerTask):
    """Code of yours says how good the answer is. It runs with your rights, and only under `--allow-python`."""

    scorer: Literal["python"]
    """`python`."""
    function: Annotated[str, AfterValidator(_names_a_function)]
    """`module.function`, found in the current folder or among installed packages. It is called as
    `function(output, reference)` and returns a number from 0 to 1, or a dict of such numbers, one of them `score`."""
    columns: Names | None = None
    """Columns of the row that the function is given besides, as `row={column: value}`."""


Task = Annotated[
    BleuTask
    | ChoiceTask
    | ChrfTask
    | ContainsTask
    | ExactMatchTask
    | JsonFieldsTask
    | JsonValidTask
    | NumericTask
    | PythonTask
    | RegexTask
    | RougeLTask
    | SqlTask,
    Field(discriminator="scorer"),
]


def settings_of(task: TaskSettings) -> dict[str, object]:
    """The keys that are the scorer's own, as plain values; a choice's labels are what is asked, and none of these."""
    return task.model_dump(exclude={"scorer", "labels", *AnswerTask.model_fields})

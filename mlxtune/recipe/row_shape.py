"""The keys that say how the rows of a file are read: `data.columns`, which column is which, and `data.template`.

Part of the schema, in a file of its own because it is long. What the columns mean is in `data/forms`.
"""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from mlxtune.recipe.settings import Names, Settings, expected

Column = Annotated[
    Annotated[str, Field(min_length=1)] | Names, expected("the name of a column, or a list of names to join")
]
Words = Annotated[Annotated[str, Field(min_length=1)] | Names, expected("a word, or a list of words")]
Template = Annotated[str, Field(min_length=1)]


class RoleSettings(Settings):
    """What your rows call the speakers of a conversation."""

    system: Words | None = None
    """Who sets the stage."""
    user: Words | None = None
    """Who asks: `USER`, `[customer, guest]`."""
    assistant: Words | None = None
    """Who answers, and is learned."""
    tool: Words | None = None
    """Who hands back what a tool found."""


class ColumnSettings(Settings):
    """Which of your columns is which. A name with dots leads into objects (`a.b`); the texts of a list of names are
    joined with a blank line."""

    messages: Column | None = None
    """The list of turns of a conversation."""
    system: Column | None = None
    """The instruction that stands before all else."""
    tools: Column | None = None
    """The functions that the model may call: JSON schemas, or their text."""
    prompt: Column | None = None
    """What is asked: a text, a list of texts, or a list of turns."""
    completion: Column | None = None
    """The answer to it."""
    text: Column | None = None
    """A whole text to go on writing; with a label, the text that has it."""
    label: Column | None = None
    """The class of a text."""
    chosen: Column | None = None
    """Of two answers the better one."""
    rejected: Column | None = None
    """And the other."""
    role: Column | None = None
    """In a turn: who speaks."""
    content: Column | None = None
    """In a turn: what is said."""
    thinking: Column | None = None
    """In a turn: what is thought before it."""
    tool_calls: Column | None = None
    """In a turn: the functions that it calls, in OpenAI's form."""
    tool_call_id: Column | None = None
    """In a tool's turn: the id of the call that it answers."""
    name: Column | None = None
    """In a tool's turn: the name of the function."""
    weight: Column | None = None
    """In a turn of the assistant's: how much it counts in the loss, 0 or more."""
    train: Column | None = None
    """In a turn of the assistant's: whether it is learned, true or false."""
    call_name: Column | None = None
    """In a turn that holds a call and its result beside its words, which are then read as three turns: the function."""
    call_arguments: Column | None = None
    """In such a turn: what the function is given."""
    call_result: Column | None = None
    """In such a turn: what came back."""
    roles: RoleSettings | None = None
    """What your rows call the speakers."""
    labels: Annotated[Names | dict[str, str] | None, expected("a list of words for 0, 1 ..., or a word by value")] = (
        None
    )
    """Words for labels: a list for 0, 1 ..., or a mapping such as `{a2: arbitration}`."""


class TemplateSettings(Settings):
    """Columns that a Jinja template makes of a row's own, which go by their names in it; `row["a b"]` is any."""

    system: Template | None = None
    """The instruction that stands before all else."""
    prompt: Template | None = None
    """What is asked."""
    completion: Template | None = None
    """The answer to it."""
    text: Template | None = None
    """A whole text to go on writing."""
    label: Template | None = None
    """The class of a text."""
    chosen: Template | None = None
    """Of two answers the better one."""
    rejected: Template | None = None
    """And the other."""


OneOrSeveralTemplates = Annotated[
    Annotated[Template, Tag("one")] | Annotated[TemplateSettings, Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, dict | TemplateSettings) else "one"),
]

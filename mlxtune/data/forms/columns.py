"""Which of a row's fields is which: mlxtune's own names for columns, and where the owner's files keep them.

A mapping has mlxtune's name on the left and the file's on the right, as `data.columns` in a recipe: ``prompt:
QUESTION``, ``content: utterance``. A path with dots leads into objects (``service_call.method``), unless a field has
that very name; a list of paths is joined with a blank line. Names without an entry are looked for under themselves.
Knows names and paths; nothing of what a form does with the values.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mlxtune.data.example import Role
from mlxtune.errors import RecipeError

IN_ROWS = ("messages", "system", "tools", "prompt", "completion", "text", "label", "chosen", "rejected")
"""The columns of a row that may have another name in the file."""

IN_TURNS: tuple[str, ...] = (
    "role",
    "content",
    "thinking",
    "tool_calls",
    "tool_call_id",
    "name",
    "weight",
    "train",
    "call_name",
    "call_arguments",
    "call_result",
)
"""The columns of one turn of a conversation."""

JOINED_BY = "\n\n"

MISSING: Final = object()
"""What stands for a field that a row does not have."""


@dataclass(frozen=True)
class Columns:
    """A mapping of columns, checked: ``paths`` by mlxtune's names, ``roles`` and ``labels`` by the file's words."""

    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    """Fields of the file that something reads, so that none is called not understood."""

    @property
    def names(self) -> frozenset[str]:
        """The columns and words that are mapped; roles count as a turn's ``role``, labels as a row's ``label``."""
        implied = [name for name, words in (("role", self.roles), ("label", self.labels)) if words]
        return frozenset([*self.paths, *implied])

    def value(self, fields: Mapping[str, Any], name: str) -> Any:
        """What a row or turn has in the column ``name``: `MISSING`, if it has none; of several paths, the text of all.

        Of several paths, those that are missing or null are passed over; a list is the text of its strings. Any other
        value is handed back as it is, for the form to refuse.
        """
        paths = self.paths.get(name)
        if paths is None:
            return fields.get(name, MISSING)
        if len(paths) == 1:
            return _at(fields, paths[0])
        found = [value for path in paths if (value := _at(fields, path)) is not MISSING and value is not None]
        texts = [_joined(value) for value in found]
        if not found:
            return MISSING
        wrong = next((value for value in texts if not isinstance(value, str)), None)
        return JOINED_BY.join(texts) if wrong is None else wrong

    def text_value(self, fields: Mapping[str, Any], name: str) -> Any:
        """`value`, where a mapped column that holds a list of strings is their text."""
        value = self.value(fields, name)
        return _joined(value) if name in self.paths else value

    def told(self, name: str) -> str:
        """The column as its owner knows it, for a message: ``'QUESTION' (data.columns.prompt)``."""
        paths = self.paths.get(name)
        return f"'{name}'" if paths is None else f"'{', '.join(paths)}' (data.columns.{name})"


def columns_of(mapping: Mapping[str, Any] | None) -> Columns:
    """A recipe's `data.columns`, as plain values, into `Columns`.

    Args:
        mapping: a path or a list of paths by each of `IN_ROWS` and `IN_TURNS`; ``roles``: the file's word, or a list of
            them, by role; ``labels``: a list of words in the order of the numbers 0, 1 ..., or a word by value.

    Raises: RecipeError, for a name that is none of these, a path that is no text, or a word that has two roles.
    """
    paths: dict[str, tuple[str, ...]] = {}
    for name, value in (mapping or {}).items():
        if name in ("roles", "labels"):
            continue
        if name not in (*IN_ROWS, *IN_TURNS):
            near = difflib.get_close_matches(name, [*IN_ROWS, *IN_TURNS, "roles", "labels"], n=1)
            remedy = f"did you mean {near[0]}?" if near else f"names: {', '.join((*IN_ROWS, *IN_TURNS))}"
            raise RecipeError(f"data.columns.{name} is no column", where="data.columns", remedy=remedy)
        parts = (value,) if isinstance(value, str) else tuple(value)
        if not parts or not all(isinstance(part, str) and part for part in parts):
            raise RecipeError(
                f"data.columns.{name} is no column's name, nor a list of them",
                where="data.columns",
                remedy="name the field that holds it",
            )
        paths[name] = parts
    roles, labels = _roles((mapping or {}).get("roles") or {}), _labels((mapping or {}).get("labels") or {})
    used = [name for parts in paths.values() for part in parts for name in (part, part.partition(".")[0])]
    return Columns(paths, roles, labels, frozenset(used))


def _roles(mapping: Mapping[str, Any]) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for role, words in mapping.items():
        if role not in ("system", "user", "assistant", "tool"):
            raise RecipeError(
                f"data.columns.roles.{role} is no role",
                where="data.columns",
                remedy="roles: system, user, assistant, tool",
            )
        for word in (words,) if isinstance(words, str) else words:
            if word in roles:
                raise RecipeError(
                    f"data.columns.roles gives {word!r} two roles", where="data.columns", remedy="give it one"
                )
            roles[word] = role
    return roles


def _labels(names: Any) -> dict[str, str]:
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    return {str(value): name for value, name in pairs}


def _at(fields: Mapping[str, Any], path: str) -> Any:
    if path in fields:
        return fields[path]
    value: Any = fields
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def _joined(value: Any) -> Any:
    is_texts = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return JOINED_BY.join(value) if is_texts else value

"""Text of a row's fields by a Jinja template, which may do nothing but that.

A template is a stranger's program where a recipe comes from elsewhere, so it gets a small part of Jinja: values, `if`,
`for`, `set`, arithmetic, and the filters, tests and methods of `sandbox`. It cannot import or define anything,
reach attributes of Python's, nor go on for ever: all that it makes counts against a budget. A field that a row lacks,
null, and lists or objects printed as they are, are faults of that row rather than odd words in its text.

Knows fields and text; nothing of forms. The price is a slower render than Jinja's own, which a file of short rows
feels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlxtune.data.faults import Fault
from mlxtune.data.forms.columns import IN_ROWS
from mlxtune.errors import RecipeError
from mlxtune.files import sha256_of
from mlxtune.models.sandbox_budget import TooMuchError
from mlxtune.recipe.choices import is_template_file

MADE = tuple(name for name in IN_ROWS if name not in ("messages", "tools"))
"""The columns that a template can make: those that hold text."""

FILE_REMEDY = "relative paths start at the recipe's folder"

TOO_MUCH = "template costs"
"""The kind of fault of a template that was stopped."""
COST_REMEDY = "take loops that need not be out of data.template"
REMEDY = "give the row what the template asks for, or change data.template"


@dataclass(frozen=True)
class Templates:
    """The templates of a recipe by the column that each makes, and the ``fields`` that they read."""

    compiled: Mapping[str, Any] = field(default_factory=dict)
    fields: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.compiled)

    def make(self, fields: Mapping[str, Any], where: str) -> tuple[dict[str, str], list[Fault]]:
        """The columns made of a row's fields, and a fault for each that could not be."""
        made: dict[str, str] = {}
        faults: list[Fault] = []
        for name, template in self.compiled.items():
            try:
                made[name] = template.render(fields)
            except ValueError as error:
                faults.append(Fault(where, f"the template for {name}: {error}", "template", REMEDY))
            except TooMuchError as error:
                faults.append(Fault(where, f"the template for {name}: {error}", TOO_MUCH, COST_REMEDY))
        return made, faults


def templates_of(template: str | Mapping[str, str] | None) -> Templates:
    """A recipe's `data.template` into `Templates`.

    Args:
        template: a Jinja template by each of the columns `MADE`; a single one makes ``text``. A name that ends
            with ``.jinja`` is the file of one.

    In a template a row's fields go by their own names, and ``row`` is all of them: ``{{ row["a name"] }}``.

    Raises: RecipeError, for another column, a file that cannot be read, and a template that is no Jinja or asks for
        more than it may have.
    """
    if template is None:
        return Templates()
    sources = {"text": template} if isinstance(template, str) else dict(template)
    from mlxtune.data.forms.sandbox import TESTS, compile_template  # here, since Jinja takes a while to import
    from mlxtune.data.forms.sandbox_filters import FILTERS

    compiled: dict[str, Any] = {}
    fields: set[str] = set()
    for name, source in sources.items():
        where = f"data.template.{name}"
        if name not in MADE:
            remedy = f"a template makes one of {', '.join(MADE)}"
            raise RecipeError(f"data.template cannot make the column {name!r}", where=where, remedy=remedy)
        try:
            compiled[name] = compile_template(_text_of(source, where))
        except ValueError as error:
            remedy = f"use values, if, for, set, the filters {', '.join(FILTERS)}, and the tests {', '.join(TESTS)}"
            raise RecipeError(f"{where}: {error}", where=where, remedy=remedy) from error
        fields |= compiled[name].fields
    return Templates(compiled, frozenset(fields))


def hash_of_files(template: str | Mapping[str, str] | None) -> dict[str, str]:
    """The SHA-256 of each file that holds a template, by the column that it makes; what such a row is depends on it."""
    sources = {} if template is None else {"text": template} if isinstance(template, str) else template
    return {name: sha256_of(Path(source)) for name, source in sources.items() if is_template_file(source)}


def _text_of(source: str, where: str) -> str:
    """A template, or what its file says. Raises: RecipeError, if that cannot be read."""
    if not is_template_file(source):
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecipeError(
            f"{where}: the file {source} cannot be read: {what}", where=where, remedy=FILE_REMEDY
        ) from error

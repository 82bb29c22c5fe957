"""Which form the rows of a file have, told by their columns: one, or an error with the candidates.

What the owner names decides first: a form that lacks a column of `data.columns` or `data.template` is none, and one
whose columns they name in full is it. Then the rows: those looked at have to fit one form alone. A row that fits no
form is no obstacle here, and a fault later. Nothing is guessed by counting: two forms of which one holds nine rows of
ten are two candidates.
"""

from collections.abc import Collection, Sequence

from mlxtune.data.forms.columns import IN_TURNS, MISSING, Columns
from mlxtune.data.forms.table import NEARER, TABLE
from mlxtune.data.forms.tools import OLDER_TOOLS
from mlxtune.data.read import Record
from mlxtune.errors import DataError, RecipeError
from mlxtune.recipe.choices import FORMS, Form

NAMED = 20
"""How many keys a message names."""
LONGEST = 40
"""Characters of a key that are told."""


def detect_form(records: Sequence[Record], columns: Columns, made: Collection[str] = ()) -> tuple[Form, str]:
    """The form of ``records``, at least one, and why it is that.

    Args:
        made: the columns that `data.template` makes.

    Raises: DataError, if no row fits a form, or the rows fit more than one, with the candidates and the keys.
    """
    given = columns.names | set(made)
    forms = forms_with(given)
    complete: list[Form] = [form for form in forms if given >= set(TABLE[form].needs)]
    if len(complete) == 1:
        return complete[0], f"{complete[0]}: the recipe names {_keys(complete[0], columns, made)}"
    first: dict[Form, Record] = {}
    counts: dict[Form, int] = {}
    rows_of: dict[Form, set[int]] = {}
    for i, record in enumerate(records):
        for form in forms:
            if all(name in made or _has(record, columns, name) for name in TABLE[form].needs):
                first.setdefault(form, record)
                counts[form] = counts.get(form, 0) + 1
                rows_of.setdefault(form, set()).add(i)
    passed_over = []
    for nearer, wider in NEARER:
        if wider in rows_of and rows_of[wider] <= rows_of.get(nearer, set()):
            passed_over.append(wider)
            del counts[wider]
    if len(counts) == 1:
        form = next(iter(counts))
        seen = f"{counts[form]} of the first {len(records)} rows" if len(records) > 1 else "the row"
        verb = "have" if counts[form] > 1 else "has"
        but = f" (data.format: {passed_over[0]} would learn less of them)" if passed_over else ""
        return form, f"{form}: {seen} {verb} {_keys(form, columns, made)}{but}"
    path = records[0].path
    if counts:
        told: list[Form] = [form for form in first if form in counts]
        candidates = ", ".join(
            f"{form} ({counts[form]} row{'s' * (counts[form] != 1)}, first in line {first[form].line})" for form in told
        )
        remedy = f"set data.format to {' or '.join(told)}, and keep one form a file"
        raise DataError(f"the rows fit more than one form: {candidates}", where=path, remedy=remedy)
    found = _names(set().union(*(record.fields for record in records))) or "none"
    wanted = "; ".join(f"{form}: {', '.join(TABLE[form].needs)}" for form in forms)
    raise DataError(
        f"the rows fit no known form; keys found: {found}",
        where=path,
        remedy=f"say in data.columns which key is which, or name the keys so: {wanted}",
    )


def name_unused(records: Sequence[Record], form: Form, columns: Columns, made: Collection[str] = ()) -> str:
    """The columns of ``records`` that hold something and that ``form`` does not read: ``; not used: category``.

    Nothing, where it reads them all. A row's column that `data.template` makes anew is read only by the template.
    """
    names = {name for name in TABLE[form].names if name not in IN_TURNS and name not in made}
    read = set(columns.used) | {name for name in names if name not in columns.paths}
    if "tools" in names:
        read.add(OLDER_TOOLS)
    held = {key for record in records for key, value in record.fields.items() if value not in (None, "", [], {})}
    return f"; not used: {_names(held - read)}" if held - read else ""


def forms_with(given: Collection[str]) -> list[Form]:
    """The forms that have all columns of ``given``. Raises: RecipeError, if none has."""
    forms: list[Form] = [form for form in FORMS if TABLE[form].names >= set(given)]
    if not forms:
        raise RecipeError(
            f"no form of rows has all of the columns that the recipe names: {', '.join(sorted(given))}",
            where="data.columns",
            remedy="forms: " + "; ".join(f"{form}: {', '.join(row_form.needs)}" for form, row_form in TABLE.items()),
        )
    return forms


def check_form(form: Form, columns: Columns, made: Collection[str]) -> None:
    """Raises: RecipeError, if the recipe names columns that a chosen form does not have."""
    unused = sorted((columns.names | set(made)) - TABLE[form].names)
    if unused:
        row_form = TABLE[form]
        raise RecipeError(
            f"rows of the form {form} have no column {' or '.join(unused)}",
            where="data.format",
            remedy=f"columns of {form}: {', '.join((*row_form.needs, *row_form.may_have))}",
        )


def _has(record: Record, columns: Columns, name: str) -> bool:
    value = columns.value(record.fields, name)
    return value is not MISSING and value is not None


def _keys(form: Form, columns: Columns, made: Collection[str]) -> str:
    """The columns that a form needs, as the owner knows them."""
    needs = TABLE[form].needs
    return " and ".join(f"'{name}' (data.template)" if name in made else columns.told(name) for name in needs)


def _names(keys: Collection[str]) -> str:
    """Keys of rows for a message: the first of them, each cut where it is long."""
    names = [key if len(key) <= LONGEST else f"{key[:LONGEST]}…" for key in sorted(keys)[:NAMED]]
    more = [f"and {len(keys) - NAMED} more"] if len(keys) > NAMED else []
    return ", ".join([*names, *more])

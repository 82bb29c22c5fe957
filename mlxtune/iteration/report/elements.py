"""The few things that a report is made of: sections, tables, facts, notes, folded parts, commands, users' texts.

Knows HTML and the style sheet's classes; nothing of runs.
"""

import re
from collections.abc import Iterable, Sequence

from mlxtune.page import Html, join, plain, tag, visible

LONGEST_TEXT = 4000
"""Characters of a user's text in a page; of a longer one, how many are left out is said."""


def section(name: str, title: str, *inside: str) -> Html:
    """A part of the page with its heading; ``name`` is its id."""
    return tag("section", tag("h2", title, id=f"{name}-heading"), *inside, id=name, aria_labelledby=f"{name}-heading")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, words: Iterable[int] = ()) -> Html:
    """A table that scrolls in its own box where it is wider than the page.

    Args:
        rows: their cells; the first heads the row.
        label: what the table is of.
        words: numbers of columns, besides the first, that hold words; the others hold figures.
    """
    of_words = {0, *words}

    def kind(column: int) -> str | None:
        return "w" if column in of_words else "n"

    head = tag("tr", *(tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(heads)))
    body = [
        tag(
            "tr",
            tag("th", breakable(first), scope="row"),
            *(tag("td", cell, class_=kind(i)) for i, cell in enumerate(rest, 1)),
        )
        for first, *rest in rows
    ]
    inside = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", inside, class_="scroll", tabindex=0, role="region", aria_label=label)


def breakable(name: str) -> Html:
    """A name that a narrow column breaks after its signs, and not within a word."""
    return name if isinstance(name, Html) else Html(re.sub(r"(?<=[._:/])(?=\w)", "<wbr>", plain(name)))


def facts(named: Iterable[tuple[str, str]]) -> Html:
    """Facts by name."""
    return tag("dl", *(join([tag("dt", name), tag("dd", fact)]) for name, fact in named))


def folded(summary: str, *inside: str, shown: bool = False) -> Html:
    """What is there for those who ask; printed all the same."""
    return tag("details", tag("summary", summary), *inside, open=shown)


def note(*inside: str) -> Html:
    return tag("p", *inside, class_="note")


def quiet(*inside: str) -> Html:
    return tag("p", *inside, class_="quiet")


def code(text: str) -> Html:
    return tag("code", text)


def block(text: str) -> Html:
    """Lines as they stand: a file, commands."""
    return tag("pre", visible_part(text), class_="scroll", tabindex=0)


def users_text(*pieces: str) -> Html:
    """A text of the data or of a model, in whichever direction it is read."""
    return tag("div", *pieces, class_="text", dir="auto")


def visible_part(text: str, longest: int = LONGEST_TEXT) -> Html:
    """`visible`, of a text that may be long."""
    shown = visible(text[:longest])
    left = len(text) - longest
    return join([shown, tag("i", f" {left:,} more characters")]) if left > 0 else shown


def sentences(listed: Iterable[str], *, class_: str | None = None) -> Html:
    return tag("ul", *(tag("li", plain(one)) for one in listed), class_=class_)

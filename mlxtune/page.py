"""A page of HTML in one file that asks for nothing: no network, no other file, and it reads without scripts.

A plain string is text, whoever wrote it: it is escaped where it goes into the page, and characters that cannot be seen
are spelled out. Only `Html` is markup, and `tag` makes it. The page's own policy lets nothing run or style it but what
its maker wrote, known by its hash; that rules out style attributes, and colours are classes. Knows nothing of what a
page says. The price is that pages are built by functions, and do not look like the page that they make.
"""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from pathlib import Path

from mlxtune.printable import printable

VOID = frozenset({"br", "hr", "meta", "wbr"})
COLOURS = Path(__file__).with_name("colours.css")
"""Names for the colours of all pages, by light and dark."""
_STYLE = Path(__file__).with_suffix(".css")


class Html(str):
    """Markup. Any other string is text, and is escaped where it goes into markup."""

    __slots__ = ()


def plain(text: str) -> Html:
    """Text on one line; what cannot be seen is spelled out, line ends too."""
    return text if isinstance(text, Html) else Html(escape(printable(text)))


def visible(text: str) -> Html:
    """Text on its lines: line ends and tabs get a sign, what else cannot be seen is spelled out, the character in
    ``data-u``. For elements whose style keeps white space.
    """
    return Html(escape(text) if text.isprintable() else "".join(map(_character, text)))


def _character(character: str) -> str:
    if character == "\n":
        return '<em class="nl">\n</em>'
    if character == "\t":
        return '<em class="tab">\t</em>'
    if character.isprintable():
        return escape(character)
    return f'<em class="u" data-u="{ord(character):x}">{escape(printable(character))}</em>'


def tag(name: str, *inside: str, **attributes: str | float | bool | None) -> Html:
    """One element.

    Args:
        inside: what stands in it: `Html` as it is, any other string as `plain` text.
        attributes: by name; ``class_`` is ``class``, other underscores are dashes. True is one without a value; None
            and False are left out.
    """
    named = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{named}>")
    return Html(f"<{name}{named}>{join(inside)}</{name}>")


def _attribute(key: str, value: str | float | bool) -> str:
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escape(printable(str(value)))}"'


def join(parts: Iterable[str], between: str = "") -> Html:
    """Pieces one after another; those that are no `Html` are `plain` text, and so is what stands between them."""
    return Html(plain(between).join(plain(part) for part in parts))


def document(*, title: str, style: str, body: Html, script: str = "", body_class: str = "") -> str:
    """The whole page.

    Args:
        style: the page's own, after what every page has.
        script: what alone may run in it; without it nothing may.
    """
    style = COLOURS.read_text("utf-8") + _STYLE.read_text("utf-8") + style
    scripts = f"'{_hash(script)}'" if script else "'none'"
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src {scripts}; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{plain(title)}</title>
<style>{style}</style>
</head>
<body class="{body_class}">
{body}
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

"""matplotlib's SVG as a part of a page: small, in the page's colours, without an id that another chart may have.

matplotlib writes a document of its own, with styles in attributes, which the page's policy forbids, and fixed colours,
which dark mode cannot change. Here styles become attributes, and each colour of `COLOURS` a class that the page's
style sheet colours. Knows the SVG that matplotlib writes, and no other: the price of not parsing it. A chart holds no
text of a user's.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from mlxtune.page import Html, tag

COLOURS: Mapping[str, str] = MappingProxyType({"accent": "#000001", "quiet": "#000002", "rule": "#000003"})
"""What to give matplotlib for each of the page's colours; they stand for it, and are never seen."""

_ROLES = {colour: role for role, colour in COLOURS.items()}
_DROPPED = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>", re.DOTALL)
_STYLE = re.compile(r' style="([^"]*)"')
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')
_PLACES = re.compile(r' (d|x|y|points|transform|x1|x2|y1|y2|width|height|r)="([^"]*)"')
_NUMBER = re.compile(r"-?\d+\.\d+")
_FONTS = ("font", "font-family", "font-size", "font-style", "font-weight", "font-stretch")
"""The page's own are used."""


def inline_svg(document: str, *, name: str, label: str) -> Html:
    """The ``svg`` element.

    Args:
        document: what matplotlib wrote, with ``svg.fonttype`` none.
        name: of the chart, in the page only once: it begins every id.
        label: what there is to see, for those who cannot.
    """
    view = re.search(r'viewBox="([^"]*)"', document)
    start, end = document.index(">", document.index("<svg")) + 1, document.rindex("</svg>")
    if view is None:
        raise ValueError("no viewBox: this is not matplotlib's SVG")
    body = _DROPPED.sub("", _DROPPED.sub("", document[start:end]))  # twice: defs are empty once their style has gone
    body = _STYLE.sub(lambda found: _attributes(found[1]), body)
    referred = {target for _, target in _REFERENCE.findall(body)}
    body = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in referred else "", body)
    body = _REFERENCE.sub(lambda found: f"{found[1]}{name}-{found[2]}", body).replace("xlink:href", "href")
    body = _PLACES.sub(lambda found: f' {found[1]}="{_NUMBER.sub(_shorter, found[2])}"', body)
    body = re.sub(r"\s+", " ", re.sub(r'> +<|>\s+<|<g/>| transform="rotate\(-?0 [^"]*"', _only_signs, body)).strip()
    return tag("svg", Html(body), class_="chart", viewBox=view[1], role="img", aria_label=label)


def _attributes(style: str) -> str:
    """What a style says, as attributes; its colours as classes."""
    pairs = [pair.partition(":")[::2] for pair in style.split(";") if pair.strip()]
    said = {key.strip(): value.strip() for key, value in pairs}
    classes = [f"{key[0]}-{role}" for key in ("fill", "stroke") if (role := _ROLES.get(said.get(key, "")))]
    kept = {key: value for key, value in said.items() if key not in _FONTS and value not in _ROLES}
    named = "".join(f' {key}="{value}"' for key, value in kept.items())
    return named + (f' class="{" ".join(classes)}"' if classes else "")


def _only_signs(found: re.Match[str]) -> str:
    """Of what says nothing, what has to stay: the signs around white space."""
    return "><" if found[0].startswith(">") else ""


def _shorter(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")

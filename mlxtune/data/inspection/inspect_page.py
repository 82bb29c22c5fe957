"""Inspected rows as one HTML page that needs nothing else: no network, no other file, and it reads without scripts.

The text of the rows is a stranger's: it stands in the page as text alone, characters that cannot be seen are spelled
out, and the page's own policy lets nothing run but the one script that is known by its hash. Every token is an element
that knows its position, id and weight. The price is some fifty bytes a token, so whoever calls bounds the tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from mlxtune.data.faults import Fault
from mlxtune.data.inspect import TIMES, Inspection, Sharing, Side, Token
from mlxtune.page import Html, document, plain, visible

PAGE_TOKENS = 200_000
"""Tokens of all rows of a page together, at most."""
ROW_TOKENS = 20_000
"""Of one row: browsers take seconds to lay more out."""
_PARTS = Path(__file__).with_name("page")


def make_page(
    rows: Sequence[tuple[str, Inspection | Fault]],
    *,
    title: str,
    facts: Mapping[str, str],
    boundaries: bool = False,
    ids: bool = False,
) -> str:
    """The page.

    Args:
        rows: each with its name, such as ``row 7``; a row that cannot be trained on comes as its fault.
        title: what the rows are of.
        facts: what holds for all rows, by name.
        boundaries, ids: what is shown from the start; the page has a switch for each.
    """
    style, script = ((_PARTS / name).read_text("utf-8") for name in ("style.css", "script.js"))
    listed = "".join(f"<dt>{plain(name)}</dt><dd>{plain(fact)}</dd>" for name, fact in facts.items())
    shown = {"bounds": boundaries, "ids": ids}
    body = " ".join(name for name, is_shown in shown.items() if is_shown)
    checked = {name: " checked" if is_shown else "" for name, is_shown in shown.items()}
    options = "".join(f'<option value="{i}">{plain(name)}</option>' for i, (name, _) in enumerate(rows))
    sections = "\n".join(_section(i, name, row) for i, (name, row) in enumerate(rows))
    page = f"""<header>
<h1>{plain(title)}</h1>
<dl>{listed}</dl>
{_LEGEND}
</header>
<nav aria-label="Rows and what is shown" hidden>
<span class="rows"><label for="row">Show</label> <select id="row">{options}</select>
<button type="button" id="previous">Previous</button><button type="button" id="next">Next</button></span>
<label><input type="checkbox" id="bounds"{checked["bounds"]}> token boundaries</label>
<label><input type="checkbox" id="ids"{checked["ids"]}> token ids</label>
</nav>
<main>
{sections}
</main>
<footer><p id="help">Point at a token, or move into a row's text and press the left and right arrow keys, for its
position, id and weight. Private data: this page holds the words of the rows.</p></footer>
<div id="tip" aria-hidden="true" hidden></div>
<div id="said" class="sr" role="status" aria-live="polite"></div>
"""
    return document(title=title, style=style, body=Html(page), script=script, body_class=body)


_LEGEND = """<ul class="legend" aria-label="Legend">
<li><span class="sample t">trained on</span></li>
<li><span class="sample">read, not trained on</span></li>
<li><span class="sample p">beginning shared with other rows, read once</span></li>
<li><span class="sample s">special token</span></li>
<li><span class="sample x">cut, never read</span></li>
<li><em class="u sample">\\u200b</em> cannot be seen otherwise</li>
</ul>"""


def _section(number: int, name: str, row: Inspection | Fault) -> str:
    heading = f'<h2 id="row-{number}" tabindex="-1">{plain(name)}, <span class="facts">{plain(row.where)}</span></h2>'
    if isinstance(row, Fault):
        inside = f'<p class="note">This row cannot be trained on: {plain(row.message)}</p>'
    else:
        inside = "\n".join(_side(side, row.sharing) for side in row.sides)
    return f'<section class="row" aria-labelledby="row-{number}">\n{heading}\n{inside}\n</section>'


def _side(side: Side, sharing: Sharing) -> str:
    heading = f"<h3>{escape(side.name)}</h3>\n" if side.name else ""
    note = f'<p class="note">{plain(side.note)}</p>\n' if side.note else ""
    label = f"{side.name} row as tokens".strip()
    text = "".join(_pieces(side))
    facts = f"{share_told(side)}; {sharing_told(sharing)}"
    return (
        f'{heading}<p class="facts">{plain(facts)}</p>\n{note}'
        f'<div class="text" dir="auto" tabindex="0" role="group" aria-label="{plain(label)}" '
        f'aria-describedby="help">{text}</div>'
    )


def share_told(side: Side) -> str:
    """How many tokens there are, and how many of them are learned, in a sentence."""
    share = side.target_tokens / side.kept_tokens if side.kept_tokens else 0
    cut = f" ({side.cut_tokens:,} more are cut)" if side.cut_tokens else ""
    return f"{side.target_tokens:,} of {side.kept_tokens:,} tokens are trained on ({share:.0%}){cut}"


def sharing_told(sharing: Sharing) -> str:
    """What is read once for several rows, in a sentence."""
    if not sharing.known:
        return "it shares nothing with other rows"
    others = sharing.rows - 1
    with_whom = f"the {'other row' if others == 1 else f'{others:,} other rows'} of {sharing.known}"
    if sharing.known.startswith("chosen"):
        with_whom = "the other answer"
    if not sharing.tokens:
        return f"no beginning is shared with {with_whom}" if others else f"it is alone in {sharing.known}"
    return f"the first {sharing.tokens:,} tokens are shared with {with_whom}, and read once"


def _pieces(side: Side) -> Iterator[str]:
    """A side's tokens and what stands between them."""
    lines = dict[int, list[str]]()
    for position, line in side.lines:
        lines.setdefault(position, []).append(line)
    omitted, count = side.omitted

    def group(token: Token) -> tuple[bool, float, bool]:
        return token.is_target, token.weight, count > 0 and token.position >= omitted

    told_omitted = count == 0
    for (is_target, weight, after), run in groupby(side.tokens, key=group):
        if after and not told_omitted:
            told_omitted = True
            yield f'<span class="omitted">{count:,} tokens are not shown</span>'
        if is_target:
            told = f", weight {weight:g}" if weight != 1 else ""
            shown = f'<span class="w" aria-hidden="true">{TIMES}{weight:g}</span>' if weight != 1 else ""
            yield f'<mark><span class="sr">[trained on{told}: </span>{shown}'
        for token in run:
            for line in lines.get(token.position, ()):
                yield f'<span class="line">{plain(line)}</span>'
            yield _token(token)
        if is_target:
            yield '<span class="sr">]</span></mark>'


def _token(token: Token) -> str:
    marks = [("t", token.is_target), ("s", token.is_special), ("p", token.is_shared), ("x", token.is_cut)]
    marks.append(("e", token.text.endswith("\n")))  # its id is drawn before it: after it would be on the next line
    classes = " ".join(["k", *(name for name, holds in marks if holds)])
    weight = f' data-w="{token.weight:g}"' if token.is_target and token.weight != 1 else ""
    return f'<span class="{classes}" data-p="{token.position}" data-i="{token.id}"{weight}>{visible(token.text)}</span>'

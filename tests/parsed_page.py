"""A page as a browser would take it: its elements, its words, and that every element is closed where it should be."""

import re
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "hr", "wbr"}

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)' autofocus='",
    "<!-- ]]> --> &amp; &lt;b&gt; &#60;",
    "user \u202etxt.exe \u2066\u200b\ufeff",
    "\x1b[31m\x00\x07\x7f\x9b",
    "</span></div></section></main></body></html>",
    "<svg><text><tspan onload=alert(1)>$x^2$ \\frac{a}{b}</text></svg>",
    "javascript:alert(1) {{7*7}} ${7*7} {0} %s",
    "tab\t, old Mac\r, new\n, \u2028 and \u2029",
    "</style><style>*{display:none}</style>",
    "\ud800 alone",
)
"""What may stand in a row, a path or a name, and must come out as these words and nothing else."""


class Page(HTMLParser):
    """``tags`` are all elements with their attributes, in order; ``visible`` is the text of each outside scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.visible, self.styles, self.scripts, self.open = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        opened = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        {"style": self.styles, "script": self.scripts}.get(inside, self.visible).append(data)

    @property
    def text(self):
        return "".join(self.visible)

    @property
    def names(self):
        """Of all elements."""
        return {tag for tag, _ in self.tags}

    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def missing_colours(style: str) -> list[str]:
    """The names that a page's style asks for and gives no value, and the colours of light without one of dark."""
    light, dark, *_ = (
        set(re.findall(r"(--[\w-]+): #", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    asked = set(re.findall(r"var\((--[\w-]+)", style))
    return sorted((asked - set(re.findall(r"(--[\w-]+):", style))) | (light ^ dark))

"""E-mail addresses, also those that are written so that programs miss them: ``name (at) host dot org``.

The at sign, or what stands for it, is looked for first; then what is before and after it. Words alone, ``at`` and
``dot``, need each other and a common top-level domain: "work at example.com" is no address.
"""

import re
from collections.abc import Iterator

from mlxtune.data.detectors.match import Match

AT = re.compile(
    r"(?P<sign>\s?@\s?)|(?P<word>\sat\s)|(?P<bracketed>\s?[\[({<]\s?(?:at|@)\s?[\])}>]\s?|\s?&#(?:64|x40);\s?)",
    re.IGNORECASE,
)
LOCAL = re.compile(
    r"(?<![\w.%+/@-])(?<!\w')[\w%+](?:[\w.%+'-]{0,62}[\w%+-])?(?:(?:\sdot\s|\s?[\[({]\s?(?:dot|\.)\s?[\])}]\s?)\w{1,30}){0,3}$",
    re.IGNORECASE,
)
DOT = r"(?:\.|\s?[\[({<]\s?(?:dot|\.|punkt)\s?[\])}>]\s?|\sdot\s|\s\.\s)"
DOMAIN = re.compile(
    # Nothing goes on with it: no more of the name, and no path, as after "git@host.org:".
    rf"(?:[^\W_][\w-]{{0,62}}{DOT}){{1,6}}(?P<top>[^\W\d_]{{2,24}})(?![\w@-]|\.\w)(?!:[\w.~-]*/)",
    re.IGNORECASE,
)
HIDDEN_DOT = re.compile(r"\sdot\s|[\[({<]\s?(?:dot|\.|punkt)\s?[\])}>]", re.IGNORECASE)
COMMON_TOPS = frozenset(
    (
        *(
            "com",
            "org",
            "net",
            "edu",
            "gov",
            "info",
            "io",
            "co",
            "me",
            "app",
            "dev",
            "ai",
            "eu",
            "uk",
            "de",
            "fr",
            "es",
        ),
        *("it", "nl", "be", "ch", "at", "se", "no", "dk", "fi", "pl", "pt", "ie", "us", "ca", "au", "nz", "in", "br"),
        *("mx", "za", "jp", "kr", "cn", "tr", "cz", "ro", "gr", "hu"),
    )
)
HINTS = ("dot", "at)", "at]", "at}", "at>", "&#")
"""One of these is in every hidden address."""
FILE_ENDINGS = frozenset(
    (
        *("png", "jpg", "jpeg", "gif", "svg", "webp", "bmp", "pdf", "html", "htm", "css", "js", "ts", "jsx", "tsx"),
        *("py", "json", "yaml", "yml", "xml", "csv", "txt"),
    )
)
"""What follows a dot in ``logo@2x.png``."""


def find_emails(text: str, key: str) -> Iterator[Match]:  # noqa: ARG001 - a detector's interface
    """Addresses in ``text``, plain and hidden ones."""
    if "@" not in text and not any(hint in text.lower() for hint in HINTS):
        return
    for at in AT.finditer(text):
        domain = DOMAIN.match(text, at.end())
        if domain is None:
            continue
        local = LOCAL.search(text, max(0, at.start() - 100), at.start())
        top = domain["top"].lower()
        if local is None or top in FILE_ENDINGS:
            continue
        if at["word"] and not HIDDEN_DOT.search(domain[0]):
            continue
        if at[0] != "@" and not at["bracketed"] and top not in COMMON_TOPS:  # "update @ self.weights" is arithmetic
            continue
        name, host = _plain(local[0]), _plain(domain[0])
        yield Match(
            "email", "e-mail address", local.start(), domain.end(), f"{name}@{host}", f"{name[0]}…@{host[0]}….{top}"
        )


def _plain(part: str) -> str:
    return re.sub(r"\s", "", HIDDEN_DOT.sub(".", part)).lower()

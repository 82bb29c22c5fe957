"""Text of others on a terminal: what it would obey or hide is spelled out."""


def printable(text: str, *, keep: str = "") -> str:
    r"""``text`` with control characters, terminal escapes and invisible characters as ``\x1b``, ``\u200b``.

    Args:
        keep: characters to leave as they are, such as line ends; without them the result is one line.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)

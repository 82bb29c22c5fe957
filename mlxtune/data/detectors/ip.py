"""IP addresses of both versions, also with their dots in brackets; not versions and sections, which look alike.

Loopback, unspecified and multicast addresses and masks are everybody's and are left out. Four numbers of one digit each
count only where a word says what they are.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from mlxtune.data.detectors.match import Match, is_called, words

OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
DOT = r"(?:\.|\s?[\[({](?:\.|dot)[\])}]\s?|\sdot\s)"
V4 = re.compile(rf"(?<![\w.-])(?<!\d,){OCTET}(?:{DOT}{OCTET}){{3}}(?!\w|[.-]\w|\.\d)", re.IGNORECASE)
V6 = re.compile(
    r"(?<![\w:.])(?=[0-9a-f:]*\d)(?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])",
    re.IGNORECASE,
)
IS_VERSION = re.compile(
    r"(?:\bv|\brv:|\w/|\bversion|\bver\.?|§|\bsection|\bchapter|\bclause|[<>=!~]=)\s?$", re.IGNORECASE
)
NAMED = words(
    *("ip$", "ips$", "ipv", "ip_", "ip-ad", "address", "host", "server", "addr", "ping", "dns$", "ssh$"),
    *("client", "remote", "login", "logged", "gateway", "subnet", "from$", "adresse"),
)
NUMBERED = words(
    *("version", "ver$", "v$", "release", "firmware", "build", "section", "sections$", "chapter", "clause"),
    *("driver", "oid$", "update", "upgrade", "kapitel", "abschnitt"),
)
SINGLE_DIGITS = re.compile(r"\d(?:\.\d){3}")


def find_ips(text: str, key: str) -> Iterator[Match]:
    """Addresses of single machines in ``text``."""
    if text.count(".") >= 3 or "dot" in text:  # noqa: PLR2004 - an address has three
        for match in V4.finditer(text):
            value = re.sub(DOT, ".", match[0], flags=re.IGNORECASE)
            if not _is_version(value, text, match, key):
                yield from _match(value, match)
    if ":" in text:
        for match in V6.finditer(text):
            # "a::b" is a name in some languages, "12:30:" a time
            if len(re.findall(r"[0-9a-f]+", match[0], re.IGNORECASE)) > 2:  # noqa: PLR2004
                yield from _match(match[0], match)


def _is_version(value: str, text: str, match: re.Match[str], key: str) -> bool:
    start, end = match.span()
    if IS_VERSION.search(text, max(0, start - 10), start):
        return True
    called = is_called(NAMED, text, start, end, key)
    if SINGLE_DIGITS.fullmatch(value):
        return not called
    return not called and bool(NUMBERED.search(text, max(0, start - 16), start))


def _match(value: str, match: re.Match[str]) -> Iterator[Match]:
    try:
        address: IPv4Address | IPv6Address = ip_address(value)
    except ValueError:
        return
    is_mask = value.startswith("255.")
    if address.is_loopback or address.is_unspecified or address.is_multicast or is_mask:
        return
    first = re.split(r"[.:]", value, maxsplit=1)[0]
    yield Match("ip", f"IPv{address.version} address", *match.span(), str(address), f"{first}{value[len(first)]}…")

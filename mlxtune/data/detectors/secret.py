"""Passwords, keys and tokens: by the forms that services give theirs, by the word before them, and by their look.

The patterns are our own, and not those of detect-secrets: that has had no release since May 2024 and lacks today's
formats (Hugging Face, fine-grained GitHub, project keys of OpenAI, Anthropic); it keeps its settings in the process,
takes every git hash in quotes for a key, and holds code that would send what it found to the services. A string of 32
characters or more with letters of both cases, digits and no order is a secret too; hashes in hexadecimal and UUIDs are
not, unless a word calls them one.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator

from mlxtune.data.detectors.match import Match

KEYS = (
    (
        "private key",
        (
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[\s\S]{0,20000}?-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s\\]*)"
        ),
    ),
    ("AWS access key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    ("GitHub token", r"gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,251}"),
    ("GitLab token", r"gl(?:pat|dt|rt|ptt|ft|cbt|imt|agent|soat)-[\w-]{20,64}"),
    ("Hugging Face token", r"hf_[A-Za-z0-9]{30,44}"),
    ("OpenAI or Anthropic key", r"sk-(?:proj-|ant-|svcacct-|admin-|or-v1-)?[A-Za-z0-9][\w-]{18,200}\w"),
    ("Slack token", r"xox[abeoprs]-[\w-]{10,200}|xapp-\d-[\w-]{10,200}"),
    (
        "Slack or Discord webhook",
        (
            r"https://hooks\.slack\.com/(?:services|workflows)/[\w/+]{20,100}"
            r"|https://(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks/\d+/[\w-]{30,100}"
        ),
    ),
    ("Discord token", r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}"),
    ("Google key", r"AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{20,250}"),
    ("Stripe key", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9+/=]{24,64}"),
    ("SendGrid key", r"SG\.[\w-]{20,24}\.[\w-]{39,50}"),
    ("Twilio key", r"(?:AC|SK)[0-9a-f]{32}"),
    ("Mailgun or Mailchimp key", r"key-[0-9a-f]{32}|[0-9a-f]{32}-us\d{1,2}"),
    ("npm token", r"npm_[A-Za-z0-9]{36}"),
    ("PyPI token", r"pypi-[\w-]{50,300}"),
    ("DigitalOcean token", r"do[opr]_v1_[0-9a-f]{64}"),
    ("Shopify token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("Telegram token", r"\d{8,10}:AA[\w-]{33}"),
    ("JSON web token", r"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{10,2000}"),
    ("age key", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
)
"""What each is called, and its form."""
FORM = re.compile("|".join(rf"(?P<k{number}>(?<![\w-]){form}(?![\w]))" for number, (_, form) in enumerate(KEYS)))
HINT = re.compile(
    r"-----BEGIN|(?<![\w-])(?:A(?:KIA|SIA|BIA|CCA)|gh[pousr]_|github_pat_|gl[a-z]{2,5}-|hf_|sk-|xox|xapp-|https://[hdcp]"
    r"|AIza|GOCSPX|ya29|[srw][kh][_s]|SG\.|(?:AC|SK)[0-9a-f]|key-|[0-9a-f]{32}-us|npm_|pypi-|do[opr]_v|shp|\d{8,10}:AA"
    r"|eyJ|AGE-|[MNO][\w-]{23,27}\.)"
)
"""How they begin: looked for first, since most texts have none."""

LOGIN = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,100}:(?P<value>[^\s/@]{3,100})@", re.IGNORECASE)
CALLED_HINT = re.compile(r"pass|pwd|key|secret|token|credential|kennwort|contraseña|pin code", re.IGNORECASE)
CALLED = re.compile(
    r"(?P<name>pass(?:word|wort|phrase|wd|code)|mot de passe|contraseña|kennwort|\bpwd|\bpin\b(?= code)"
    r"|secret[ _-]?(?:access[ _-]?)?key|secret|token|credentials?"
    r"|(?:api|access|auth|account|private|encryption|signing|service|client|license)[ _-]?key)"
    r"(?P<tail>\w{0,20}[\"'`]?\s?(?:is now|is|was|to|=>|:=|==?|:|ist|est|es)\s?)"
    r"(?P<quote>[\"'`]?)(?P<value>[^\s\"'`,;<>]{6,200})",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(
    r"[*x.•_-]+|.*(?:xxxx|\.\.\.).*|none|null|true|false"
    r"|(?:[a-z]+[_-])*(?:your[a-z]*|example|change[_-]?me|placeholder|redacted|dummy|insert)\d*(?:[_-][a-z]*\d*)*"
    r"|\[[^\]]*\].*|\{+[a-z_][\w.()\[\]]*\}*|%\(?\w+\)?[%s]|\$[{(].*|(?-i:\$(?:[A-Z][A-Z0-9_]*|[a-z_]+))"
    r"|(?:os|env|process|config|self|settings|args)\.[\w.()\[\]]*",
    re.IGNORECASE,
)
"""What stands in for a secret: words, a variable, an attribute. One with such a word or a bracket in it does not."""
CALL = re.compile(
    r"(?:[a-z_]+\.)*[a-z_]+(?:"
    r"\((?:[a-z]?[\"'`]|\)|[a-z_][\w.]*(?:[\"'`,(\[=]|\)(?![^\s.,;:)\]}\"'`])))"
    r"|\[(?:[\"'`]|[a-z_]\w*\]))",
    re.IGNORECASE,
)
"""What fetches a secret: get_secret(NAME), os.environ["X"]."""
LOOK = re.compile(r"(?<![\w+/=.:@$#&%~-])(?!sha\d{1,3}-)[A-Za-z0-9+/_-]{32,512}={0,2}(?![\w+/=-])")
PASSWORD_BITS, TOKEN_BITS, LOOK_BITS = 2.0, 3.0, 4.2
"""Of a character, on the average: less is a word, or a pattern."""
SHORTEST_TOKEN = 16
TOKEN = re.compile(r"[\w+/=.:~-]+")
"""Brackets are code's."""
WORD = re.compile(r"[A-Z]?[a-z]{4,}|[A-Z]{5,}")
HEXADECIMAL = re.compile(r"[0-9a-fA-F-]+")
CLASSES = (str.islower, str.isupper, str.isdigit)


def find_secrets(text: str, key: str) -> Iterator[Match]:
    """Keys of known forms in ``text``, what is called a password or key, and what looks like one."""
    for hint in HINT.finditer(text):
        if (match := FORM.match(text, hint.start())) is not None:
            yield _secret(KEYS[int((match.lastgroup or "k0")[1:])][0], match.start(), match.end(), match[0])
    if "://" in text:
        for match in LOGIN.finditer(text):
            if not PLACEHOLDER.fullmatch(match["value"]):
                yield _secret("login in an address", *match.span("value"), match["value"])
    yield from _called(text, key)
    for match in LOOK.finditer(text):
        if is_random(match[0]) and not text.endswith("base64,", 0, match.start()):
            yield _secret("random string", *match.span(), match[0])


def _called(text: str, key: str) -> Iterator[Match]:
    """What a word before it calls a password, key or token; also the word that the whole text stands under."""
    whole = text.strip()
    named = CALLED.fullmatch(f"{key}: {whole}") if key and whole and " " not in whole else None
    start = text.index(whole)
    if named is not None and _is_password(named["name"], named["value"]) and not CALL.match(whole):
        yield _secret("password or key", start, start + len(whole), whole)
    if not CALLED_HINT.search(text):
        return
    for match in CALLED.finditer(text):
        value = match["value"] if match["quote"] else match["value"].rstrip(".!?)")
        start = match.start("value")
        if _is_password(match["name"], value) and not CALL.match(text, start):
            yield _secret("password or key", start, start + len(value), value)


def _is_password(name: str, value: str) -> bool:
    """Whether a value that stands after such a word is one, and no word of the language or stand-in."""
    kinds = sum(any(map(has, value)) for has in CLASSES) + any(not character.isalnum() for character in value)
    if PLACEHOLDER.fullmatch(value) or len(value) < 6 or kinds < 2:  # noqa: PLR2004 - kinds of characters, of four
        return False
    if "pass" in name.lower() or name.lower() in ("pwd", "kennwort", "contraseña", "pin"):
        # "Password: reset-link" is none; "hunter2" and "corr3ct-horse" are
        mixed = any(map(str.isdigit, value)) or (kinds > 2 and not value.replace("-", "").isalpha())  # noqa: PLR2004
        return mixed and entropy(value) >= PASSWORD_BITS
    is_token = len(value) >= SHORTEST_TOKEN and TOKEN.fullmatch(value) is not None and any(map(str.isdigit, value))
    return is_token and entropy(value) >= TOKEN_BITS


def is_random(token: str) -> bool:
    """Whether a long token has letters of both cases and digits, in no order that a name or a path has."""
    plain = token.rstrip("=")
    if HEXADECIMAL.fullmatch(plain) or not all(any(map(has, plain)) for has in CLASSES):
        return False
    # In a random string a run of letters in one case, or of words like This, is short.
    in_words = sum(len(word) for word in WORD.findall(plain))
    marks = sum(plain.count(mark) for mark in "/-_")
    return in_words < len(plain) / 3 and marks <= len(plain) / 8 and entropy(plain) >= LOOK_BITS


def entropy(text: str) -> float:
    """Shannon's, of its characters, in bits a character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _secret(what: str, start: int, end: int, value: str) -> Match:
    return Match("secret", what, start, end, value, f"{end - start} characters")

"""National identity, tax and social security numbers of the regions that are asked for.

`python-stdnum` knows the checks. Some forms say by themselves what they are: letters in certain places, or separators
that only such numbers have. The others are digits that one number in ten or a hundred passes for by chance; they count
where a word before them names them. The price: a bare number that nobody names is not found.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

from mlxtune.data.detectors.match import Detector, Match, is_called, last_digits, words

SOME_DIGITS = re.compile(r"\d(?:\D{0,3}\d){3}")
GAP = r"[ .\-/\u00a0]?"


@dataclass(frozen=True)
class Identity:
    """One kind of number."""

    region: str
    name: str
    pattern: re.Pattern[str]
    module: str | None
    """The one of stdnum that checks it; None where the pattern is all there is."""
    telling: re.Pattern[str] | None
    """What it looks like where no word has to name it."""
    named: re.Pattern[str]


def identity(region: str, name: str, form: str, module: str | None, telling: str | None, named: str) -> Identity:
    """A row of the table.

    Args:
        form: ``9`` is a digit, ``A`` a letter, ``X`` either, and any two may have a separator between them; or a
            pattern, if it begins with ``(``.
        telling: a pattern, or ``*`` for all that ``form`` matches.
        named: stems of words, with bars between them, as `words` takes them.
    """
    marks = {"9": r"\d", "A": "[A-Z]", "X": "[A-Z0-9]"}
    pattern = form if form.startswith("(") else GAP.join(marks[mark] for mark in form)
    bounded = re.compile(rf"(?<![\w+])(?<!\d[.,:/])(?<!\w[-/]){pattern}(?!\w|[-/.]\d|[-/]\w)", re.IGNORECASE)
    shape = pattern if telling == "*" else telling
    return Identity(
        region,
        name,
        bounded,
        module,
        re.compile(shape, re.IGNORECASE) if shape else None,
        words(
            *named.split("|"),
            "ssn",
            "social security",
            "national id",
            "identity",
            "id number$",
            "id card",
            "tax id",
            "tin$",
            "nin$",
        ),
    )


IDENTITIES = (
    identity("US", "social security number", "999999999", "us.ssn", r"\d{3}-\d\d-\d{4}", "ssn|social|soc sec"),
    identity("US", "individual taxpayer number", "999999999", "us.itin", r"\d{3}-\d\d-\d{4}", "itin|taxpayer"),
    identity(
        "GB",
        "national insurance number",
        r"(?:(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D])",
        None,
        "*",
        "insurance",
    ),
    identity("GB", "NHS number", "9999999999", "gb.nhs", None, "nhs|patient|health"),
    identity("GB", "taxpayer reference", "9999999999", "gb.utr", None, "utr|taxpayer|self assessment"),
    identity("DE", "tax identification number", "99999999999", "de.idnr", r"\d\d \d{3} \d{3} \d{3}", "steuer|idnr|tax"),
    identity(
        "FR",
        "social security number",
        "(?:[1-478]" + GAP + GAP.join([r"\d"] * 5 + ["[0-9AB]"] + [r"\d"] * 8) + ")",
        "fr.nir",
        "*",
        "sécu|secu|nir$|insee",
    ),
    identity("FR", "tax number", "9999999999999", "fr.nif", None, "fiscal|impôt|tax"),
    identity("ES", "identity number", "99999999A", "es.dni", "*", "dni|nif"),
    identity("ES", "foreigner's number", "A9999999A", "es.nie", "*", "nie$"),
    identity("IT", "fiscal code", "AAAAAAXXAXXAXXXA", "it.codicefiscale", "*", "codice|fiscale|cf$"),
    identity("NL", "citizen service number", "999999999", "nl.bsn", None, "bsn|burgerservice|sofi"),
    identity(
        "BE",
        "national number",
        "99999999999",
        "be.nn",
        r"\d\d\.\d\d\.\d\d-\d{3}[. ]\d\d",
        "rijksregister|national|nn$|niss|insz",
    ),
    identity("CH", "social security number", "9999999999999", "ch.ssn", r"756\.\d{4}\.\d{4}\.\d\d", "ahv|avs|social"),
    identity("AT", "insurance number", "9999999999", "at.vnr", None, "svnr|sozial|versicherung|insurance"),
    identity(
        "SE",
        "personal number",
        r"(?:(?:\d\d)?\d{6}[-+ ]?\d{4})",
        "se.personnummer",
        r"(?:\d\d)?\d{6}[-+]\d{4}",
        "personnummer|personal",
    ),
    identity("DK", "personal number", r"(?:\d{6}[- ]?\d{4})", "dk.cpr", r"\d{6}-\d{4}", "cpr|personal"),
    identity(
        "NO",
        "birth number",
        r"(?:\d{6} ?\d{5})",
        "no.fodselsnummer",
        r"\d{6} \d{5}",
        "fødsel|fodsel|personnummer|birth number",
    ),
    identity("FI", "personal identity code", r"(?:\d{6}[-+A-FU-Y]\d{3}[0-9A-Y])", "fi.hetu", "*", "hetu|henkilö"),
    identity("PL", "PESEL", "99999999999", "pl.pesel", None, "pesel"),
    identity("PT", "citizen card number", "999999999AA9", "pt.cc", "*", "cidadão|cc$"),
    identity("IE", "PPS number", r"(?:\d{7} ?[A-W][A-IW]?)", "ie.pps", "*", "pps"),
    identity("CZ", "birth number", r"(?:\d{6}/?\d{3,4})", "cz.rc", r"\d{6}/\d{3,4}", "rodné|rodne"),
    identity("RO", "personal code", "9999999999999", "ro.cnp", "*", "cnp"),
    identity("GR", "AMKA", "99999999999", "gr.amka", None, "amka|αμκα"),
    identity("TR", "identity number", "99999999999", "tr.tckimlik", None, "kimlik|tc$"),
    identity("CA", "social insurance number", "999999999", "ca.sin", r"\d{3}-\d{3}-\d{3}", "sin$|social"),
    identity("AU", "tax file number", "999999999", "au.tfn", None, "tfn|tax file"),
    identity("NZ", "tax number", "(?:" + GAP.join([r"\d"] * 8) + r"\d?)", "nz.ird", None, "ird"),
    identity("IN", "Aadhaar number", "999999999999", "in_.aadhaar", r"\d{4} \d{4} \d{4}", "aadha|uidai"),
    identity("IN", "permanent account number", r"(?:[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z])", "in_.pan", "*", "pan$"),
    identity("ZA", "identity number", "9999999999999", "za.idnr", None, "south african id|sa id|id$|idnr"),
    identity("BR", "CPF", "99999999999", "br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d", "cpf"),
    identity("MX", "CURP", r"(?:[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d)", "mx.curp", "*", "curp"),
    identity("CL", "RUT", r"(?:\d{1,2}\.?\d{3}\.?\d{3}-?[\dK])", "cl.rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dK]", "rut$|run$"),
    identity("CN", "resident identity number", "(?:" + r"\d" * 17 + "[0-9X])", "cn.ric", "*", "身份证"),
    identity("KR", "resident registration number", r"(?:\d{6}-?\d{7})", "kr.rrn", r"\d{6}-\d{7}", "rrn|주민"),
    identity("IL", "identity number", "999999999", "il.idnr", None, "teudat|id$|זהות"),
)
"""What is known, region by region."""


def id_detector(regions: Sequence[str]) -> Detector:
    """Finds the numbers of ``regions``; of a region that has none here, nothing."""
    wanted = [one for one in IDENTITIES if one.region in regions]

    def find_ids(text: str, key: str) -> Iterator[Match]:
        if not SOME_DIGITS.search(text):
            return
        for one in wanted:
            for match in one.pattern.finditer(text):
                called = is_called(one.named, text, *match.span(), key)
                tells = one.telling is not None and one.telling.fullmatch(match[0]) is not None
                if (called or (tells and called is None) or (tells and _has_letter(match[0]))) and _passes(
                    one, match[0]
                ):
                    value = re.sub(r"[\W_]", "", match[0]).upper()
                    yield Match("national_id", f"{one.region} {one.name}", *match.span(), value, last_digits(value))

    return find_ids


def _has_letter(number: str) -> bool:
    return any(character.isalpha() for character in number)


def _passes(one: Identity, number: str) -> bool:
    if len(set(re.sub(r"\D", "", number))) == 1:
        return False  # "999999999" passes some checks and is nobody's
    if one.module is None:
        return True
    plain = re.sub(r"[ .\u00a0]", "", number) if one.region not in ("FI", "SE") else number.replace(" ", "")
    checks = import_module(f"stdnum.{one.module}").is_valid
    return bool(checks(number) or checks(plain) or checks(re.sub(r"[\W_]", "", number)))

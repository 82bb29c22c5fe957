"""What detectors find in a text, and what they leave alone; the recall and precision that they have to hold."""

import random
import time
from collections import Counter
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import MAKERS, REGIONS, TERMS, make_items

from mlxtune.data.detectors import KINDS, find_private, make_detectors
from mlxtune.data.detectors.national_id import IDENTITIES
from mlxtune.data.detectors.term import read_terms
from mlxtune.errors import DataError, UsageError

EACH = 60
ALL = make_detectors(regions=sorted({one.region for one in IDENTITIES}), terms=["Ata"])


def found(text: str, *, key: str = "content", regions=REGIONS, terms=TERMS) -> list[tuple[str, str]]:
    matches = find_private(text, key, make_detectors(regions=regions, terms=terms))
    return [(match.kind, text[match.start : match.end]) for match in matches]


@pytest.fixture(scope="module")
def measured() -> dict[str, Counter]:
    """By kind: planted, found of these, and what was found where nothing of the kind is."""
    counts = {kind: Counter() for kind in KINDS}
    detectors = make_detectors(regions=REGIONS, terms=TERMS)
    for item in make_items(seed=20_261_125, each=EACH):
        start = end = -1
        if item.private is not None:
            counts[item.kind]["planted"] += 1
            start = item.text.index(item.private)
            end = start + len(item.private)
        for match in find_private(item.text, "content", detectors):
            if match.kind == item.kind and (match.start, match.end) == (start, end):
                counts[match.kind]["right"] += 1
            else:
                counts[match.kind]["wrong"] += 1
    return counts


def test_planted_items_and_look_alikes_are_of_every_kind_and_many():
    items = make_items(seed=20_261_125, each=EACH)

    assert set(MAKERS) == set(KINDS)
    assert sum(item.private is not None for item in items) == sum(item.private is None for item in items) >= 300


@pytest.mark.parametrize("kind", KINDS)
def test_at_least_95_in_100_are_found_and_9_in_10_findings_are_right(measured, kind):
    right, wrong, planted = (measured[kind][name] for name in ("right", "wrong", "planted"))

    assert planted == EACH
    assert right / planted >= 0.95
    assert right / (right + wrong) >= 0.9


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("name (at) host dot org", "email", "name (at) host dot org"),
        ("mail jane.doe@example.org.", "email", "jane.doe@example.org"),
        ("{'mail': 'jane.doe@example.org'}", "email", "jane.doe@example.org"),
        ("ask pat.o'brien@example.org", "email", "pat.o'brien@example.org"),
        ("mailto:jane@müller.de", "email", "jane@müller.de"),
        ("Tel.: 2 0 2 5 5 5 0 1 4 3", "phone", "2 0 2 5 5 5 0 1 4 3"),
        ("call (202) 555-0143 24/7", "phone", "(202) 555-0143"),
        ("+44 (0)20 7946 0958", "phone", "+44 (0)20 7946 0958"),
        ("488.566.9688x6747 is hers", "phone", "488.566.9688"),
        ("001-767-669-8927", "phone", "001-767-669-8927"),
        ("(0115) 4960115", "phone", "(0115) 4960115"),
        ("+33 (0)1 49 28 43 55", "phone", "+33 (0)1 49 28 43 55"),
        ("ring 07700 900123", "phone", "07700 900123"),  # one of those that are kept for films
        ("4111.1111.1111.1111", "card", "4111.1111.1111.1111"),
        ("4111 1111 1111 1111 123", "card", "4111 1111 1111 1111"),
        ("Shane Costa: 4222222222222", "card", "4222222222222"),
        ("pay to GB29 NWBK 6016 1331 9268 19 and wait", "iban", "GB29 NWBK 6016 1331 9268 19"),
        ("SSN 536-90-4399", "national_id", "536-90-4399"),
        ("AB 12 34 56 C", "national_id", "AB 12 34 56 C"),
        ("2 95 10 99 126 111 93", "national_id", "2 95 10 99 126 111 93"),
        ("from 203[.]0[.]113[.]7 at night", "ip", "203[.]0[.]113[.]7"),
        ("2001:db8::ff00:42:8329", "ip", "2001:db8::ff00:42:8329"),
        ("06 12 34 56 78 / 06 12 34 56 7", "phone", "06 12 34 56 78"),
        ("12 93 55 18 47 22 85 33 61 06 12 34 56 78", "phone", "06 12 34 56 78"),  # at the end of a table
        ("password: hunter2", "secret", "hunter2"),
        ("password: kJ8(mP2q!x", "secret", "kJ8(mP2q!x"),
        ("password: Tr0ub4dor(3", "secret", "Tr0ub4dor(3"),
        ("password: Insert99Coin!", "secret", "Insert99Coin"),
        ('password: "$ecret99!"', "secret", "$ecret99!"),
        ('password: "[kJ8mP2q!x"', "secret", "[kJ8mP2q!x"),
        ("ada\u00a0 LOVELACE's", "term", "ada\u00a0 LOVELACE"),
    ],
)
def test_one_of_a_kind_is_found_whole(text, kind, value):
    assert found(text, terms=["Ada Lovelace"]) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "I work at example.com",
        "git@github.com:org/repo.git",
        "order 2025550143",
        "version 1.2.3.4",
        "std::vector<int> a::b",
        "2024-11-05 10:30:00",
        "1 234 567,00 EUR",
        "ISBN 978-3-16-148410-0",
        "the password is required",
        "commit 4f0b5d6b2c1a9e8d7f6a5b4c3d2e1f0a9b8c7d6e",
        "1.3.6.1.4.1.311.21",
        "requires numpy>=1.2.3.4",
        "Mozilla/5.0 (X11; Linux; rv:1.9.5.20) Gecko/2012 Chrome/120.0.0.0",
        "update @ self.lora_a.T",
        "SSN 999-99-9999",
        "max_tokens=settings[0].length2",
        "[EMAIL_1] and password: [SECRET_12], call [PHONE_3]",
        'password = os.environ["DB_PASSWORD_1"]',
        "password = get_secret(NAME_1)",
        "password = vault.read(path_1, key_1)",
        'password = decrypt(get_secret("db1"))',
        "password = getpass.getpass('Number 1: ')",
        "password = config.databases[0].password",
        'password: "${DB_PASSWORD_1}"',
        "password=$DB_PASSWORD_1",
        "password: insert_password_1_here",
        "password: your-password-123",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text):
    assert found(text) == []


def test_the_key_that_a_value_stands_under_says_what_it_is():
    assert found("2025550143", key="phone") == [("phone", "2025550143")]
    assert found("2025550143", key="order_id") == []
    assert found("hunter2hunter", key="password") == [("secret", "hunter2hunter")]


def test_national_numbers_are_those_of_the_regions_and_international_ones_everywhere():
    assert found("01 99 00 12 34", regions=["FR"]) == [("phone", "01 99 00 12 34")]
    assert found("01 99 00 12 34", regions=["US"]) == []
    assert found("+33 1 99 00 12 34", regions=["US"]) == [("phone", "+33 1 99 00 12 34")]
    assert found("12345678Z", regions=["ES"]) == [("national_id", "12345678Z")]
    assert found("12345678Z", regions=["US"]) == []


@pytest.mark.parametrize(
    ("region", "text", "value"),  # numbers that python-stdnum's and the registers' own pages show as examples
    [
        ("AT", "SVNR 1237 010180", "1237 010180"),
        ("AU", "TFN 123 456 782", "123 456 782"),
        ("BE", "85.07.30-033 28", "85.07.30-033 28"),
        ("BR", "390.533.447-05", "390.533.447-05"),
        ("CA", "SIN: 123 456 782", "123 456 782"),
        ("CH", "756.9217.0769.85", "756.9217.0769.85"),
        ("CL", "12.531.909-2", "12.531.909-2"),
        ("CN", "360426199101010071", "360426199101010071"),
        ("CZ", "710319/2745", "710319/2745"),
        ("DE", "Steuer-ID 36 574 261 809", "36 574 261 809"),
        ("DK", "211062-5629", "211062-5629"),
        ("FI", "131052-308T", "131052-308T"),
        ("GB", "NHS 943 476 5919", "943 476 5919"),
        ("IE", "6433435F", "6433435F"),
        ("IN", "2341 2341 2346", "2341 2341 2346"),
        ("IN", "ACUPA7085R", "ACUPA7085R"),
        ("IT", "RCCMNL83S18D969H", "RCCMNL83S18D969H"),
        ("MX", "BOXW310820HNERXN09", "BOXW310820HNERXN09"),
        ("NL", "BSN 1112.22.333", "1112.22.333"),
        ("NO", "151086 95088", "151086 95088"),
        ("PL", "PESEL 44051401359", "44051401359"),
        ("PT", "00000000 0 ZZ4", "00000000 0 ZZ4"),
        ("RO", "1630615123457", "1630615123457"),
        ("SE", "880320-0016", "880320-0016"),
        ("TR", "TC kimlik 17291716060", "17291716060"),
        ("ZA", "ID 7503305044089", "7503305044089"),
    ],
)
def test_identity_numbers_of_many_regions_are_known(region, text, value):
    assert found(text, regions=[region]) == [("national_id", value)]


def test_every_check_that_the_table_names_is_there():
    for one in IDENTITIES:
        if one.module is not None:
            assert callable(import_module(f"stdnum.{one.module}").is_valid)


def test_all_ways_to_write_a_value_are_one_value():
    def value(text):
        (match,) = find_private(text, "", make_detectors())
        return match.value

    assert value("Jane@Example.org") == value("jane (at) example dot org")
    assert value("(202) 555-0143") == value("+1 202.555.0143")
    assert value("GB29 NWBK 6016 1331 9268 19") == value("gb29nwbk60161331926819")


def test_a_mask_and_what_an_error_would_show_hold_nothing_of_the_value():
    for item in make_items(seed=3, each=20):
        for match in find_private(item.text, "content", make_detectors(regions=REGIONS, terms=TERMS)):
            assert match.value not in repr(match)
            assert item.text[match.start : match.end] not in match.mask


@given(text=st.text(alphabet="0123456789\u0664\uff14 \t\n.-+()/:@#[]ATaet\u00a0\ud800é€", max_size=120))
def test_whatever_the_text_places_are_inside_it_and_apart(text):
    matches = find_private(text, "", ALL)

    ends = [0, *(end for match in matches for end in (match.start, match.end)), len(text)]
    assert ends == sorted(ends)
    assert all(match.start < match.end for match in matches)


def test_an_unknown_region_and_no_region_are_refused():
    with pytest.raises(UsageError, match="XX"):
        make_detectors(regions=["US", "XX"])
    with pytest.raises(UsageError, match="empty"):
        make_detectors(regions=[])


def test_terms_are_the_lines_of_a_file(tmp_path):
    file = tmp_path / "terms.txt"
    file.write_bytes("\ufeff# people\nÅsa Berg\n\n  Quillfeather  \n".encode())

    assert read_terms(file) == ["Åsa Berg", "Quillfeather"]


@pytest.mark.parametrize(("content", "said"), [(b"", "no terms"), (b"\xff\xfe", "UTF-8"), (b"--\n", "letter")])
def test_a_file_without_terms_is_refused(tmp_path, content, said):
    file = tmp_path / "terms.txt"
    file.write_bytes(content)

    with pytest.raises(DataError, match=said):
        read_terms(file)


def seconds(text: str) -> float:
    """Processor time of a scan, the least of three."""
    detectors = make_detectors()
    times = []
    for _ in range(3):
        start = time.process_time()
        find_private(text, "content", detectors)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize(
    "unit", ["1 ", "12 34 ", "'a@", "07 ", "1", "@", "a@", "a.", "A1b2", "password: a(", "password=your"]
)
def test_time_grows_with_the_length_of_hostile_text_and_not_with_its_square(unit):
    seconds("1 call 202 555 0143, 4111 1111 1111 1111")  # loads the libraries
    text = unit * (4000 // len(unit))

    assert seconds(4 * text) < 8 * seconds(text) + 0.005


def columns(width: int) -> str:
    rng = random.Random(width)  # noqa: S311 - to be the same again, not to be secret
    return " ".join("".join(rng.choices("0123456789", k=width)) for _ in range(4000 // (width + 1)))


PROSE = "The doorbell of the shop has been dead since Sunday, and nobody answered the two letters that we wrote. " * 38


@pytest.mark.parametrize(
    "table", [*map(columns, range(1, 7)), "00 " * 1300, "1 22 333 4444 " * 280, "1.25  0.75 " * 360]
)
def test_a_table_of_numbers_takes_at_most_150_times_as_long_as_prose(table):
    seconds("1 call 202 555 0143, 4111 1111 1111 1111")

    # 5 to 42 where this was written
    assert seconds(table) / len(table) < 150 * seconds(PROSE) / len(PROSE)

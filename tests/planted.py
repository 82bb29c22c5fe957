"""Private data planted in realistic text, and look-alikes beside it: made by code, from a seed, belonging to nobody.

Check digits are computed here from their definitions, so that a scan is not held against the libraries it uses. Each
item is a text with the kinds and places of what is private in it; of a look-alike there is none.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

REGIONS = ("US", "GB", "DE", "FR", "ES")
TERMS = ("Projekt Seeadler", "Ottoline Marchbanks", "Quillfeather", "Brannigan & Soole")
FIRST = (
    "ana",
    "bo",
    "carla",
    "dmitri",
    "eva",
    "farid",
    "greta",
    "hiro",
    "ines",
    "jonas",
    "kofi",
    "lena",
    "mateo",
    "nora",
)
LAST = ("abbott", "berg", "costa", "dietz", "evans", "fischer", "gomez", "hughes", "ito", "jensen", "klein", "okafor")
HOSTS = ("northwind-mail", "globex", "posteo-box", "lakeside.clinic", "acme-parts", "hollowoak", "summit-law", "varga")
TOPS = ("com", "org", "net", "de", "co.uk", "fr", "io", "es", "eu")
FRAMES = (
    "Hi, {} Thanks for looking into this so quickly.",
    "The customer wrote on 12 March 2024 at 10:45 and said: {} I promised an answer within 2 days.",
    "{} Please update the record (see ticket 48-2213).",
    "Summary of the call: {} Nothing else was discussed.",
    "As agreed in section 4.2 of the contract, {} We ship 250 units on 2024-05-17.",
    "{}",
)


@dataclass(frozen=True)
class Item:
    """``private``: the kind and the exact text of what is planted; None in a look-alike."""

    text: str
    kind: str
    private: str | None


def luhn_digit(digits: str) -> str:
    """ISO/IEC 7812-1, annex B."""
    doubled = [int(d) * (2 - place % 2) for place, d in enumerate(reversed(digits))]
    return str(-sum(d - 9 if d > 9 else d for d in doubled) % 10)


def iban(country: str, account: str) -> str:
    """ISO 13616: 98 less the remainder of the number with its letters as numbers."""
    number = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    return f"{country}{98 - int(number) % 97:02d}{account}"


def digits(rng: random.Random, count: int, first: str = string.digits) -> str:
    return rng.choice(first) + "".join(rng.choices(string.digits, k=count - 1))


def grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    parts, place = [], 0
    for size in sizes:
        parts.append(text[place : place + size])
        place += size
    return separator.join(part for part in [*parts, text[place:]] if part)


def emails(rng: random.Random, number: int) -> tuple[str, str]:
    first, last, host, top = rng.choice(FIRST), rng.choice(LAST), rng.choice(HOSTS), rng.choice(TOPS)
    local = rng.choice([f"{first}.{last}", f"{first[0]}{last}{rng.randint(1, 99)}", f"{first}_{last}", f"{first}+news"])
    plain = f"{local}@{host}.{top}"
    hidden = [
        f"{local} (at) {host} dot {top.replace('.', ' dot ')}",
        f"{local}[at]{host}[dot]{top.replace('.', '[dot]')}",
        f"{first} at {host.split('.')[0]} dot com",
        f"{local} @ {host}.{top}",
    ]
    value = plain if number % 2 else hidden[number // 2 % len(hidden)]
    return value, rng.choice(["please write to {} instead.", "my address is {} now.", "copy {} on every answer."])


def like_emails(rng: random.Random, number: int) -> str:
    return [
        f"follow @{rng.choice(FIRST)} for updates.",
        f"install react@{rng.randint(15, 19)}.{rng.randint(0, 9)}.{rng.randint(0, 9)} and run it again.",
        f"clone git@{rng.choice(HOSTS)}.com:team/{rng.choice(LAST)}.git first.",
        f"I work at {rng.choice(HOSTS)}.com since May.",
        f"use logo@{rng.randint(2, 3)}x.png on the page.",
        f"the price is 5 @ {rng.randint(2, 90)}.50 each.",
        f"meet me at noon, the dot on the map is the {rng.choice(LAST)} shop.",
    ][number % 7]


def phones(rng: random.Random, number: int) -> tuple[str, str]:
    us = f"{rng.choice(['202', '415', '312', '617', '303'])}555{rng.randint(100, 199):04d}"
    gb = f"07911{digits(rng, 6)}"
    london = f"02079460{rng.randint(0, 999):03d}"
    fr = f"06{digits(rng, 8, '1234')}"
    de = f"030{digits(rng, 8, '23456789')}"
    es = f"61{digits(rng, 7)}"
    forms = [
        f"({us[:3]}) {us[3:6]}-{us[6:]}",
        grouped(us, (3, 3), "-"),
        grouped(us, (3, 3), "."),
        f"+1 {grouped(us, (3, 3), ' ')}",
        " ".join(us),
        grouped(gb, (5,), " "),
        gb,
        grouped(london, (3, 4), " "),
        f"+44 (0){london[1:3]} {london[3:7]} {london[7:]}",
        grouped(fr, (2, 2, 2, 2), " "),
        grouped(fr, (2, 2, 2, 2), "."),
        f"+33 {fr[1]} {grouped(fr[2:], (2, 2, 2), ' ')}",
        f"{de[:3]} {de[3:]}",
        f"+49 {de[1:3]} {de[3:]}",
        grouped(es, (3, 3), " "),
    ]
    said = ["call me at {} after six.", "my new phone is {}, use that.", "you can reach him on {}.", "text me: {}."]
    bare = ["he left {} and hung up.", "{} is hers."]
    named = number % len(forms) not in (0, 1, 3, 8, 11, 13) or number % 3
    return forms[number % len(forms)], rng.choice(said if named else bare)


def like_phones(rng: random.Random, number: int) -> str:
    return [
        f"order {digits(rng, 10, '2345')} was sent.",
        f"invoice no. {digits(rng, 9)} is due.",
        f"in {rng.randint(1950, 1999)}-{rng.randint(2000, 2024)} it grew to {rng.randint(1, 9)} {digits(rng, 3)} 000.",
        f"ISBN 978-3-16-{digits(rng, 6)}-{rng.randint(0, 9)} is out of print.",
        f"the log says {rng.randint(2019, 2024)}-0{rng.randint(1, 9)}-1{digits(rng, 1)} 10:{digits(rng, 2)}:07.12.",
        f"tracking number {digits(rng, 12)} shows no movement.",
        f"the timestamp {rng.randint(1_600_000_000, 1_700_000_000)} is in seconds.",
        f"part {digits(rng, 3)}-{digits(rng, 3)}-{digits(rng, 4)} is in stock.",
        f"it costs {rng.randint(100, 999)} {digits(rng, 3)},00 EUR with {digits(rng, 7)} sold.",
    ][number % 9]


CARDS = (
    ("4", 16, (4, 4, 4)),
    ("51", 16, (4, 4, 4)),
    ("2223", 16, (4, 4, 4)),
    ("37", 15, (4, 6)),
    ("6011", 16, (4, 4, 4)),
)


def cards(rng: random.Random, number: int) -> tuple[str, str]:
    prefix, length, sizes = CARDS[number % len(CARDS)]
    body = prefix + digits(rng, length - len(prefix) - 1)
    card = body + luhn_digit(body)
    forms = [card, grouped(card, sizes, " "), grouped(card, sizes, "-"), grouped(card, sizes, "."), " ".join(card)]
    said = ["I paid with {} last week.", "charge my card {} please.", "the number on it is {}, valid until 08/27."]
    return forms[number // 5 % 5], rng.choice(said)


def like_cards(rng: random.Random, number: int) -> str:
    order = digits(rng, 16)
    body = digits(rng, 15, "4")
    wrong = body + str((int(luhn_digit(body)) + rng.randint(1, 9)) % 10)
    return [
        f"order {order} is late.",
        f"the card {wrong} was typed wrong.",
        f"IMEI 35{digits(rng, 13)} is locked.",
        f"EAN 4006381{digits(rng, 6)} is on the box.",
        f"tracking 4{digits(rng, 15)} was scanned.",
        f"id {rng.randint(10**18, 2 * 10**18)} is in the log.",
        f"the hash 4{digits(rng, 15)}a{digits(rng, 23)} differs.",
    ][number % 7]


def ibans(rng: random.Random, number: int) -> tuple[str, str]:
    made = [
        iban("DE", digits(rng, 18)),
        iban("GB", "".join(rng.choices(string.ascii_uppercase, k=4)) + digits(rng, 14)),
        iban("FR", digits(rng, 10) + "".join(rng.choices(string.ascii_uppercase, k=2)) + digits(rng, 11)),
        iban("NL", "ABNA" + digits(rng, 10)),
        iban("ES", digits(rng, 20)),
    ][number % 5]
    forms = [made, grouped(made, (4,) * 7, " "), grouped(made, (4,) * 7, "."), made.lower()]
    said = ["transfer it to {} by Friday.", "my account is {} at the same bank.", "{} is the one to use."]
    return forms[number // 5 % 4], rng.choice(said)


def like_ibans(rng: random.Random, number: int) -> str:
    return [
        f"use licence DE{digits(rng, 20)} to activate it.",
        f"the part FR{digits(rng, 2)} {digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)} is gone.",
        f"VAT GB{digits(rng, 9)} is on the invoice.",
        f"shipment NL{digits(rng, 2)}ABNA{digits(rng, 10)}X left.",
    ][number % 4]


def national_ids(rng: random.Random, number: int) -> tuple[str, str]:
    ssn = f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"
    nino = f"{rng.choice('ABCEHJ')}{rng.choice('ABCEHJ')} {grouped(digits(rng, 6), (2, 2), ' ')} {rng.choice('ABCD')}"
    while True:
        nhs = digits(rng, 9, "4679")
        check = 11 - sum(int(d) * (10 - place) for place, d in enumerate(nhs)) % 11
        if check != 10:
            nhs += str(check % 11)
            break
    dni = digits(rng, 8)
    dni += "TRWAGMYFPDXBNJZSQVHLCKE"[int(dni) % 23]
    nir = f"{rng.choice('12')}{rng.randint(40, 99)}{rng.randint(1, 12):02d}{rng.randint(10, 95)}{digits(rng, 6, '123')}"
    nir += f"{97 - int(nir) % 97:02d}"
    forms = [
        (ssn, ["her SSN is {} as filed.", "{} is what the form says."]),
        (ssn.replace("-", ""), ["social security number {} on file.", "SSN: {}."]),
        (nino, ["my national insurance number is {} by the way.", "{} is on the payslip."]),
        (nino.replace(" ", ""), ["NI {} as always.", "{} is on the payslip."]),
        (grouped(nhs, (3, 3), " "), ["NHS number {} was admitted.", "the patient, {}, is stable."]),
        (dni, ["DNI {} como siempre.", "{} is what he showed at the desk."]),
        (nir, ["her sécu is {} here.", "{} is on the carte vitale."]),
        (german_tax_id(rng), ["die Steuer-ID ist {} und gilt.", "my German tax ID is {} since birth."]),
    ]
    value, said = forms[number % len(forms)]
    return value, rng.choice(said)


def german_tax_id(rng: random.Random) -> str:
    """Ten digits, one of them twice, and ISO 7064's mod 11,10 check."""
    body = rng.sample(string.digits, 9)
    body = [*body[:4], body[rng.randint(0, 2)], *body[4:]]
    if body[0] == "0":
        body[0], body[3] = body[3], body[0]
    product = 10
    for digit in body:
        product = 2 * ((int(digit) + product) % 10 or 10) % 11
    return "".join(body) + str((11 - product) % 10)


def like_national_ids(rng: random.Random, number: int) -> str:
    return [
        f"order {digits(rng, 3)}-{digits(rng, 2)}-{digits(rng, 4)} was split.",
        f"part number {digits(rng, 9)} does not fit.",
        f"commit {''.join(rng.choices('0123456789abcdef', k=40))} broke it.",
        f"the ISBN {digits(rng, 1)}-{digits(rng, 3)}-{digits(rng, 5)}-{digits(rng, 1)} is older.",
        f"item AB-{digits(rng, 6)} in aisle C has {digits(rng, 10)} bytes.",
        f"population {digits(rng, 3)} {digits(rng, 3)} {digits(rng, 3)} in the last count.",
        f"reference {digits(rng, 8)}{rng.choice('IOU')} and batch {digits(rng, 11)}.",
        f"on 2{digits(rng, 3)}-{rng.randint(10, 12)}-{rng.randint(10, 28)} we counted {digits(rng, 11)} rows.",
    ][number % 8]


def ips(rng: random.Random, number: int) -> tuple[str, str]:
    v4 = f"{rng.randint(11, 223)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"
    if v4.startswith("127."):
        v4 = f"1{v4[3:]}"
    v6 = ":".join(["2001", "db8", *(f"{rng.randint(1, 0xFFFF):x}" for _ in range(6))])
    short = f"2a02:{rng.randint(256, 4095):x}::{rng.randint(256, 4095):x}:{rng.randint(16, 255)}"
    forms = [v4, v4.replace(".", "[.]"), v6, short, v4.replace(".", " dot "), v4]
    said = ["the login came from {} at night.", "block {} on the firewall.", "{} answered after 40 ms."]
    return forms[number % len(forms)], rng.choice(said)


def like_ips(rng: random.Random, number: int) -> str:
    a, b, c, d = (rng.randint(0, 40) for _ in range(4))
    return [
        f"version {a}.{b}.{c}.{d} fixes it.",
        f"firmware v{a}.{b}.{c}.{d} is out.",
        f"see section {a % 9 + 1}.{b % 9}.{c % 9}.{d % 9} for more.",
        f"the meeting is at 12:{rng.randint(10, 59)}:{rng.randint(10, 59)} sharp.",
        f"the MAC is 00:1b:44:{rng.randint(10, 99)}:3a:b{rng.randint(0, 9)} here.",
        f"the OID 1.3.6.1.4.1.{rng.randint(100, 999)}.{d} names it.",
        f"build 10.0.{rng.randint(256, 99999)}.{d} fails.",
        f"call std::vec::new(a{a}::b) first.",
        "localhost is 127.0.0.1 and the mask 255.255.255.0 everywhere.",
    ][number % 9]


def of(rng: random.Random, alphabet: str, count: int) -> str:
    """Random characters, with at least one of each class that the alphabet has."""
    some = rng.choices(alphabet, k=count)
    for place, kind in enumerate((string.ascii_lowercase, string.ascii_uppercase, string.digits)):
        if set(kind) <= set(alphabet):
            some[3 * place + 2], some[3 * place + 1] = rng.choice(kind), rng.choice(kind)
    return "".join(some)


ALNUM = string.ascii_letters + string.digits


def secrets(rng: random.Random, number: int) -> tuple[str, str]:
    hexadecimal = "".join(rng.choices("0123456789abcdef", k=32))
    forms = [
        ("AKIA" + of(rng, string.ascii_uppercase + string.digits, 16), "the key {} still works."),
        ("ghp_" + of(rng, ALNUM, 36), "push with {} as the login."),
        ("hf_" + of(rng, ALNUM, 34), "I used {} to download it."),
        ("sk-proj-" + of(rng, ALNUM, 48), "set it to {} and retry."),
        ("xoxb-" + digits(rng, 12) + "-" + of(rng, ALNUM, 24), "the bot has {} set."),
        ("AIza" + of(rng, ALNUM, 35), "the maps key is {} in the app."),
        ("sk_live_" + of(rng, ALNUM, 24), "we charge with {} in production."),
        (f"eyJ{of(rng, ALNUM, 20)}.eyJ{of(rng, ALNUM, 40)}.{of(rng, ALNUM, 43)}", "the header has {} in it."),
        (of(rng, string.ascii_lowercase + string.digits, 9) + "!7", "the password is {} for all."),
        (of(rng, ALNUM, 12), 'db_password = "{}" in the settings.'),
        (hexadecimal, "api_key: {} in the file."),
        (of(rng, ALNUM + "+", 44), "we found {} in the logs."),
        (of(rng, ALNUM, 14), "postgres://admin:{}@db.internal:5432/main is the address."),
        ("-----BEGIN PRIVATE KEY-----\n" + of(rng, ALNUM, 64) + "\n-----END PRIVATE KEY-----", "keep this: {} safe."),
    ]
    return forms[number % len(forms)]


def like_secrets(rng: random.Random, number: int) -> str:
    hexadecimal = "".join(rng.choices("0123456789abcdef", k=64))
    uuid = f"{hexadecimal[:8]}-{hexadecimal[8:12]}-4{hexadecimal[12:15]}-a{hexadecimal[15:18]}-{hexadecimal[18:30]}"
    return [
        f"commit {hexadecimal[:40]} is the fix.",
        f"the sha256 {hexadecimal} matches.",
        f"request {uuid} failed.",
        "the password is required and must be long.",
        "set api_key = os.environ['API_KEY'] in the code.",
        "password: ******** is shown on the page.",
        f"the file /usr/share/{rng.choice(LAST)}/very/long/path/to/Some_Document_v{rng.randint(1, 9)}.txt is missing.",
        "use your_api_key_here as the token: <YOUR_TOKEN>.",
        f"the function getUserAccountBalanceByCustomerId{rng.randint(10, 99)} is slow.",
        "I forgot my password yesterday, so the token ring was reset.",
        f"integrity sha512-{of(rng, ALNUM, 60)} is listed.",
        f"https://shop.example.com/{rng.choice(FIRST)}?page={rng.randint(1, 99)}&sort=asc is slow.",
    ][number % 12]


def terms(rng: random.Random, number: int) -> tuple[str, str]:
    term = TERMS[number % len(TERMS)]
    forms = [term, term.upper(), term.lower(), term.replace(" ", "  ")]
    return forms[number // 4 % 4], rng.choice(["we discussed {} at length.", "{}'s file is closed.", "ask about ({})."])


def like_terms(rng: random.Random, number: int) -> str:
    return [
        "the sea eagle project starts in May.",
        "Ottoline called, and so did Mrs Marchbank.",
        "a quill feather was on the desk.",
        "Brannigan and a Soole brother met.",
        f"projekt {rng.choice(LAST)} is on time.",
    ][number % 5]


Maker = Callable[[random.Random, int], tuple[str, str]]
MAKERS: dict[str, tuple[Maker, Callable[[random.Random, int], str]]] = {
    "email": (emails, like_emails),
    "phone": (phones, like_phones),
    "card": (cards, like_cards),
    "iban": (ibans, like_ibans),
    "national_id": (national_ids, like_national_ids),
    "ip": (ips, like_ips),
    "secret": (secrets, like_secrets),
    "term": (terms, like_terms),
}


def make_items(seed: int, each: int) -> list[Item]:
    """``each`` planted texts and as many look-alikes of every kind."""
    rng = random.Random(seed)  # noqa: S311 - to be the same again, not to be secret
    items = []
    for kind, (plant, imitate) in MAKERS.items():
        for number in range(each):
            value, sentence = plant(rng, number)
            items.append(Item(rng.choice(FRAMES).format(sentence.format(value)), kind, value))
            items.append(Item(rng.choice(FRAMES).format(imitate(rng, number)), kind, None))
    return items

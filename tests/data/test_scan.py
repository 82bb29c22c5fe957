"""A scan of files: what is reported, and the copy without it."""

import json
import tracemalloc

import pytest

from mlxtune.data.scan import scan_file, scan_files
from mlxtune.errors import DataError, MlxtuneError, OutputExistsError

EMAIL, PHONE = "jane.doe@example.org", "(202) 555-0143"


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(text):
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Thanks."}]}


def test_a_finding_has_kind_file_line_field_and_a_mask(tmp_path):
    file = write(tmp_path / "rows.jsonl", chat("Hello."), chat(f"I am {EMAIL}, call {PHONE}"))

    report = scan_file(file)

    assert (report.rows, report.counts, report.total) == (2, {"email": 1, "phone": 1}, 2)
    assert [(one.kind, one.file, one.line, one.field, one.mask) for one in report.findings] == [
        ("email", file, 2, "messages[0].content", "j…@e….org"),
        ("phone", file, 2, "messages[0].content", "…43"),
    ]
    assert EMAIL not in str(report)


def test_numbers_keys_and_lines_that_are_no_json_are_scanned_too(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"phone": 2025550143}}\n{{"{EMAIL}": 1}}\n{{"text": "{EMAIL}\n')

    found = [(one.kind, one.line, one.field) for one in scan_file(file).findings]

    assert found == [("phone", 1, "phone"), ("email", 2, ""), ("email", 3, "")]


def test_whole_numbers_with_a_point_are_scanned_as_pandas_writes_them(tmp_path):
    row = {"phone": 2025550143.0, "card": 4111111111111111.0, "price": 2025550143.5}
    file = write(tmp_path / "rows.jsonl", row)

    report = scan_file(file, redact=tmp_path / "out.jsonl")

    assert report.counts == {"card": 1, "phone": 1}
    assert json.loads((tmp_path / "out.jsonl").read_text()) == row | {"phone": "[PHONE_1]", "card": "[CARD_1]"}


def test_a_key_with_a_finding_is_masked_where_it_is_a_field_or_in_an_error(tmp_path):
    file = write(tmp_path / "rows.jsonl", {"people": {EMAIL: f"call {PHONE}"}})
    twice = tmp_path / "twice.jsonl"
    twice.write_text(f'{{"{EMAIL}": 1, "{EMAIL}": 2}}\n')

    report = scan_file(file)
    with pytest.raises(DataError, match="stands twice") as caught:
        scan_file(twice, redact=tmp_path / "out.jsonl")

    assert [(one.kind, one.field) for one in report.findings] == [("email", "people"), ("phone", "people.j…@e….org")]
    assert EMAIL not in str(report) + str(caught.value)


def test_two_keys_that_are_one_address_keep_both_their_values_in_a_copy(tmp_path):
    file = write(tmp_path / "rows.jsonl", {EMAIL: 1, EMAIL.upper(): 2, "[EMAIL_1] (2)": 3})

    scan_file(file, redact=tmp_path / "out.jsonl")

    copy = json.loads((tmp_path / "out.jsonl").read_text())
    assert copy == {"[EMAIL_1]": 1, "[EMAIL_1] (2)": 2, "[EMAIL_1] (2) (2)": 3}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f'{{"text": "{EMAIL}", "n": 1e400}}', "a number is too large to be written again"),
        (f'{{"text": {"[" * 900}"{EMAIL}"{"]" * 900}}}', "nested too deeply"),
        (f'{{"text": {"[" * 200_000}"{EMAIL}"{"]" * 200_000}}}', "nested too deeply"),
    ],
)
def test_a_row_that_cannot_be_written_again_is_found_private_but_not_copied(tmp_path, row, said):
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{row}\n")

    with pytest.raises(DataError, match=said) as caught:
        scan_file(file, redact=tmp_path / "out.jsonl")

    assert caught.value.where == f"{file}:1"
    assert not (tmp_path / "out.jsonl").exists()
    assert scan_file(file).counts == {"email": 1}


def test_a_term_without_a_letter_or_digit_is_refused(tmp_path):
    file = write(tmp_path / "rows.jsonl", chat("Hello."))

    with pytest.raises(DataError, match="letter or digit"):
        scan_file(file, terms=["--"])


def test_a_redacted_copy_has_one_placeholder_for_a_value_and_nothing_to_find(tmp_path):
    rows = [chat(f"I am {EMAIL}."), chat("Hello."), chat("write to Jane.Doe (at) example dot org or bob@example.org")]
    file = write(tmp_path / "rows.jsonl", *rows)
    before = file.read_bytes()

    report = scan_file(file, redact=tmp_path / "out.jsonl")

    copy = [json.loads(line)["messages"][0]["content"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert copy == ["I am [EMAIL_1].", "Hello.", "write to [EMAIL_1] or [EMAIL_2]"]
    assert report.counts == {"email": 3}
    assert scan_file(tmp_path / "out.jsonl").total == 0
    assert file.read_bytes() == before


def test_lines_without_a_finding_are_copied_byte_by_byte(tmp_path):
    file = tmp_path / "rows.jsonl"
    plain = b'{"text" :  "caf\\u00e9 1.0",   "n": 1.50}\r\n'
    file.write_bytes(plain + json.dumps({"text": EMAIL, "n": 1}).encode() + b"\r\n" + plain)

    scan_file(file, redact=tmp_path / "out.jsonl")

    assert (tmp_path / "out.jsonl").read_bytes() == plain + b'{"text": "[EMAIL_1]", "n": 1}\r\n' + plain


def test_splits_of_a_recipe_share_their_placeholders(tmp_path):
    train = write(tmp_path / "a.jsonl", chat("bob@example.org"), chat(EMAIL))
    test = write(tmp_path / "b.jsonl", chat(EMAIL))

    report = scan_files({"train": train, "test": test}, redact=tmp_path / "out")

    assert "[EMAIL_2]" in (tmp_path / "out/train.jsonl").read_text()
    assert "[EMAIL_2]" in (tmp_path / "out/test.jsonl").read_text()
    assert (report.redacted, report.files) == (tmp_path / "out", (train, test))


def test_no_copy_is_made_over_a_file_or_of_lines_that_are_no_json(tmp_path):
    file = write(tmp_path / "rows.jsonl", chat(EMAIL))
    taken = write(tmp_path / "taken.jsonl", chat("Hello."))
    broken = tmp_path / "broken.jsonl"
    broken.write_text(f'{{"text": "{EMAIL}"}}\n{EMAIL}\n')

    with pytest.raises(OutputExistsError):
        scan_file(file, redact=taken)
    with pytest.raises(DataError) as caught:
        scan_file(broken, redact=tmp_path / "out.jsonl")
    with pytest.raises(MlxtuneError, match="replace"):
        scan_file(file, redact=file, force=True)

    assert caught.value.where == f"{broken}:2"
    assert EMAIL not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()
    assert file.read_text() == json.dumps(chat(EMAIL)) + "\n"


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(rows):
        file = write(tmp_path / f"{rows}.jsonl", *[chat("word " * 100)] * rows)
        tracemalloc.start()
        scan_file(file)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(10)  # loads the libraries

    assert peak(400) < peak(40) + 100_000

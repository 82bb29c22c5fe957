"""CSV and TSV: delimiters told by the beginning, headers checked, bad records in their places."""

import pytest
from whole_file import read_records

from mlxtune.data.faults import Fault
from mlxtune.data.read import describe_file, read_stream
from mlxtune.errors import DataError


def write(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def refusal(path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert caught.value.remedy
    return caught.value


def test_quotes_newlines_and_doubled_quotes_inside_fields(tmp_path):
    path = write(tmp_path, 'q,a\n"one\r\ntwo","say ""yes"", please"\n\n , \n')
    assert [record.fields for record in read_records(path)] == [
        {"q": "one\ntwo", "a": 'say "yes", please'},
        {"q": " ", "a": " "},
    ]
    assert [record.line for record in read_records(path)] == [2, 5]


@pytest.mark.parametrize(("delimiter", "name"), [(",", ","), (";", ";"), ("\t", "a tab"), ("|", "|")])
def test_the_delimiter_of_a_csv_file_is_told_by_its_beginning(tmp_path, delimiter, name):
    path = write(tmp_path, f"q{delimiter}a\n1{delimiter}x. y - z\n")
    assert read_records(path)[0].fields == {"q": "1", "a": "x. y - z"}
    assert str(describe_file(path)).endswith(f"fields end with {name}" if delimiter == "\t" else f"with {name}")


def test_delimiters_inside_text_are_not_taken_for_columns(tmp_path):
    path = write(tmp_path, "question;answer\nWell, now, what;a, b\nAnd;c\n")
    assert read_records(path)[0].fields == {"question": "Well, now, what", "answer": "a, b"}


def test_two_delimiters_that_would_do_are_refused_with_both(tmp_path):
    assert "by comma and semicolon alike" in refusal(write(tmp_path, "a,b;c\n1,2;3\n4,5;6\n")).message


def test_one_column_is_a_table_too(tmp_path):
    assert [r.fields for r in read_records(write(tmp_path, 'text\n"a, b"\nc\n'))] == [{"text": "a, b"}, {"text": "c"}]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("a,", "column 2 has no name"),
        (",a", "column 1 has no name"),
        ("a, a ", "two columns are named 'a'"),
        ("12,a", "the first line is no header: what stands in column 1"),
        ("a,1.5", "the first line is no header"),
        ('"' + "long text " * 20 + '",a', "the first line is no header"),
        ('"two\nlines",a', "the first line is no header"),
        ('"a"b,c', "the header cannot be read"),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path, header, said):
    assert said in refusal(write(tmp_path, f"{header}\n1,2\n")).message


def test_white_space_around_names_is_taken_off(tmp_path):
    assert read_records(write(tmp_path, " a , b\n1,2\n"))[0].fields == {"a": "1", "b": "2"}


def test_ragged_and_broken_records_are_faults_and_the_others_are_read(tmp_path):
    path = write(tmp_path, 'a,b\n1,2\n1\n1,2,3\n"x"y,2\n\x00,1\n3,4\n')
    rows = list(read_stream(path))
    assert [row.line for row in rows] == [2, 3, 4, 5, 6, 7]
    messages = [row.message for row in rows if isinstance(row, Fault)]
    assert messages[0] == "1 field, and the header has 2 columns"
    assert messages[1] == "3 fields, and the header has 2 columns"
    assert "no record" in messages[2]
    assert "NUL" in messages[3]
    assert rows[-1].fields == {"a": "3", "b": "4"}


def test_a_quote_that_never_ends_is_a_fault_where_it_begins(tmp_path):
    good, bad = read_stream(write(tmp_path, 'a,b\n1,2\n"open,3\n4,5\n'))
    assert (good.line, bad.line) == (2, 3)
    assert "unexpected end of data" in bad.message


def test_a_tsv_file_is_split_at_tabs_alone(tmp_path):
    path = write(tmp_path, "a\tb\n1,2;3\t4\n", "rows.tsv")
    assert read_records(path)[0].fields == {"a": "1,2;3", "b": "4"}


def test_a_field_longer_than_pythons_own_limit_is_read(tmp_path):
    path = write(tmp_path, f"a,b\n{'x' * 300_000},1\n")
    assert len(read_records(path)[0].fields["a"]) == 300_000

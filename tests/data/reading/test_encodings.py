"""Encodings: what a byte order mark names is decoded; all else is UTF-8, or refused with its likely name."""

import codecs
import json

import pytest
from whole_file import read_records

from mlxtune.data.read import describe_file, read_stream
from mlxtune.data.reading.encodings import likely_encoding
from mlxtune.errors import DataError

TEXT = "Grüße, 日本 😀\u2028 end"
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
FILES = {
    "rows.jsonl": json.dumps({"text": TEXT}, ensure_ascii=False) + "\n",
    "rows.json": json.dumps([{"text": TEXT}], ensure_ascii=False),
    "rows.csv": f'text\r\n"{TEXT}"\r\n',
    "rows.txt": TEXT,
}


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("name", FILES)
def test_text_with_a_byte_order_mark_is_decoded_and_its_encoding_told(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes(MARKS[encoding] + FILES[name].encode(encoding))
    assert [record.fields for record in read_records(path)] == [{"text": TEXT}]
    assert encoding.upper() in describe_file(path).encoding


def test_a_long_utf_16_file_is_decoded_across_its_pieces(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": TEXT * 50, "n": number} for number in range(300)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    assert [record.fields for record in read_records(path)] == rows


GERMAN = "Die Straße über die Brücke führt zur schönen Küste, wo die Möwen täglich kreischen. Für später genügt das."
JAPANESE = "日本語の文章です。これは文字コードを調べるための例文で、十分な長さがあります。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("text,label\nsch\u00f6n,gut\n", "cp1252"),
        ("le caf\u00e9 est ferm\u00e9 \u00e0 l'\u00e9t\u00e9", "cp1252"),
        ("\u041f\u0440\u0438\u0432\u0435\u0442, \u043a\u0430\u043a \u0434\u0435\u043b\u0430", "cp1251"),
        ("\u3053\u3093\u306b\u3061\u306f\u3001\u5143\u6c17\u3067\u3059\u304b", "cp932"),
    ],
)
def test_a_short_text_is_likely_to_be_in_an_encoding_that_is_still_in_use(text, encoding):
    assert likely_encoding(text.encode(encoding)) == encoding


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        (GERMAN, "cp1252", ("cp125", "latin", "iso8859", "iso-8859")),
        (JAPANESE, "shift_jis", ("cp932", "shift")),
        (JAPANESE, "euc_jp", ("euc-j",)),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_another_encoding_is_refused_with_the_byte_its_place_and_the_likely_name(
    tmp_path, name, text, encoding, likely
):
    path = tmp_path / name
    content = FILES[name].replace(TEXT, text * 3).encode(encoding)
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_records(path)
    at = next(number for number, byte in enumerate(content) if byte > 0x7F)
    assert f"not UTF-8: byte 0x{content[at]:02x}" in caught.value.message
    assert str(caught.value.where).startswith(f"{path}:")
    assert any(f"likely to be {name}" in caught.value.message for name in likely), caught.value.message
    assert caught.value.remedy


def test_a_bad_byte_far_into_a_json_list_is_placed(tmp_path):
    rows = b",\n".join(b'{"text": "' + b"x" * 1000 + b'"}' for _ in range(3000))
    content = b"[" + rows + b',\n{"text": "caf\xe9"}]'
    (tmp_path / "rows.json").write_bytes(content)
    stream = read_stream(tmp_path / "rows.json")
    with pytest.raises(DataError, match=f"byte 0xe9 at byte {content.index(0xE9) + 1} of the file") as caught:
        list(stream)
    assert caught.value.where == f"{tmp_path / 'rows.json'}:3001"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_utf_16_and_32_without_a_mark_are_refused(tmp_path, encoding):
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "a"}'.decode().encode(encoding))
    with pytest.raises(DataError, match="without a byte order mark"):
        read_records(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("mark", "bad"),
    [
        (codecs.BOM_UTF16_LE, b"{\0\x00\xd8a\0"),  # half a surrogate pair
        (codecs.BOM_UTF16_LE, b"{\0}"),  # half a unit
        (codecs.BOM_UTF32_BE, b"\x7f\xff\xff\xff"),  # beyond Unicode
    ],
)
def test_bytes_that_are_not_what_the_mark_says_are_refused(tmp_path, mark, bad):
    (tmp_path / "rows.jsonl").write_bytes(mark + bad)
    with pytest.raises(DataError, match=r"which its byte order mark says: byte \d+"):
        read_records(tmp_path / "rows.jsonl")

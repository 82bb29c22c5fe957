"""YAML text into plain values with places; what is no recipe's YAML is refused with its line."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxtune.errors import RecipeError
from mlxtune.recipe.document import MAX_BYTES, parse, read_document

NAMES = st.text(min_size=1, max_size=20)  # YAML lets a key have 1024 characters, escapes included
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def failure(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse(text, "recipe.yaml")
    return caught.value


def test_words_that_yaml_1_1_took_for_booleans_are_words():
    assert parse("a: no\nb: on\nc: y\nd: true\n", "f").values == {"a": "no", "b": "on", "c": "y", "d": True}


def test_numbers_are_those_of_yaml_1_2():
    text = "{a: 1e-3, b: 2.0e-4, c: 012, d: 0x1F, e: 0o17, f: 1:30, g: ~, h: '1', i: 2024-01-01, j: -5}"
    assert parse(text, "f").values == {
        "a": 0.001, "b": 0.0002, "c": 12, "d": 31, "e": 15, "f": "1:30", "g": None, "h": "1", "i": "2024-01-01",
        "j": -5,
    }  # fmt: skip


def test_each_key_and_each_position_has_its_line_and_column():
    places = parse("a: 1\nb:\n  c: {d: 2}\n  e:\n    - x\n    - {f: 1}\n", "r.yaml").places
    told = {".".join(map(str, key)): str(place) for key, place in places.items()}
    assert told == {
        "": "r.yaml",
        "a": "r.yaml:1:1",
        "b": "r.yaml:2:1",
        "b.c": "r.yaml:3:3",
        "b.c.d": "r.yaml:3:7",
        "b.e": "r.yaml:4:3",
        "b.e.0": "r.yaml:5:7",
        "b.e.1": "r.yaml:6:7",
        "b.e.1.f": "r.yaml:6:8",
    }


def test_an_anchor_gives_its_value_again():
    assert parse("a: &x {b: 1}\nc: *x\n", "f").values == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "recipe.yaml:3:1", "a second time"),
        ("a: 1\nb:\n\tc: 2\n", "recipe.yaml:3:1", "not YAML"),
        ("a: [1, 2\nb: 3\n", "recipe.yaml:2:2", "not YAML"),
        ("a: 1\n--- \nb: 2\n", "recipe.yaml:2:1", "another document"),
        ("a: *nowhere\n", "recipe.yaml:1:4", "undefined alias"),
        ("a: 1\nb: \x01\n", "recipe.yaml:2", "forbids: 0x0001"),
        ("a: 1\nb: !!python/name:os.system x\n", "recipe.yaml:2:4", "no meaning"),
        ("a: !!set {x}\n", "recipe.yaml:1:4", "no meaning"),
        ("a: !!int x\n", "recipe.yaml:1:4", "is no int"),
        ("a: ._\n", "recipe.yaml:1:4", "is no float"),
        ('a: "\\ud800"\n', "recipe.yaml:1:4", "half a letter"),
        ("? [a, b]\n: 1\n", "recipe.yaml:1:3", "plain text"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_place(text: str, where: str, said: str):
    error = failure(text)
    assert error.where == where
    assert said in error.message


def test_a_tab_is_told_to_be_a_tab():
    assert "tabs" in (failure("a:\n\tb: 2\n").remedy or "")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 1}]" for i in range(30)),
        "a: &a {b: *a}",
        "a: " + "[" * 1_000,
        "a: " + "[" * 30 + "]" * 30,
    ],
    ids=["aliases of aliases", "an alias of itself", "nesting without end", "nesting beyond use"],
)
def test_a_document_that_would_grow_beyond_use_is_refused(text: str):
    assert "nested" in failure(text).message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"# nothing but a comment\n", "is empty"),
        (b"- a\n- b\n", "no mapping"),
        (b"just words\n", "no mapping"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"name: a\n" * (MAX_BYTES // 8 + 1), "at most"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(content: bytes, said: str, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=said) as caught:
        read_document(path)
    assert str(caught.value.where).startswith(str(path))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path):
    with pytest.raises(RecipeError, match="No such file") as caught:
        read_document(tmp_path / "gone.yaml")
    assert caught.value.where == str(tmp_path / "gone.yaml")


def test_the_line_of_a_byte_that_is_not_utf_8_is_told(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: a\nseed: 1\nmodel: \xff\n")
    with pytest.raises(RecipeError) as caught:
        read_document(path)
    assert caught.value.where == f"{path}:3"


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\nseed: 1\r\n")
    assert read_document(path)[1].values == {"name": "a", "seed": 1}


@given(values=st.dictionaries(NAMES, JSON_VALUES, max_size=4), ensure_ascii=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_json_file_says_what_json_says(values: dict, ensure_ascii: bool, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "recipe.json"
    path.write_text(json.dumps(values, ensure_ascii=ensure_ascii), encoding="utf-8")
    assert read_document(path)[1].values == values

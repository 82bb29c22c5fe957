"""A page's text is text whoever wrote it, and its policy lets nothing in that its maker did not write."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsed_page import HOSTILE, Page

from mlxtune.page import Html, document, join, plain, tag, visible
from mlxtune.printable import printable


@pytest.mark.parametrize("text", HOSTILE)
def test_a_string_is_text_wherever_it_is_put(text):
    made = tag("p", text, tag("b", text), visible(text), title=text, class_=text)
    page = Page(made)
    assert page.names <= {"p", "b", "em"}
    assert page.tags[0][1] == {"title": printable(text), "class": printable(text)}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.open == []


@given(text=st.text(max_size=40))
def test_no_character_that_cannot_be_seen_is_left_in_the_words(text):
    shown = Page(tag("p", plain(text), visible(text))).text
    assert all(character.isprintable() or character in "\n\t" for character in shown)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_that_can_be_seen_comes_back_as_it_was(text):
    seen = "".join(character for character in text if character.isprintable())
    assert Page(tag("p", seen)).text == seen


def test_markup_is_not_escaped_twice_and_a_part_of_it_is_text_again():
    made = tag("i", "a & b")
    assert tag("p", made) == "<p><i>a &amp; b</i></p>"
    assert plain(made) == made
    assert tag("p", made[:3]) == "<p>&lt;i&gt;</p>"


def test_attributes_are_named_as_in_html_and_left_out_where_there_are_none():
    assert tag("details", open=True, hidden=False, id=None, aria_label="x", class_="y") == (
        '<details open aria-label="x" class="y"></details>'
    )
    assert tag("br") == "<br>"


def test_joined_pieces_keep_their_kind():
    assert join(["<", Html("<b>"), ">"], between="&") == "&lt;&amp;<b>&amp;&gt;"


@pytest.mark.parametrize("script", ["", "var x = 1"])
def test_the_policy_lets_in_this_style_and_this_script_alone(script):
    page = Page(document(title="<t>", style="p { color: red }", body=tag("p", "x"), script=script))
    policy = next(a["content"] for name, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256("".join(page.styles).encode()).digest()).decode()
    assert parts["default-src"] == "'none'"
    assert parts["style-src"] == f"'sha256-{digest}'"
    wanted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert parts["script-src"] == (f"'sha256-{wanted}'" if script else "'none'")
    assert "".join(page.scripts) == script
    assert "<t>" in page.text

"""The page has every token once, says what is learned, runs nothing of the rows, and needs nothing else."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsed_page import HOSTILE, VOID
from parsed_page import Page as ParsedPage
from tiny import tiny_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.faults import Fault
from mlxtune.data.inspect import Sharing, inspect_row
from mlxtune.data.inspection.inspect_page import make_page, share_told, sharing_told
from mlxtune.data.render import Renderer


class Page(ParsedPage):
    """With the tokens on it: ``sides`` are texts, each a list of tokens with what was drawn of them."""

    def __init__(self, text):
        self.sides, self.token, self.character, self.classes = [], None, None, []
        super().__init__(text)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        attributes = dict(attrs)
        classes = (attributes.get("class") or "").split()
        if tag not in VOID:
            self.classes.append(classes)
        if "text" in classes:
            self.sides.append([])
        if "k" in classes:
            self.token = {"text": "", "classes": classes, **attributes, "marked": "mark" in self.open}
            self.sides[-1].append(self.token)
        if "data-u" in attributes:
            self.character = chr(int(attributes["data-u"], 16))
            self.token["text"] += self.character

    def handle_endtag(self, tag):
        super().handle_endtag(tag)
        classes = self.classes.pop()
        if "k" in classes:
            self.token = None
        if "u" in classes:
            self.character = None

    def handle_data(self, data):
        super().handle_data(data)
        if self.token is not None and self.character is None:
            self.token["text"] += data


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    return Renderer(tiny_tokenizer(tmp_path_factory.mktemp("chatml")))


def chat(user, assistant="yes", weight=1.0, line=1):
    messages = (Message("user", user), Message("assistant", assistant, weight=weight))
    return Example("chat", f"rows.jsonl:{line}", messages=messages)


def inspected(renderer, example, **settings):
    defaults = {"train_on": "completions", "max_seq_length": 5000, "overflow": "error"}
    return inspect_row(example, renderer, **(defaults | settings))


def page_of(*rows, title="rows", facts=None):
    return make_page([(f"row {i}", row) for i, row in enumerate(rows, start=1)], title=title, facts=facts or {})


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\ud800" not in text])  # which reading refuses
def test_hostile_text_is_text(renderer, text):
    row = inspected(renderer, chat(text, text + "!"))
    page = Page(page_of(row, Fault("rows.jsonl:2", text), title=text, facts={text: text}))
    assert page.open == []
    plain = Page(page_of(inspected(renderer, chat("a", "b")), Fault("rows.jsonl:2", "c")))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {"em", "dt", "dd"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not any(name.startswith("on") or name in ("src", "href", "style", "autofocus") for name in names)
    assert len(page.scripts) == len(page.styles) == 1
    (side,) = page.sides
    assert "".join(token["text"] for token in side) == renderer.tokenizer.decode([int(t["data-i"]) for t in side])
    invisible = [c for piece in page.visible for c in piece if not c.isprintable() and c not in "\n\t"]
    assert invisible == []


@given(user=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_every_token_is_there_once_and_in_order(renderer, user):
    example = chat(f"{user}.")
    wanted = renderer.render(example, "completions")
    (side,) = Page(page_of(inspected(renderer, example))).sides
    assert [int(token["data-p"]) for token in side] == list(range(len(wanted.token_ids)))
    assert [int(token["data-i"]) for token in side] == wanted.token_ids.tolist()
    assert ["t" in token["classes"] for token in side] == wanted.is_target.tolist()
    assert [token["marked"] for token in side] == wanted.is_target.tolist()
    assert "".join(token["text"] for token in side) == renderer.tokenizer.decode(wanted.token_ids.tolist())


def test_shared_special_and_cut_tokens_are_told_apart(renderer):
    sharing = Sharing(4, 8, "its batch in the first epoch")
    row = inspected(renderer, chat("x" * 50), sharing=sharing, max_seq_length=30, overflow="truncate_left")
    page = Page(page_of(row))
    (side,) = page.sides
    for token, drawn in zip(row.sides[0].tokens, side, strict=True):
        kinds = {"s": token.is_special, "p": token.is_shared, "x": token.is_cut, "t": token.is_target}
        assert {name: name in drawn["classes"] for name in kinds} == kinds
    text = "".join(page.visible)
    assert "tokens are cut from here (data.overflow: truncate_left)" in text
    assert "what is cut ends here" in text
    assert "cut from" in text


def test_a_weight_that_is_not_one_is_told(renderer):
    row = inspected(renderer, chat("Hi", "yes"))
    side = row.sides[0]
    half = [
        type(t)(**{n: getattr(t, n) for n in t.__slots__} | {"weight": 0.5 if t.is_target else 0.0})
        for t in side.tokens
    ]
    lighter = type(row)(
        row.where, row.kind, (type(side)("", tuple(half), side.length, side.target_tokens, 0),), row.sharing
    )
    page = Page(page_of(lighter))
    assert {token.get("data-w") for token in page.sides[0] if "t" in token["classes"]} == {"0.5"}
    assert "\u00d70.5" in "".join(page.visible)
    assert all(token.get("data-w") is None for token in Page(page_of(row)).sides[0])


def test_what_is_left_out_of_a_long_row_is_counted(renderer):
    row = inspected(renderer, chat("x" * 300), longest=40)
    page = Page(page_of(row))
    assert len(page.sides[0]) == 40
    assert f"{row.sides[0].length - 40:,} tokens are not shown" in "".join(page.visible)


def test_a_row_that_cannot_be_trained_on_is_told_in_its_place(renderer):
    page = Page(page_of(inspected(renderer, chat("a")), Fault("rows.jsonl:2", "'messages' is empty")))
    assert len([1 for tag, attributes in page.tags if tag == "section"]) == 2
    assert "This row cannot be trained on: 'messages' is empty" in page.visible
    assert [attributes["value"] for tag, attributes in page.tags if tag == "option"] == ["0", "1"]


def test_the_page_asks_for_nothing_and_its_policy_lets_only_its_own_script_run(renderer):
    text = page_of(inspected(renderer, chat("a")))
    page = Page(text)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    for name, (part,) in (("script", page.scripts), ("style", page.styles)):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
        assert not re.search(r"https?:|//\w|@import|url\(|fetch\(|XMLHttp|innerHTML|eval\(", part)
    assert "unsafe" not in policy
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "img", "iframe", "object", "a", "form"})


def test_controls_have_names_and_the_text_can_be_reached_by_keyboard(renderer):
    page = Page(page_of(inspected(renderer, chat("a"))))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _tag, attributes in page.tags:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert attributes.get(name, "row") in ids
        if "text" in (attributes.get("class") or "").split():
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    assert any(attributes.get("aria-live") == "polite" for _, attributes in page.tags)
    assert page.tags[0] == ("html", {"lang": "en"})


@pytest.mark.parametrize(
    ("settings", "shown"), [({}, []), ({"ids": True}, ["ids"]), ({"boundaries": True}, ["bounds"])]
)
def test_boundaries_and_ids_are_shown_from_the_start_where_asked(renderer, settings, shown):
    page = Page(make_page([("row 1", inspected(renderer, chat("a")))], title="rows", facts={}, **settings))
    assert [attributes["id"] for tag, attributes in page.tags if tag == "input" and "checked" in attributes] == shown
    assert [(a.get("class") or "").split() for tag, a in page.tags if tag == "body"] == [shown]


def test_shares_are_told_in_sentences(renderer):
    (side,) = inspected(renderer, chat("Hi", "yes")).sides
    assert share_told(side) == f"4 of {side.length} tokens are trained on ({4 / side.length:.0%})"
    assert sharing_told(Sharing()) == "it shares nothing with other rows"
    batch = "its batch in the first epoch"
    assert (
        sharing_told(Sharing(7, 8, batch))
        == f"the first 7 tokens are shared with the 7 other rows of {batch}, and read once"
    )
    assert (
        sharing_told(Sharing(7, 2, batch))
        == f"the first 7 tokens are shared with the other row of {batch}, and read once"
    )
    assert sharing_told(Sharing(0, 8, batch)) == f"no beginning is shared with the 7 other rows of {batch}"
    assert sharing_told(Sharing(0, 1, batch)) == f"it is alone in {batch}"

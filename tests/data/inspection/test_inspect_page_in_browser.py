"""The page in a browser: its script works, what rows hold does not run, nothing is asked for, and it fits a phone."""

import pytest
from tiny import tiny_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.inspect import inspect_row
from mlxtune.data.inspection.inspect_page import make_page
from mlxtune.data.render import Renderer

pytestmark = pytest.mark.slow

HOSTILE = (
    "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">\u202e\u200b" + "w" * 500
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    renderer = Renderer(tiny_tokenizer(folder))
    rows = []
    for line, text in enumerate(("Hi", HOSTILE, "Bye"), start=1):
        example = Example("chat", f"rows.jsonl:{line}", messages=(Message("user", text), Message("assistant", "yes")))
        row = inspect_row(example, renderer, train_on="completions", max_seq_length=60, overflow="truncate_left")
        rows.append((f"row {line}", row))
    path = folder / "page.html"
    path.write_text(make_page(rows, title="rows", facts={"form": "chat"}), encoding="utf-8")
    return path


@pytest.fixture(params=["light", "dark"])
def opened(request, browser, page_file):
    """The page at a phone's width, and what went wrong in it."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 400, "height": 800})
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda asked: None if asked.url == page_file.as_uri() else wrong.append(asked.url))
    page.goto(page_file.as_uri())
    yield page, wrong
    context.close()


def test_rows_are_picked_one_by_one_and_nothing_of_them_runs(opened):
    page, wrong = opened
    assert page.locator("section.row:visible").count() == 1
    page.click("#next")
    assert page.evaluate("document.activeElement.textContent").startswith("row 2")
    assert page.locator("#row").input_value() == "1"
    page.select_option("#row", "2")
    assert page.locator("section.row:visible h2").inner_text().startswith("row 3")
    assert page.locator("#next").is_disabled()
    assert page.title() == "rows"
    assert wrong == []


def test_tokens_are_told_of_by_pointer_and_by_keyboard(opened):
    page, wrong = opened
    token = page.locator("section.row:visible .k.t").first
    token.hover()
    assert "position" in page.inner_text("#tip")
    assert f"id {token.get_attribute('data-i')}: trained on, weight 1" in page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.locator("section.row:visible .text").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "token 2, position 1" in page.inner_text("#said")
    assert wrong == []


def test_boundaries_and_ids_are_toggled_and_the_page_never_runs_off_its_side(opened):
    page, wrong = opened
    page.click("#next")
    for toggle in ("#bounds", "#ids"):
        page.check(toggle)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400
    drawn = page.evaluate("getComputedStyle(document.querySelector('.k'), '::after').content")
    assert drawn.strip('"') == page.locator(".k").first.get_attribute("data-i")
    assert wrong == []

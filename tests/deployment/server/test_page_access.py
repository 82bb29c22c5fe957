"""The chat page for every screen, every hand and every ear: widths, colours, keyboard, screen readers."""

import os
from pathlib import Path

import pytest
from chat_double import BreakOff, Piece
from chat_window import PHONE, Window

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[3]
WIDE_WORD = "w" * 400


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    named = os.environ.get("AXE_CORE")
    path = Path(named) if named else CHECKOUT / "node_modules/axe-core/axe.min.js"
    if not path.is_file():
        pytest.skip(f"axe-core is not at {path}: npm install --no-save axe-core, or name its axe.min.js in AXE_CORE")
    return path.read_text("utf-8")


def filled(window: Window, chat_double) -> None:
    """A conversation with everything that the page can show."""
    window.page.evaluate("document.fonts.ready")
    chat_double.answer = lambda body: [Piece(f"{body['model']} ", logprob=-2.0, top=(("x", -0.2),)), WIDE_WORD]
    window.change_settings(probabilities=True)
    window.ask(f"a long word {WIDE_WORD}")
    window.page.locator("#compare").check()
    window.ask("two lines\nof text", "tuned", "base")
    chat_double.says("ha", BreakOff())
    window.ask("broken", "tuned", "base")


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_runs_off_the_side(window, chat_double, width):
    window.page.set_viewport_size({"width": width, "height": 720})
    assert fits(window.page)
    filled(window, chat_double)
    assert fits(window.page)
    window.button("Settings").click()
    assert fits(window.page)
    assert window.page.evaluate("document.querySelector('#settings').getBoundingClientRect().right <= innerWidth")


def test_a_phone_has_room_for_the_conversation_and_all_buttons(window):
    window.page.set_viewport_size(PHONE)
    window.page.locator("#compare").check()
    header, footer = (window.page.locator(name).bounding_box() for name in ("header", "footer"))
    assert footer["y"] + footer["height"] <= PHONE["height"]
    assert footer["y"] - header["height"] > PHONE["height"] * 0.7
    for name in ("New chat", "Settings", "Copy or save", "Send"):
        box = window.button(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]


def test_on_a_phone_the_settings_lie_over_the_page_and_give_it_back(window):
    window.page.set_viewport_size(PHONE)
    window.button("Settings").click()
    assert window.page.evaluate("document.querySelector('#settings').matches(':modal')")
    window.page.keyboard.press("Escape")
    expect(window.page.locator("#settings")).to_be_hidden()
    expect(window.button("Settings")).to_be_focused()
    expect(window.button("Settings")).to_have_attribute("aria-expanded", "false")


def test_dark_and_light_are_both_there(window):
    seen = "getComputedStyle(document.body).backgroundColor"
    colours = []
    for scheme in ("light", "dark"):
        window.page.emulate_media(color_scheme=scheme)
        colours.append(window.page.evaluate(seen))
    assert colours == ["rgb(255, 255, 255)", "rgb(18, 21, 24)"]


def test_everything_is_reached_by_keyboard(window):
    window.ask("Hello")
    window.page.locator("main").focus()
    reached = []
    for _ in range(14):
        reached.append(window.page.evaluate("document.activeElement.id || document.activeElement.ariaLabel"))
        window.page.keyboard.press("Tab")
    assert reached[1:6] == ["Edit this message", "Copy the answer of tuned", "Retry with tuned", "prompt", "send"]
    for _ in range(14):
        window.page.keyboard.press("Shift+Tab")
        reached.append(window.page.evaluate("document.activeElement.id || document.activeElement.ariaLabel"))
    assert {"model", "compare", "fresh", "settings-button", "more-button"} <= set(reached)


def test_a_reader_who_scrolled_up_is_not_pulled_down(window, chat_double):
    chat_double.says("line\n" * 100)
    window.ask("one")
    window.ask("two")
    assert window.page.evaluate("scrollY") > 0, "a reader at the end stays there"
    window.page.evaluate("scrollTo(0, 0)")
    chat_double.says("more\n" * 100)
    window.again("tuned").dispatch_event("click")
    expect(window.answers.last).to_contain_text("more")
    window.again("tuned").wait_for()
    assert window.page.evaluate("scrollY") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(browser, chat_double, axe, width, scheme):
    # the page's own policy would keep axe out too
    context = browser.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    window = Window(context.new_page(), chat_double.url)
    window.page.locator("body.ready").wait_for()
    found = []

    def check(moment: str) -> None:
        for violation in window.page.evaluate("async () => (await axe.run()).violations"):
            found.extend((moment, violation["id"], node["html"][:120]) for node in violation["nodes"])

    window.page.evaluate(axe)
    check("empty")
    filled(window, chat_double)
    check("filled")
    window.page.locator(".token").first.hover()
    check("token")
    window.button("Edit this message").click()
    check("editing")
    window.button("Settings").click()
    check("settings")
    window.button("Close").click()
    window.button("Copy or save").click()
    check("menu")
    context.close()
    assert found == []

"""The chat page in front of the real server, guard and key and all: the two speak the same wire."""

import pytest
from chat_window import Window
from serving import listening, serving_of

from mlxtune.deployment.server.app import make_app
from mlxtune.deployment.server.guard import GuardSettings, guarded

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
pytestmark = pytest.mark.slow

KEY = "a-key-of-many-characters"


@pytest.fixture(scope="module")
def served(tiny_run):
    """The address of the tiny run and its base, and their names."""
    with (
        serving_of(tiny_run, max_tokens=64) as serving,
        listening(guarded(make_app(serving, key_needed=True), GuardSettings(api_key=KEY))) as address,
    ):
        yield address, list(serving.served.models)


@pytest.fixture
def window(browser, served):
    address, _ = served
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = Window(context.new_page(), f"{address}/")
    opened.page.get_by_label("API key of this server").fill(KEY)
    opened.button("Use this key").click()
    yield opened
    context.close()
    assert opened.wrong == []


def test_both_sides_answer_with_probabilities_that_lie_over_their_texts(window, served):
    tuned, base = served[1]
    window.change_settings(probabilities=True, max_tokens="12")
    window.page.locator("#compare").check()
    window.ask("Hello", tuned, base)
    expect(window.page.locator(".answer h3")).to_have_text([tuned, base])
    expect(window.page.locator(".answer .foot").first).to_contain_text("tokens, prompt")
    for answer in window.answers.all():
        tokens = answer.locator(".token")
        assert tokens.count() > 0
        assert "".join(tokens.all_text_contents()) == answer.text_content()
    window.page.locator(".token").first.hover()
    expect(window.page.get_by_role("tooltip").locator("tr")).to_have_count(5)


def test_greedy_answers_are_the_same_again_and_settings_are_taken(window, served):
    tuned, _ = served[1]
    window.change_settings(max_tokens="8")
    window.ask("Hello", tuned)
    first = window.answers.text_content()
    window.again(tuned).click()
    window.again(tuned).wait_for()
    assert window.answers.text_content() == first
    window.change_settings(
        temperature="1.5", top_p="0.9", top_k="20", min_p="0.01", seed="3", stop="END",
        presence_penalty="0.5", frequency_penalty="0.5",
    )  # fmt: skip
    window.button("Settings").click()
    window.button("None").click()
    window.ask("Again", tuned)
    expect(window.page.locator(".answer .note")).to_have_count(0)


def test_what_the_server_refuses_is_told_in_its_words(window, served):
    tuned, _ = served[1]
    window.change_settings(stop="a\nb\nc\nd\ne")
    window.ask("Hello", tuned)
    expect(window.page.locator(".answer .note")).to_contain_text("stop has 5 texts")


def test_the_report_comes_with_the_key(window, tiny_run):
    with window.page.expect_download() as download:
        window.page.get_by_role("link", name="Report of the run").click()
    assert download.value.path().read_bytes() == (tiny_run / "report.html").read_bytes()

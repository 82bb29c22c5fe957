"""The report in a browser: nothing in it runs, nothing is asked for, and it fits a phone, a screen and paper."""

import pytest
from parsed_page import HOSTILE
from report_runs import interval, make_run, sample, scores

from mlxtune.iteration.report.page import write_report

pytestmark = pytest.mark.slow

WIDTHS = (360, 800, 1400)


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    """A report with hostile rows, and with words and numbers that are too wide for any page."""
    folder = tmp_path_factory.mktemp("report")
    wide = scores()
    name = "triage." + "a_very_long_metric_name_" * 8
    wide["base"][name], wide["tuned"][name] = interval(0.1, 0.0, 0.2), interval(0.8, 0.7, 0.9)
    rows = [
        sample(f"test.jsonl:{i}", text, f"{text} x", wanted=text, scores=(1.0, 0.0)) for i, text in enumerate(HOSTILE)
    ]
    rows.append(sample("w" * 300, "w" * 900, "v " * 300, prompt="u" * 500))
    return write_report(make_run(folder / "run", scored=wide, samples=rows, recipe_text="key: " + "x" * 3000)).path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_runs_off_the_side_and_nothing_goes_wrong(browser, report_file, width, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda asked: None if asked.url == report_file.as_uri() else wrong.append(asked.url))
    page.goto(report_file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "support-triage: report"
    assert page.locator("svg.chart").count() == 5
    assert wrong == []
    context.close()


def test_dark_and_light_differ_and_charts_follow(browser, report_file):
    colours = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(report_file.as_uri())
        seen = "getComputedStyle(document.querySelector('{}')).{}"
        colours.append(
            [page.evaluate(seen.format("body", "backgroundColor")), page.evaluate(seen.format(".s-accent", "stroke"))]
        )
        context.close()
    assert all(light != dark for light, dark in zip(*colours, strict=True))


def test_what_is_folded_is_printed_and_paper_is_not_dark(browser, report_file):
    context = browser.new_context(color_scheme="dark", viewport={"width": 800, "height": 900})
    page = context.new_page()
    page.goto(report_file.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    folded = "[...document.querySelectorAll('details:not([open])')]"
    heights = page.evaluate(f"{folded}.map(one => one.lastElementChild.getBoundingClientRect().height)")
    assert heights
    assert min(heights) > 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    context.close()


def test_the_sections_can_be_reached_by_keyboard(browser, report_file):
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(report_file.as_uri())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#scores")
    context.close()

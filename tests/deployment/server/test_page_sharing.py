"""What leaves the page: requests to copy, files to save; and the key, which never does."""

import ast
import json
import subprocess

import pytest
from chat_double import ChatDouble, Piece
from chat_window import Window
from parsed_page import HOSTILE
from report_runs import make_run

from mlxtune.deployment.server.page import PageModel
from mlxtune.iteration.report.page import write_report

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
pytestmark = pytest.mark.slow

KEY = "a-key-of-many-characters"
LOCKED = {"key": KEY}
AWKWARD = 'it\'s "$HOME" `id` \\n !! {a: null}\n\tüñ😀 \u2028 end'
STREAM = ("stream", "stream_options")


def arguments_of_curl(command):
    """What a shell would call curl with."""
    shell = ["sh", "-c", "curl() { printf '%s\\0' \"$@\"; }; " + command]
    done = subprocess.run(shell, env={"MLXTUNE_API_KEY": "from-the-environment"}, check=True, capture_output=True)
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


def unstreamed(body):
    return {name: value for name, value in body.items() if name not in STREAM}


def test_curl_sends_what_the_page_sends(window, chat_double):
    window.change_settings(temperature="0.5", top_k="3", stop="END")
    window.ask(AWKWARD)
    *words, body = arguments_of_curl(window.copied("Copy as curl"))
    assert words == ["-sS", f"{chat_double.url}v1/chat/completions", "-H", "Content-Type: application/json", "-d"]
    assert json.loads(body) == unstreamed(chat_double.bodies[0])


def test_python_sends_what_the_page_sends(window, chat_double):
    window.change_settings(temperature="0.5", top_k="3", min_p="0.1", stop="END")
    window.ask(AWKWARD)
    program = ast.parse(window.copied("Copy as Python"))
    calls = [node for node in ast.walk(program) if isinstance(node, ast.Call)]
    (client,) = [call for call in calls if ast.unparse(call.func) == "OpenAI"]
    (create,) = [call for call in calls if ast.unparse(call.func) == "client.chat.completions.create"]
    given = {word.arg: ast.literal_eval(word.value) for word in create.keywords}
    extra = given.pop("extra_body")
    assert set(extra) == {"top_k", "min_p"}
    assert given | extra == unstreamed(chat_double.bodies[0])
    assert {word.arg: ast.literal_eval(word.value) for word in client.keywords} == {
        "base_url": f"{chat_double.url}v1",
        "api_key": "none",
    }


def test_a_draft_is_what_is_copied_after_all_that_was_said(window):
    window.ask("one")
    window.prompt.fill("two")
    body = json.loads(arguments_of_curl(window.copied("Copy as curl"))[-1])
    assert [turn["content"] for turn in body["messages"]] == ["Answer in one word.", "one", "tuned heard: one", "two"]


@pytest.mark.parametrize("chat_double", [{"models": (PageModel("story", None, True, None),)}], indirect=True)
def test_a_model_of_plain_text_is_copied_as_a_completion(window, chat_double):
    window.ask("Once", "story")
    assert arguments_of_curl(window.copied("Copy as curl"))[1] == f"{chat_double.url}v1/completions"
    program = window.copied("Copy as Python")
    assert "client.completions.create(" in program
    assert "print(answer.choices[0].text)" in program


def test_without_a_clipboard_the_text_can_be_copied_by_hand(window):
    window.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    window.from_menu("Copy as curl")
    field = window.page.get_by_role("textbox", name="Text to copy")
    expect(field).to_be_focused()
    assert field.input_value().startswith("curl ")
    assert window.page.evaluate("getSelection().toString()").startswith("curl ")


def test_json_has_all_that_was_asked_and_answered(window, chat_double):
    chat_double.says(Piece("a", logprob=-0.5, top=(("b", -1.0),)))
    window.change_settings(probabilities=True, temperature="0.5")
    window.page.locator("#compare").check()
    window.ask(AWKWARD, "tuned", "base")
    name, text = window.saved("Save as JSON")
    assert name == "chat-tuned.json"
    saved = json.loads(text)
    assert saved["models"] == ["tuned", "base"]
    assert saved["system"] == "Answer in one word."
    assert saved["sampling"]["temperature"] == 0.5
    (exchange,) = saved["exchanges"]
    assert exchange["prompt"] == AWKWARD
    assert [answer.pop("seconds") >= 0 for answer in exchange["answers"]] == [True, True]
    assert exchange["answers"] == [
        {
            "model": model,
            "text": "a",
            "status": "done",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 7, "completion_tokens": 1},
            "tokens": [{"token": "a", "logprob": -0.5, "top": [["b", -1.0]]}],
        }
        for model in ("tuned", "base")
    ]


def test_markdown_keeps_every_text_as_text(window, chat_double):
    chat_double.says("````\n# not a heading\n<script>")
    window.ask("*Hello*")
    name, text = window.saved("Save as Markdown")
    assert name == "chat-tuned.md"
    assert text == (
        "# Chat with tuned\n\n## System\n\n```text\nAnswer in one word.\n```\n\n## You\n\n```text\n*Hello*\n```\n\n"
        "## tuned\n\n`````text\n````\n# not a heading\n<script>\n`````\n"
    )


@pytest.mark.parametrize("chat_double", [LOCKED], indirect=True)
def test_the_key_is_asked_for_and_goes_into_the_header_alone(window, chat_double):
    window.page.get_by_label("API key of this server").fill(KEY)
    window.page.get_by_label("API key of this server").press("Enter")
    expect(window.page.locator("#key-form")).to_be_hidden()
    window.ask("Hello")
    (_, body, headers), *_ = chat_double.requests
    assert headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(body)
    taken = [window.copied(f"Copy as {name}") for name in ("curl", "Python")]
    taken += [window.saved(f"Save as {name}")[1] for name in ("JSON", "Markdown")]
    assert [KEY in text for text in taken] == [False] * 4
    assert ["MLXTUNE_API_KEY" in text for text in taken] == [True, True, False, False]
    assert "Authorization: Bearer from-the-environment" in arguments_of_curl(taken[0])
    assert KEY not in window.page.content()
    assert KEY not in window.page.url


@pytest.mark.parametrize("chat_double", [LOCKED], indirect=True)
def test_the_key_is_kept_for_the_tab_until_it_is_forgotten(window):
    window.page.get_by_label("API key of this server").fill(KEY)
    window.button("Use this key").click()
    window.page.reload()
    expect(window.prompt).to_be_focused()
    assert window.page.evaluate("JSON.stringify([localStorage, document.cookie])") == '[{},""]'
    window.button("Settings").click()
    window.button("Forget the key").click()
    expect(window.page.get_by_label("API key of this server")).to_be_visible()
    assert KEY not in window.kept()


@pytest.mark.parametrize("chat_double", [LOCKED], indirect=True)
def test_a_wrong_key_is_told_and_the_right_one_then_sends_what_was_written(window):
    window.page.get_by_label("API key of this server").fill("wrong")
    window.button("Use this key").click()
    window.send("Hello")
    expect(window.alert).to_contain_text("did not accept the key")
    window.page.get_by_label("API key of this server").fill(KEY)
    window.button("Use this key").click()
    expect(window.answers).to_have_text("tuned heard: Hello")
    expect(window.alert).to_have_count(0)


@pytest.mark.parametrize("chat_double", [LOCKED | {"page_locked": True}], indirect=True)
def test_a_server_that_tells_nothing_without_the_key_is_opened_with_it(window):
    window.page.get_by_label("API key of this server").fill("wrong")
    window.button("Use this key").click()
    expect(window.alert).to_contain_text("did not accept the key")
    window.page.get_by_label("API key of this server").fill(KEY)
    window.button("Use this key").click()
    window.ask("Hello")
    expect(window.answers).to_have_text("tuned heard: Hello")


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("report") / "run")).path


@pytest.fixture
def with_report(request, report_file):
    return {"models": (PageModel("tuned", None, False, report_file),)} | request.param


@pytest.fixture
def reported(browser, with_report):
    double = ChatDouble(**with_report)
    context = browser.new_context()
    yield Window(context.new_page(), double.url)
    context.close()
    double.stop()


@pytest.mark.parametrize("with_report", [{}], indirect=True)
def test_the_report_opens_beside_the_page_and_looks_as_it_should(reported):
    with reported.page.context.expect_page() as opened:
        reported.page.get_by_role("link", name="Report of the run").click()
    report = opened.value
    expect(report).to_have_title("support-triage: report")
    assert report.evaluate("getComputedStyle(document.querySelector('.verdict-box')).borderInlineStartWidth") == "6px"
    assert report.evaluate("origin") == "null", "it is apart from the page, and from what the tab keeps"


@pytest.mark.parametrize("with_report", [LOCKED | {"page_locked": True}], indirect=True)
def test_with_a_key_the_report_is_saved(reported, report_file):
    reported.page.get_by_label("API key of this server").fill(KEY)
    reported.button("Use this key").click()
    with reported.page.expect_download() as download:
        reported.page.get_by_role("link", name="Report of the run").click()
    assert download.value.suggested_filename == "tuned-report.html"
    assert download.value.path().read_bytes() == report_file.read_bytes()


@pytest.mark.parametrize("chat_double", [{"models": (PageModel("<b>&\"'", "<i>", False, None),)}], indirect=True)
@pytest.mark.parametrize("probabilities", [False, True])
def test_what_anybody_wrote_is_text_and_nothing_else(window, chat_double, probabilities):
    window.change_settings(probabilities=probabilities)
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    elements = window.page.evaluate("[...new Set([...document.querySelectorAll('*')].map((one) => one.localName))]")
    for text in texts:
        chat_double.says(Piece(text, top=((text, -1.0),)))
        window.ask(text, "<b>&\"'")
        if probabilities:
            window.page.locator(".token").last.hover()
            window.page.get_by_role("tooltip").wait_for()
    shown = window.page.evaluate("[...document.querySelectorAll('.answer .text')].map((one) => one.textContent)")
    assert shown == texts
    after = set(window.page.evaluate("[...document.querySelectorAll('*')].map((one) => one.localName)"))
    ours = {"article", "section", "h2", "h3", "div", "span", "p", "table", "caption", "tbody", "tr", "td"}
    assert after - set(elements) <= ours
    assert window.page.locator(".answer script, .answer img, .answer svg, #conversation style").count() == 0

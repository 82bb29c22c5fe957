"""A person at the chat page: sends, reads along, stops, asks again, edits, reloads, loses the server."""

import json

import pytest
from chat_double import BreakOff, Finish, Gate, Refuse, echo
from chat_window import Window

from mlxtune.deployment.server.page import PageModel

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
pytestmark = pytest.mark.slow

SYSTEM = {"role": "system", "content": "Answer in one word."}


def test_an_answer_shows_as_it_comes(window, chat_double):
    gate = Gate()
    chat_double.says("first ", gate, "second")
    window.send("Hello")
    expect(window.answers).to_have_text("first ")
    expect(window.button("Stop")).to_be_visible()
    gate.open()
    expect(window.answers).to_have_text("first second")
    expect(window.button("Send")).to_be_visible()
    expect(window.prompt).to_be_focused()


def test_what_is_asked_is_streamed_with_the_system_prompt_of_training_and_the_settings(window, chat_double):
    window.ask("Hello")
    (path, body, _), *rest = chat_double.requests
    assert rest == []
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "tuned",
        "messages": [SYSTEM, {"role": "user", "content": "Hello"}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_next_request_has_the_turns_before_it(window, chat_double):
    window.ask("one")
    window.ask("two")
    assert chat_double.bodies[1]["messages"] == [
        SYSTEM,
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "tuned heard: one"},
        {"role": "user", "content": "two"},
    ]


def test_enter_sends_and_shift_enter_breaks_the_line(window, chat_double):
    window.prompt.fill("one")
    window.prompt.press("Shift+Enter")
    window.prompt.type("two")
    window.prompt.press("Enter")
    window.again("tuned").wait_for()
    assert chat_double.bodies[0]["messages"][-1]["content"] == "one\ntwo"


@pytest.mark.parametrize("text", ["", "  \n "])
def test_nothing_is_not_sent(window, chat_double, text):
    window.send(text)
    window.ask("Hello")
    assert len(chat_double.requests) == 1


@pytest.mark.parametrize("by", ["button", "escape"])
def test_stopping_ends_the_request_and_keeps_what_came(window, chat_double, by):
    gate = Gate()
    chat_double.says("half ", gate, "whole")
    window.send("Hello")
    expect(window.answers).to_have_text("half ")
    window.button("Stop").click() if by == "button" else window.page.keyboard.press("Escape")
    window.again("tuned").wait_for()
    assert chat_double.left.wait(20), "the server was not told"
    expect(window.answers).to_have_text("half ")
    expect(window.page.locator(".answer .foot")).to_contain_text("stopped")


def test_what_is_written_while_an_answer_comes_stays_and_is_not_sent(window, chat_double):
    gate = Gate()
    chat_double.says("a", gate)
    window.send("one")
    assert gate.reached.wait(20)
    window.send("two")
    expect(window.prompt).to_have_value("two")
    gate.open()
    window.again("tuned").wait_for()
    assert len(chat_double.requests) == 1


def test_a_retry_replaces_the_answer(window, chat_double):
    chat_double.says("old")
    window.ask("Hello")
    chat_double.says("new")
    window.again("tuned").click()
    expect(window.answers).to_have_text("new")
    window.again("tuned").wait_for()
    assert chat_double.bodies[0] == chat_double.bodies[1]


def test_a_retry_that_fails_leaves_the_answer_that_was_there(window, chat_double):
    chat_double.says("whole")
    window.ask("Hello")
    chat_double.says("ha", BreakOff())
    window.again("tuned").click()
    expect(window.page.locator(".answer .note")).to_have_text("The answer broke off.")
    expect(window.answers).to_have_text("whole")


def test_editing_the_last_message_asks_again_and_replaces_its_answer(window, chat_double):
    window.ask("one")
    window.ask("two")
    window.button("Edit this message").click()
    field = window.page.get_by_role("textbox", name="Edit the message")
    expect(field).to_have_value("two")
    field.fill("three")
    field.press("Enter")
    window.again("tuned").wait_for()
    expect(window.prompts).to_have_text(["one", "three"])
    expect(window.answers).to_have_text(["tuned heard: one", "tuned heard: three"])
    assert [turn["content"] for turn in chat_double.bodies[-1]["messages"]][1:] == ["one", "tuned heard: one", "three"]


def test_up_in_an_empty_field_edits_and_escape_leaves_all_as_it_was(window):
    window.ask("one")
    window.prompt.press("ArrowUp")
    field = window.page.get_by_role("textbox", name="Edit the message")
    field.fill("other")
    field.press("Escape")
    expect(window.prompts).to_have_text("one")
    expect(window.answers).to_have_text("tuned heard: one")
    expect(window.prompt).to_be_focused()


def test_an_answer_that_was_cut_off_says_so(window, chat_double):
    chat_double.says("a", Finish("length"))
    window.ask("Hello")
    expect(window.page.locator(".answer .foot")).to_contain_text("cut off at the longest answer")
    expect(window.page.locator(".answer .foot")).to_contain_text("1 tokens, prompt 7")


def test_a_refusal_is_told_in_the_server_s_words_and_the_message_is_left_out_of_later_requests(window, chat_double):
    chat_double.says(Refuse(400, "the prompt has 9000 tokens; 2048 fit"))
    window.ask("too long")
    expect(window.page.locator(".answer .note")).to_have_text("the prompt has 9000 tokens; 2048 fit")
    chat_double.says("fine")
    window.ask("short")
    assert chat_double.bodies[-1]["messages"] == [SYSTEM, {"role": "user", "content": "short"}]


def test_an_answer_that_the_server_gives_up_says_why_and_keeps_what_came(window, chat_double):
    chat_double.says("half ", Refuse(500, "the request took longer than 600 s"))
    window.ask("Hello")
    expect(window.answers).to_have_text("half ")
    expect(window.page.locator(".answer .note")).to_have_text("the request took longer than 600 s")


def test_what_was_kept_of_another_server_is_fitted_to_this_one(window, chat_double):
    window.ask("one")
    window.change_settings(max_tokens="200", temperature="0.5")
    kept = "sessionStorage.getItem('mlxtune.chat')"
    other = window.page.evaluate(kept).replace('"model":"tuned"', '"model":"gone"').replace("200", "9999")
    tab = window.page.context.new_page()
    tab.add_init_script(f"sessionStorage.setItem('mlxtune.chat', {json.dumps(other)})")
    again = Window(tab, chat_double.url)
    again.ask("two")
    body = chat_double.bodies[-1]
    assert body["model"] == "tuned"
    assert "max_tokens" not in body
    assert body["temperature"] == 0.5
    assert [turn["content"] for turn in body["messages"]][1:] == ["one", "tuned heard: one", "two"]


def test_a_busy_server_says_when_to_come_back(window, chat_double):
    chat_double.says(Refuse(429, "too many requests wait", (("Retry-After", "3"),)))
    window.ask("Hello")
    expect(window.page.locator(".answer .note")).to_have_text("too many requests wait (in 3 s)")
    expect(window.again("tuned")).to_be_visible()


def test_a_reload_brings_everything_back(window):
    window.ask("one")
    window.change_settings(temperature="0.7", system="Be brief.")
    window.prompt.fill("a draft")
    window.page.reload()
    expect(window.prompts).to_have_text("one")
    expect(window.answers).to_have_text("tuned heard: one")
    expect(window.prompt).to_have_value("a draft")
    window.button("Settings").click()
    expect(window.page.locator("#temperature")).to_have_value("0.7")
    expect(window.page.locator("#system")).to_have_value("Be brief.")


def test_a_reload_in_the_middle_of_an_answer_keeps_what_came(window, chat_double):
    chat_double.says("half ", Gate())
    window.send("Hello")
    expect(window.answers).to_have_text("half ")
    window.page.reload()
    expect(window.answers).to_have_text("half ")
    chat_double.says("whole")
    window.again("tuned").click()
    expect(window.answers).to_have_text("whole")


def test_another_tab_begins_anew(window, chat_double):
    window.ask("private")
    tab = window.page.context.new_page()
    tab.goto(chat_double.url)
    expect(tab.locator("#empty")).to_be_visible()
    assert tab.evaluate("sessionStorage.length + localStorage.length") <= 1


def test_a_server_that_is_gone_is_told_and_nothing_is_lost(window, chat_double):
    chat_double.says("line\n" * 100)
    window.ask("zero")
    chat_double.answer = echo
    window.ask("one")
    chat_double.stop()
    window.send("two")
    expect(window.alert).to_contain_text("The server does not answer. Nothing is lost")
    expect(window.alert).to_be_in_viewport()
    expect(window.prompts).to_have_text(["zero", "one", "two"])
    expect(window.answers.last).to_have_text("tuned heard: one")
    window.button("Try again").click()
    expect(window.alert).to_contain_text("The server does not answer")
    chat_double.start()
    window.button("Try again").click()
    expect(window.answers.last).to_have_text("tuned heard: two")
    expect(window.answers).to_have_count(3)
    expect(window.alert).to_have_count(0)


def test_a_server_that_goes_in_the_middle_of_an_answer_is_told(window, chat_double):
    chat_double.says("half ", Gate())
    window.send("Hello")
    expect(window.answers).to_have_text("half ")
    chat_double.stop()
    expect(window.page.locator(".answer .note")).to_contain_text("broke off")
    expect(window.answers).to_have_text("half ")
    chat_double.says("whole")
    chat_double.start()
    window.again("tuned").click()
    expect(window.answers).to_have_text("whole")


def test_a_new_chat_is_empty_and_an_answer_under_way_does_not_come_into_it(window, chat_double):
    gate = Gate()
    chat_double.says("old ", gate, "news")
    window.send("one")
    expect(window.answers).to_have_text("old ")
    window.button("New chat").click()
    expect(window.button("Send")).to_be_visible()
    assert chat_double.left.wait(20)
    chat_double.says("fresh")
    window.ask("two")
    expect(window.answers).to_have_text("fresh")
    assert chat_double.bodies[-1]["messages"] == [SYSTEM, {"role": "user", "content": "two"}]


RAW = {"models": (PageModel("story", None, True, None),)}


@pytest.mark.parametrize("chat_double", [RAW], indirect=True)
def test_a_model_of_plain_text_is_asked_to_go_on_with_the_message_alone(window, chat_double):
    window.ask("Once upon", "story")
    window.ask("There was", "story")
    expect(window.answers).to_have_text(["story heard: Once upon", "story heard: There was"])
    path, body, _ = chat_double.requests[-1]
    assert path == "/v1/completions"
    assert body["prompt"] == "There was"
    assert "messages" not in body
    expect(window.page.get_by_text("Side by side", exact=True)).to_be_hidden()


def test_the_answer_is_read_out_when_it_is_whole_and_not_word_by_word(window, chat_double):
    gate = Gate()
    chat_double.says("first ", gate, "second")
    window.send("Hello")
    expect(window.answers).to_have_text("first ")
    live = window.page.locator("#announce")
    expect(live).to_have_attribute("aria-live", "polite")
    expect(live).to_have_text("Answering")
    gate.open()
    expect(live).to_contain_text("tuned: first second")
    assert window.page.evaluate("document.querySelector('#conversation').closest('[aria-live]')") is None


SMALL_STORE = """(limit) => {
    const set = Storage.prototype.setItem;
    Storage.prototype.setItem = function (name, value) {
        if (value.length > limit) throw new DOMException("full", "QuotaExceededError");
        set.call(this, name, value);
    };
}"""


def test_where_the_tab_can_keep_little_token_probabilities_are_given_up_first(window):
    window.page.evaluate(SMALL_STORE, 1000)
    window.change_settings(probabilities=True)
    window.ask("many words " * 20)
    expect(window.page.locator(".token")).to_have_count(3)
    window.page.reload()
    expect(window.answers).to_contain_text("tuned heard: many words")
    expect(window.page.locator(".token")).to_have_count(0)


def test_a_conversation_that_cannot_be_kept_says_so_and_goes_on(window):
    window.page.evaluate(SMALL_STORE, 10)
    window.ask("Hello")
    expect(window.page.locator("#status")).to_have_text("This conversation is too long to be kept across a reload.")
    window.ask("Again")
    expect(window.answers).to_have_text(["tuned heard: Hello", "tuned heard: Again"])

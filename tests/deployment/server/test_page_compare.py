"""Models beside each other, the choice of one, the settings, and how sure a model was of its words."""

import math

import pytest
from chat_double import BreakOff, Gate, Piece

from mlxtune.deployment.server.page import PageModel

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
pytestmark = pytest.mark.slow

THREE = {
    "models": (
        PageModel("triage", "Sort.", False, None),
        PageModel("summary", "Shorten.", False, None),
        PageModel("base", None, False, None),
    )
}


def by_model(**answers):
    return lambda body: answers[body["model"]]


def test_base_and_tuned_answer_the_same_prompt_at_once(window, chat_double):
    gates = {"tuned": Gate(), "base": Gate()}
    chat_double.answer = lambda body: [body["model"], gates[body["model"]], "!"]
    window.page.locator("#compare").check()
    window.send("Hello")
    expect(window.answers).to_have_text(["tuned", "base"])  # neither waits for the other's end
    gates["base"].open()
    expect(window.answers).to_have_text(["tuned", "base!"])
    gates["tuned"].open()
    expect(window.answers).to_have_text(["tuned!", "base!"])
    one, two = chat_double.bodies
    assert {one.pop("model"), two.pop("model")} == {"tuned", "base"}
    assert one == two


def test_each_side_goes_on_with_its_own_answers(window, chat_double):
    window.page.locator("#compare").check()
    window.ask("one", "tuned", "base")
    window.ask("two", "tuned", "base")
    said = {body["model"]: body["messages"][2]["content"] for body in chat_double.bodies[2:]}
    assert said == {"tuned": "tuned heard: one", "base": "base heard: one"}


def test_words_that_only_one_side_says_are_marked(window, chat_double):
    chat_double.answer = by_model(tuned=["a red door, shut"], base=["a blue door, shut"])
    window.page.locator("#compare").check()
    window.ask("Hello", "tuned", "base")
    expect(window.page.locator(".answer mark")).to_have_text(["red", "blue"])
    expect(window.answers).to_have_text(["a red door, shut", "a blue door, shut"])
    window.change_settings(differences=False)
    expect(window.page.locator(".answer mark")).to_have_count(0)


def test_answers_that_are_the_same_are_said_to_be(window, chat_double):
    chat_double.answer = by_model(tuned=["same"], base=["same"])
    window.page.locator("#compare").check()
    window.ask("Hello", "tuned", "base")
    expect(window.page.locator(".verdict")).to_have_text("Both gave the same answer.")


def test_one_side_that_fails_leaves_the_other(window, chat_double):
    chat_double.answer = by_model(tuned=["fine"], base=["ha", BreakOff()])
    window.page.locator("#compare").check()
    window.ask("Hello", "tuned", "base")
    expect(window.answers).to_have_text(["fine", "ha"])
    expect(window.page.locator(".verdict")).to_have_count(0)
    chat_double.answer = by_model(base=["fine too"])
    window.again("base").click()
    expect(window.answers).to_have_text(["fine", "fine too"])
    assert [body["model"] for body in chat_double.bodies[2:]] == ["base"]


def test_stop_ends_both_sides(window, chat_double):
    chat_double.says("half", Gate())
    window.page.locator("#compare").check()
    window.send("Hello")
    expect(window.answers).to_have_text(["half", "half"])
    window.button("Stop").click()
    expect(window.page.locator(".answer.stopped")).to_have_count(2)


@pytest.mark.parametrize("chat_double", [THREE], indirect=True)
def test_another_adapter_answers_from_then_on_with_its_own_system_prompt(window, chat_double):
    window.ask("one", "triage")
    window.page.get_by_label("Model").select_option("summary")
    window.ask("two", "summary")
    assert [body["model"] for body in chat_double.bodies] == ["triage", "summary"]
    assert [body["messages"][0]["content"] for body in chat_double.bodies] == ["Sort.", "Shorten."]
    expect(window.page.locator(".answer h3")).to_have_text(["triage", "summary"])
    window.page.reload()
    expect(window.page.get_by_label("Model")).to_have_value("summary")


@pytest.mark.parametrize("chat_double", [THREE], indirect=True)
def test_base_is_offered_for_comparison_first_and_both_get_the_chosen_model_s_system_prompt(window, chat_double):
    window.page.locator("#compare").check()
    expect(window.page.get_by_label("with")).to_have_value("base")
    window.ask("one", "triage", "base")
    assert [body["messages"][0]["content"] for body in chat_double.bodies] == ["Sort.", "Sort."]


@pytest.mark.parametrize("chat_double", [THREE], indirect=True)
def test_choosing_the_model_on_the_other_side_swaps_them(window):
    window.page.locator("#compare").check()
    window.page.get_by_label("Model").select_option("base")
    expect(window.page.get_by_label("with")).to_have_value("triage")


def test_settings_go_along_by_their_names(window, chat_double):
    window.change_settings(
        temperature="0.7", max_tokens="5", top_p="0.9", top_k="40", min_p="0.05", seed="7", stop="END\n###",
        presence_penalty="0.5", frequency_penalty="-0.5",
    )  # fmt: skip
    window.ask("Hello")
    sent = chat_double.bodies[0]
    for name in ("model", "messages", "stream", "stream_options"):
        del sent[name]
    assert sent == {
        "temperature": 0.7,
        "max_tokens": 5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 7,
        "stop": ["END", "###"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "-1"),
        ("temperature", ""),
        ("top_p", "0"),
        ("top_p", "1.5"),
        ("top_k", "1.5"),
        ("max_tokens", "257"),
        ("seed", "-1"),
    ],
)
def test_a_value_out_of_range_is_marked_and_not_taken(window, chat_double, name, value):
    window.ask("before")
    window.change_settings(**{name: value})
    expect(window.page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
    window.ask("after")
    assert chat_double.bodies[1].keys() == chat_double.bodies[0].keys()
    assert chat_double.bodies[1].get(name) == chat_double.bodies[0].get(name)


def test_the_system_prompt_can_be_changed_cleared_and_brought_back(window, chat_double):
    window.change_settings(system="Be brief.")
    window.ask("one")
    window.button("Settings").click()
    window.button("None").click()
    window.ask("two")
    window.button("As in training").click()
    window.ask("three")
    # an empty one is sent, since the server fills in the training's where there is none
    systems = [body["messages"][0] for body in chat_double.bodies]
    assert [one["role"] for one in systems] == ["system"] * 3
    assert [one["content"] for one in systems] == ["Be brief.", "", "Answer in one word."]


def test_probabilities_are_asked_for_only_when_they_are_wanted(window, chat_double):
    window.ask("one")
    assert "logprobs" not in chat_double.bodies[0]
    window.change_settings(probabilities=True)
    window.ask("two")
    assert chat_double.bodies[1]["logprobs"] is True
    assert chat_double.bodies[1]["top_logprobs"] == 5


def test_pointing_at_a_token_tells_its_probability_and_the_others(window, chat_double):
    others = (("yes", math.log(0.25)), (" no", math.log(0.5)))
    chat_double.says(Piece("sure "), Piece("yes", logprob=math.log(0.25), top=others))
    window.change_settings(probabilities=True)
    window.ask("Hello")
    tip = window.page.get_by_role("tooltip")
    expect(tip).to_be_hidden()
    window.page.locator(".token", has_text="yes").hover()
    expect(tip.locator("tr")).to_have_text(["yes25.0 %", "␣no50.0 %"])
    expect(window.page.locator(".token.doubt-2")).to_have_text("yes")
    window.prompt.hover()
    expect(tip).to_be_hidden()


def test_tokens_are_reached_by_the_arrow_keys(window):
    window.change_settings(probabilities=True)
    window.ask("Hello")
    window.answers.focus()
    window.page.keyboard.press("ArrowRight")
    window.page.keyboard.press("ArrowRight")
    expect(window.page.get_by_role("tooltip")).to_contain_text("heard:")
    window.page.keyboard.press("Escape")
    expect(window.page.get_by_role("tooltip")).to_be_hidden()


def test_a_character_of_several_tokens_belongs_to_the_one_that_completes_it(window, chat_double):
    snowman = "☃".encode()
    halves = (b"a" + snowman[:1], snowman[1:])
    chat_double.says(*(Piece("a☃" if i else "", bytes=tuple(half)) for i, half in enumerate(halves)), "b")
    window.change_settings(probabilities=True)
    window.ask("Hello")
    expect(window.page.locator(".token")).to_have_text(["a", "☃", "b"])
    expect(window.answers).to_have_text("a☃b")


def test_in_the_older_form_parts_of_a_character_are_known_by_their_spelling(window):
    found = window.page.evaluate(
        """async (texts) => {
            const { tokenRanges } = await import("/page/tokens.js");
            const ranges = tokenRanges("a☃b", texts.map((text) => ({ text, bytes: null })));
            return ranges.map(({ start, end }) => "a☃b".slice(start, end));
        }""",
        ["a", r"\xe2\x98", r"\x83", "b"],
    )
    assert found == ["a", "", "☃", "b"]


def test_tokens_that_do_not_make_up_the_text_leave_it_as_it_is(window, chat_double):
    chat_double.says(Piece("text", bytes=tuple(b"other")))
    window.change_settings(probabilities=True)
    window.ask("Hello")
    expect(window.answers).to_have_text("text")
    expect(window.page.locator(".token")).to_have_count(0)


DIFFERENCES = [
    ("", "", [], []),
    ("a b c", "a b c", [], []),
    ("a  b\nc", "a b c", [], []),
    ("a b c", "a x c", ["b"], ["x"]),
    ("a b", "a b c d", [], ["c d"]),
    ("c d a b", "a b", ["c d"], []),
    ("a a a", "a a", ["a"], []),
    ("x a y b z", "a b", ["x", "y", "z"], []),
    ("größer, ja", "grösser, ja", ["größer"], ["grösser"]),
    ('{"a": 1}', '{"a": 2}', ["1"], ["2"]),
]


def test_a_difference_is_what_the_other_does_not_say(window):
    found = window.page.evaluate(
        """async (pairs) => {
            const { differences } = await import("/page/difference.js");
            return pairs.map(([a, b]) => {
                const texts = [a, b];
                return differences(a, b).map((ranges, i) => ranges.map(({start, end}) => texts[i].slice(start, end)));
            });
        }""",
        [[left, right] for left, right, _, _ in DIFFERENCES],
    )
    for (left, right, *expected), got in zip(DIFFERENCES, found, strict=True):
        if left == "a a a":
            assert [len(side) for side in got] == [1, 0]
        else:
            assert got == expected, (left, right)


def test_very_long_answers_are_compared_without_stalling_the_page(window):
    marked = window.page.evaluate(
        """async () => {
            const { differences } = await import("/page/difference.js");
            const words = (n, word) => Array.from({ length: n }, (_, i) => word + i).join(" ");
            return differences("same " + words(5000, "a"), "same " + words(5000, "b")).map((ranges) => ranges.length);
        }"""
    )
    assert marked == [1, 1]

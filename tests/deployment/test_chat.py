"""A conversation: who has heard what, what stopping, retrying and undoing leave, and what is saved of it."""

import json
import stat

import pytest
from tiny import tiny_model_folder
from whole_file import read_records

from mlxtune.data.example import Message
from mlxtune.data.normalize import normalize_stream
from mlxtune.deployment.answer import generate, open_answerer
from mlxtune.deployment.chat import INTERRUPTED, Chat
from mlxtune.deployment.prompts import Prompt
from mlxtune.deployment.served import open_served
from mlxtune.errors import DataError, OutputExistsError, UsageError
from mlxtune.inference.sampling import Sampling

TUNED, BASE = "tiny", "base"


@pytest.fixture(scope="module")
def served(tiny_run):
    return open_served([tiny_run], device="cpu")


@pytest.fixture(scope="module")
def alone(tiny_run):
    """What a model answers to turns, opened by itself."""
    models = {
        TUNED: open_answerer(tiny_run, device="cpu"),
        BASE: open_answerer(tiny_run.parent / "model", device="cpu"),
    }

    def answer(name, *turns, max_tokens=6):
        messages = tuple(Message(role, content) for role, content in turns)
        return generate(models[name], [Prompt(messages, "here")], max_tokens=max_tokens)[0].text

    return answer


@pytest.fixture
def chat(served):
    return Chat(served, Sampling(max_tokens=6))


def replies(pieces):
    """The whole answers, after a check that what came piece by piece is all of each."""
    found, texts = [], {}
    for heard in pieces:
        texts[heard.model] = texts.get(heard.model, "") + heard.text
        if heard.reply is not None:
            assert texts[heard.model] == heard.reply.text
            found.append(heard.reply)
    return found


def said(pieces):
    return {reply.model: reply.text for reply in replies(pieces)}


def ends_after(count):
    """Stops an answer at the ``count``th time that it is asked."""
    left = iter(range(count))
    return lambda: next(left, None) is None


SYSTEM = ("system", "Secretly.")


def test_the_tuned_model_answers_first_after_the_system_message_of_training(chat, alone):
    (reply,) = replies(chat.ask("Whisper x"))
    assert reply.text == alone(TUNED, SYSTEM, ("user", "Whisper x"))
    assert (reply.model, reply.prompt, chat.system) == (TUNED, "Whisper x", "Secretly.")
    assert reply.completion_tokens <= 6


def test_a_turn_goes_on_from_those_before_it(chat, alone):
    first = said(chat.ask("Whisper x"))[TUNED]
    second = said(chat.ask("And y"))[TUNED]
    assert second == alone(TUNED, SYSTEM, ("user", "Whisper x"), ("assistant", first), ("user", "And y"))


def test_the_base_goes_on_from_what_the_tuned_model_said(chat, alone):
    first = said(chat.ask("Whisper x"))[TUNED]
    chat.choose(BASE)
    second = said(chat.ask("And y"))
    turns = (SYSTEM, ("user", "Whisper x"), ("assistant", first), ("user", "And y"))
    assert second == {BASE: alone(BASE, *turns)}


def test_both_go_on_from_their_own_answers(chat, alone):
    chat.choose(TUNED, BASE)
    first = said(chat.ask("Whisper x"))
    second = said(chat.ask("And y"))
    assert first[TUNED] != first[BASE]
    for name in (TUNED, BASE):
        turns = (SYSTEM, ("user", "Whisper x"), ("assistant", first[name]), ("user", "And y"))
        assert second[name] == alone(name, *turns)


def test_a_system_message_of_ones_own_holds_until_it_is_taken_back(chat, alone):
    chat.system = "Loudly."
    assert said(chat.ask("x"))[TUNED] == alone(TUNED, ("system", "Loudly."), ("user", "x"))
    chat.undo()
    chat.system = None
    assert said(chat.ask("x"))[TUNED] == alone(TUNED, SYSTEM, ("user", "x"))


def test_what_is_stopped_keeps_what_came_until_then(served, alone):
    chat = Chat(served, Sampling(max_tokens=200))
    (reply,) = replies(chat.ask("Whisper x", ends_after(12)))
    assert reply.finish_reason == INTERRUPTED
    assert 0 < reply.completion_tokens < 12
    whole = alone(TUNED, SYSTEM, ("user", "Whisper x"), max_tokens=200)
    assert whole.startswith(reply.text)
    assert len(reply.text) < len(whole)
    assert chat.turns[-1].replies == {TUNED: reply}


def test_an_answer_that_nobody_hears_to_its_end_is_kept_as_far_as_it_came(served):
    chat = Chat(served, Sampling(max_tokens=50))
    pieces = chat.ask("Whisper x")
    next(pieces)
    pieces.close()
    assert chat.turns[-1].replies[TUNED].finish_reason == INTERRUPTED
    chat.sampling = Sampling(max_tokens=3)
    assert len(replies(chat.ask("And y"))) == 1


def test_a_stop_between_two_answers_leaves_the_second_unasked(chat):
    chat.choose(TUNED, BASE)
    found = replies(chat.ask("Whisper x", lambda: bool(chat.turns[-1].replies)))
    assert [reply.model for reply in found] == [TUNED]
    assert found[0].finish_reason != INTERRUPTED


def test_what_got_no_answer_is_as_if_it_had_not_been_said(chat, alone):
    assert replies(chat.ask("Never mind", lambda: True)) == []
    finish(chat, "And this?", TUNED, " \n")
    assert said(chat.ask("x"))[TUNED] == alone(TUNED, SYSTEM, ("user", "x"))


def test_a_retry_draws_otherwise_and_takes_the_answers_place(served):
    chat = Chat(served, Sampling(max_tokens=12, temperature=2.0, seed=3))
    texts = [said(chat.ask("Whisper x"))[TUNED], said(chat.retry())[TUNED]]
    assert texts[0] != texts[1]
    assert [turn.replies[TUNED].text for turn in chat.turns] == texts[1:]


def test_a_retry_stopped_before_it_began_leaves_the_answer(chat):
    text = said(chat.ask("Whisper x"))[TUNED]
    assert replies(chat.retry(lambda: True)) == []
    assert chat.turns[-1].replies[TUNED].text == text


def test_a_retry_by_the_other_model_stands_beside_the_first_answer(chat):
    said(chat.ask("Whisper x"))
    chat.choose(BASE)
    said(chat.retry())
    assert chat.turns[-1].replies.keys() == {TUNED, BASE}


def test_undo_takes_back_the_last_of_two_equal_turns(chat, alone):
    first = said(chat.ask("Whisper x"))[TUNED]
    said(chat.ask("Whisper x"))
    assert chat.undo().text == "Whisper x"
    turns = (SYSTEM, ("user", "Whisper x"), ("assistant", first), ("user", "y"))
    assert said(chat.ask("y"))[TUNED] == alone(TUNED, *turns)


@pytest.mark.parametrize("wrong", ["", "  \n", "a\0b", "a\ud800b"])
def test_what_is_no_message_is_refused_and_was_not_said(chat, wrong):
    with pytest.raises(DataError):
        list(chat.ask(wrong))
    assert chat.turns == []


def test_nothing_is_undone_or_retried_before_something_is_said(chat):
    for act in (chat.undo, lambda: list(chat.retry())):
        with pytest.raises(UsageError, match="nothing was said"):
            act()


def test_an_answer_ends_where_the_context_does_and_a_longer_conversation_is_refused(served):
    chat = Chat(served, Sampling(max_tokens=500))
    before = len(served.models[TUNED].asking.encode(Prompt((Message("user", "x"),), "here"))) - 1
    (reply,) = replies(chat.ask("x" * (2048 - before - 4)))
    assert reply.prompt_tokens == 2044
    assert reply.completion_tokens <= 4
    with pytest.raises(DataError, match="2,048") as caught:
        list(chat.ask("y"))
    assert "/undo" in caught.value.remedy
    assert len(chat.turns) == 1


def test_a_model_alone_has_nothing_to_be_compared_with(tiny_run):
    chat = Chat(open_served([tiny_run.parent / "model"], device="cpu"), Sampling(max_tokens=3))
    assert chat.names == ("model",)
    with pytest.raises(UsageError, match="one model"):
        chat.choose("model", BASE)
    assert list(said(chat.ask("x"))) == ["model"]


# --- plain text


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tiny_model_folder(tmp_path_factory.mktemp("plain") / "plain", chat_template=None)
    return open_served([folder], device="cpu")


def test_a_model_of_plain_text_answers_each_message_by_itself(plain):
    chat = Chat(plain, Sampling(max_tokens=3))
    assert chat.is_raw
    replies(chat.ask("Why?"))
    (reply,) = replies(chat.ask("abc"))
    assert reply.prompt_tokens == 3


def test_a_model_of_plain_text_has_no_system_message(plain):
    with pytest.raises(UsageError, match="without a system message"):
        Chat(plain, Sampling(max_tokens=3), system="Loudly.")


# --- saving


def finish(chat, text, name, answer, reason="stop"):
    """One turn with an answer that is known."""
    from mlxtune.deployment.chat import Reply, Turn

    reply = Reply(name, text, answer, reason, 1, 1)
    chat.turns.append(Turn(text, {name: reply}))
    return chat.turns[-1]


def examples(path):
    return list(normalize_stream(read_records(path)))


def test_what_is_saved_is_a_row_for_each_model_as_far_as_its_last_whole_answer(chat, tmp_path):
    turn = finish(chat, "one", TUNED, "eins")
    turn.replies[BASE] = finish(Chat(chat._served, chat.sampling), "one", BASE, "uno").replies[BASE]
    finish(chat, "two", TUNED, "zwei")
    finish(chat, "three", TUNED, "dr", INTERRUPTED)
    chat.save(tmp_path / "chat.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "chat.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == [TUNED, BASE]
    assert [[turn["content"] for turn in row["messages"]] for row in rows] == [
        ["Secretly.", "one", "eins", "two", "zwei"],
        ["Secretly.", "one", "uno"],
    ]


def test_what_was_stopped_or_cut_in_between_is_not_to_be_learned(chat):
    finish(chat, "one", TUNED, "ei", INTERRUPTED)
    finish(chat, "two", TUNED, "zw", "length")
    finish(chat, "three", TUNED, "drei")
    (row,) = chat.rows()
    answers = [turn for turn in row["messages"] if turn["role"] == "assistant"]
    assert [turn.get("train") for turn in answers] == [False, False, None]


def test_data_reads_what_was_saved(chat, tmp_path):
    finish(chat, "one", TUNED, "ei", INTERRUPTED)
    finish(chat, "zwölf \N{LINE SEPARATOR}\n", TUNED, "drei")
    chat.save(tmp_path / "chat.jsonl")
    (example,) = examples(tmp_path / "chat.jsonl")
    assert [(turn.role, turn.content, turn.weight) for turn in example.messages] == [
        ("system", "Secretly.", 1.0),
        ("user", "one", 1.0),
        ("assistant", "ei", 0.0),
        ("user", "zwölf \N{LINE SEPARATOR}\n", 1.0),
        ("assistant", "drei", 1.0),
    ]


def test_plain_text_is_saved_as_texts(plain, tmp_path):
    chat = Chat(plain, Sampling(max_tokens=3))
    finish(chat, "one, ", "plain", "two")
    finish(chat, "two, ", "plain", "th", "length")
    chat.save(tmp_path / "chat.jsonl")
    assert [example.text for example in examples(tmp_path / "chat.jsonl")] == ["one, two"]


def test_a_chat_replaces_what_it_saved_and_nothing_else(chat, tmp_path):
    path, other = tmp_path / "chat.jsonl", tmp_path / "other.jsonl"
    other.write_text("{}")
    finish(chat, "one", TUNED, "eins")
    chat.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finish(chat, "two", TUNED, "zwei")
    chat.save(path)
    assert "zwei" in path.read_text()
    with pytest.raises(OutputExistsError, match="exists already"):
        chat.save(other)
    assert other.read_text() == "{}"


def test_there_is_nothing_to_save_without_a_whole_answer_or_under_another_kinds_name(chat, tmp_path):
    finish(chat, "one", TUNED, "ei", INTERRUPTED)
    with pytest.raises(UsageError, match="no whole answer"):
        chat.save(tmp_path / "chat.jsonl")
    finish(chat, "two", TUNED, "zwei")
    with pytest.raises(UsageError, match="JSON Lines") as caught:
        chat.save(tmp_path / "chat.txt")
    assert caught.value.remedy == "name it chat.txt.jsonl"
    assert list(tmp_path.iterdir()) == []

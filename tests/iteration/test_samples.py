"""What the model writes to validation rows while it trains: evaluation's answers, beside a run that is the same."""

import json
import shutil
import stat
from types import SimpleNamespace

import mlx.core as mx
import pytest
from run_steps import adapter_bytes, stopping_after, train, without_timings
from tiny import tiny_recipe, tiny_row

from mlxtune.device.choose import Device
from mlxtune.device.memory import MemoryLimit
from mlxtune.device.precision import GPU_BFLOAT16
from mlxtune.errors import DataError
from mlxtune.iteration import opening
from mlxtune.iteration import samples as module
from mlxtune.iteration.forecast import forecast
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.iteration.run import resume_run
from mlxtune.iteration.samples import CONTINUATION, questions_of
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.metrics import read_metrics

TWO = "evaluation.samples=2"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    return tiny_recipe(tmp_path)


def ready_of(recipe, *overrides):
    return make_ready(open_recipe(load_recipe(recipe, overrides).recipe, device="cpu"))


def write_rows(recipe, *rows, splits=("train", "valid")):
    for split in splits:
        (recipe.parent / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "valid_samples.jsonl").read_text().splitlines()]


def watched():
    """A watch, and what it was warned of."""
    told = []
    return Watch(warned=told.append), told


# --- what is written


def test_the_first_rows_are_answered_as_evaluation_has_them_answered(recipe, tmp_path):
    shutil.copy(tmp_path / "valid.jsonl", tmp_path / "test.jsonl")
    train(recipe, tmp_path / "run", TWO, "training.epochs=4", score=True)
    manifest = json.loads((tmp_path / "run/run.json").read_text())
    written = lines(tmp_path / "run")
    config = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert config["mlxtune"]["step"] == manifest["finished"]["steps"], "else the adapter is of another step"
    assert [line["step"] for line in written] == [12, 12], "those of the latest look alone"
    assert [line["where"].rpartition("/")[2] for line in written] == ["valid.jsonl:1", "valid.jsonl:2"]
    scored = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    names = ("prompt", "reference", "tuned")
    assert [[line[name] for name in names] for line in written] == [
        [line[name] for name in names] for line in scored[:2]
    ]
    assert len(written[0]["tuned"]) <= 8, "the task's max_tokens, and a token is a byte here"


def test_each_look_tells_what_its_answers_took_beside_the_validation_itself(recipe, tmp_path):
    train(recipe, tmp_path / "run", TWO)
    looks = [line for line in read_metrics(tmp_path / "run/metrics.jsonl") if "valid_loss" in line]
    assert [line["step"] for line in looks] == [2, 4, 6]
    assert all(line.keys() == {"step", "valid_loss", "valid_seconds", "samples_seconds"} for line in looks)


def test_an_answer_has_64_tokens_at_most(recipe, tmp_path):
    train(recipe, tmp_path / "run", TWO, "evaluation.tasks=[]", "training.max_steps=2", "training.learning_rate=1e-9")
    assert max(len(line["tuned"]) for line in lines(tmp_path / "run")) <= 64


def test_texts_are_in_one_file_that_its_owner_alone_can_read(recipe, tmp_path):
    write_rows(recipe, *(tiny_row(f"hush {number}") for number in range(4)), splits=["valid"])
    train(recipe, tmp_path / "run", TWO, score=True)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path.name for path in files if b"hush" in path.read_bytes()] == ["valid_samples.jsonl"]
    assert stat.S_IMODE((tmp_path / "run/valid_samples.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize("override", ["evaluation.samples=0", "data.valid=null"])
def test_nothing_is_written_where_none_is_wanted_or_there_are_no_rows(recipe, tmp_path, override):
    train(recipe, tmp_path / "run", TWO, override, "training.max_steps=2")
    assert not (tmp_path / "run/valid_samples.jsonl").exists()
    assert all("samples_seconds" not in line for line in read_metrics(tmp_path / "run/metrics.jsonl"))


# --- what is learned


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method={type: dora, rank: 2, dropout: 0.1}"],
        ["method={type: full, layers: {top: 1}}", "training.learning_rate=1e-3"],
        ["method.layers={top: 1}", "training.cache_frozen_prefix=on"],
        ["training.grad_checkpoint={every: 1}", "training.gradient_accumulation_steps=2", "training.batch_size=2"],
    ],
    ids=["lora", "dora", "full", "frozen blocks read once", "recomputed blocks"],
)
def test_not_a_bit_that_is_learned_depends_on_them(recipe, tmp_path, overrides):
    for name, count in (("without", 0), ("with", 2)):
        train(recipe, tmp_path / name, *overrides, f"evaluation.samples={count}")
    assert adapter_bytes(tmp_path / "with") == adapter_bytes(tmp_path / "without")
    assert without_timings(tmp_path / "with") == without_timings(tmp_path / "without")
    assert len(lines(tmp_path / "with")) == 2


def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped(recipe, tmp_path):
    train(recipe, tmp_path / "whole", TWO)
    watch, _ = stopping_after(3)
    assert train(recipe, tmp_path / "parts", TWO, watch=watch).interrupted
    assert {line["step"] for line in lines(tmp_path / "parts")} == {2}
    resume_run(tmp_path / "parts", device="cpu", score=False)
    assert adapter_bytes(tmp_path / "parts") == adapter_bytes(tmp_path / "whole")
    assert without_timings(tmp_path / "parts") == without_timings(tmp_path / "whole")
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for the CPU with g++")


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=[NEEDS_COMPILER, pytest.mark.slow])])
@pytest.mark.parametrize("method", ["{rank: 2}", "{type: full, layers: {top: 1}}"])
def test_in_a_gpus_number_formats_and_shapes_too(recipe, tmp_path, monkeypatch, method, compiles):
    device = Device("cpu", GPU_BFLOAT16, "a test's", compiles=compiles)
    monkeypatch.setattr(opening, "open_device", lambda _: device)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    if compiles:
        mx.enable_compile()
    try:
        for name, count in (("without", 0), ("with", 2)):
            overrides = [f"method={method}", f"evaluation.samples={count}", "training.max_steps=3"]
            watch, told = watched()
            train(recipe, tmp_path / name, *overrides, "training.learning_rate=1e-3", watch=watch)
            assert told == []
    finally:
        mx.disable_compile()
    assert adapter_bytes(tmp_path / "with") == adapter_bytes(tmp_path / "without")
    assert [line["step"] for line in lines(tmp_path / "with")] == [3, 3]


# --- which rows, and what they ask


def asked(recipe, *overrides):
    ready = ready_of(recipe, TWO, *overrides)
    decode = ready.opened.model.tokenizer.decode
    return [(one.prompt, one.reference, decode(one.token_ids)) for one in questions_of(ready)]


def test_a_prompt_and_its_completion(recipe):
    write_rows(recipe, *({"prompt": f"My {word}?", "completion": "yes"} for word in ("lamp", "door", "clock")))
    (first, second) = asked(recipe, "evaluation.tasks=[]")
    assert first[:2] == ("My lamp?", "yes")
    assert first[2].endswith("<|im_start|>user\nMy lamp?<|im_end|>\n<|im_start|>assistant\n")
    assert second[0] == "My door?"


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_of_a_pair_the_prompt_and_the_better_answer(recipe, tmp_path, objective):
    write_rows(recipe, *({"prompt": f"My {i}?", "chosen": "yes, sir", "rejected": "no"} for i in range(8)))
    overrides = [f"objective={{type: {objective}}}", "evaluation.tasks=[]", "data.test=null", "data.max_seq_length=128"]
    assert [one[:2] for one in asked(recipe, *overrides)] == [("My 0?", "yes, sir"), ("My 1?", "yes, sir")]
    train(recipe, tmp_path / "run", *overrides, TWO, "training.max_steps=2")
    assert [line["prompt"] for line in lines(tmp_path / "run")] == ["My 0?", "My 1?"]


def test_a_text_ends_where_a_task_says_that_the_answer_begins(recipe):
    write_rows(recipe, *({"text": f"Q: my {word}?\nA: yes"} for word in ("lamp", "door")), splits=("train", "valid"))
    task = r'evaluation.tasks=[{name: short, scorer: exact_match, answer_after: "\nA:"}]'
    first, _ = asked(recipe, task, "data.test=null")
    assert first == ("Q: my lamp?\nA:", "yes", "Q: my lamp?\nA:")


def test_of_a_raw_text_the_beginning_is_gone_on_with(recipe):
    long = "word " * 400
    write_rows(recipe, {"text": "One fine day a fox came by."}, {"text": long}, {"text": "x"})
    overrides = ["evaluation.tasks=[]", "data.test=null", "data.max_seq_length=2048"]
    short, second = asked(recipe, *overrides)
    assert short == ("One fine day", "a fox came by.", "One fine day")
    assert second[0] == long[:199]
    assert second[1] == f"{long[200 : 200 + CONTINUATION]}…"


def test_a_row_whose_prompt_is_longer_than_a_row_may_be_is_passed_over(recipe):
    rows = [{"prompt": "very long " * 30 * (number % 2), "completion": f"{number}"} for number in range(4)]
    write_rows(recipe, *({**row, "prompt": row["prompt"] or "short"} for row in rows))
    overrides = ["data.overflow=truncate_left", "data.max_seq_length=150", "evaluation.tasks=[]"]
    assert [one[:2] for one in asked(recipe, *overrides)] == [("short", "0"), ("short", "2")]


def test_a_row_whose_prompt_cannot_be_made_is_passed_over(recipe, monkeypatch):
    ready, original = ready_of(recipe, TWO), module.Renderer.prompt

    def prompt(self, example, answer_after):
        if example.where.endswith(":1"):
            raise DataError("the template refuses")
        return original(self, example, answer_after)

    monkeypatch.setattr(module.Renderer, "prompt", prompt)
    assert [one.where.rpartition(":")[2] for one in questions_of(ready)] == ["2", "3"]


def test_answers_that_a_reward_was_made_of_are_not_written_again(recipe, tmp_path, monkeypatch):
    write_rows(
        recipe, *({"prompt": f"My {i}?", "completion": "yes"} for i in range(4)), splits=("train", "valid", "test")
    )
    monkeypatch.setattr(module, "answers_of", lambda *_: pytest.fail("they are there already"))
    vowel = "evaluation.tasks=[{name: vowel, scorer: regex, pattern: '[aeiou]', max_tokens: 6}]"
    drawn = "objective={type: grpo, max_tokens: 6, group_size: 2}"
    watch, told = watched()
    train(recipe, tmp_path / "run", vowel, drawn, TWO, "training.max_steps=2", watch=watch)
    assert [(line["prompt"], line["reference"]) for line in lines(tmp_path / "run")] == [
        ("My 0?", "yes"),
        ("My 1?", "yes"),
    ]
    assert told == []


# --- what goes wrong


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[malloc] Unable to allocate 123 bytes."), "not enough memory"),
        (ValueError("a row's own words"), "ValueError"),
        (OSError(28, "No space left on device", "a row's own words"), "OSError"),
    ],
    ids=str,
)
def test_a_failure_is_told_once_in_no_rows_words_and_the_run_goes_on(recipe, tmp_path, monkeypatch, error, said):
    calls = []

    def fails(*_, **__):
        calls.append(1)
        raise error

    train(recipe, tmp_path / "without", "evaluation.samples=0")
    monkeypatch.setattr(module, "generate", fails)
    watch, told = watched()
    result = train(recipe, tmp_path / "run", TWO, watch=watch)
    (warning,) = told
    assert said in warning
    log = (tmp_path / "run/logs/attempt_1.log").read_text()
    assert warning in log
    assert "own words" not in log + warning
    assert (result.steps, len(calls)) == (6, 1), "three looks, and it was tried at the first alone"
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(tmp_path / "without")
    assert not (tmp_path / "run/valid_samples.jsonl").exists()


def test_where_no_row_can_be_asked_that_is_told_once(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "questions_of", lambda _: [])
    watch, told = watched()
    train(recipe, tmp_path / "run", TWO, watch=watch)
    assert told == [
        "no more answers to rows of data.valid are shown while it trains: none of its first rows can be asked"
    ]


def test_a_wish_to_end_is_no_failure():
    with pytest.raises(KeyboardInterrupt), module.forgiven(pytest.fail):
        raise KeyboardInterrupt


# --- what a plan says of them


def test_a_plan_counts_their_seconds_and_their_memory(recipe, tmp_path, monkeypatch):
    limit = MemoryLimit(1 << 40, "plenty")
    counted = []
    found = forecast(ready_of(recipe, "evaluation.samples=3"), limit)
    run = train(recipe, tmp_path / "run", "evaluation.samples=3")
    assert found.peak_memory_bytes == pytest.approx(run.peak_memory_bytes, rel=0.1)

    def try_samples(ready):
        counted.append(len(questions_of(ready)))
        return SimpleNamespace(seconds=1000.0, peak_bytes=1 << 39)

    monkeypatch.setattr("mlxtune.iteration.forecast.try_samples", try_samples)
    with_them = forecast(ready_of(recipe, "evaluation.samples=3"), limit)
    assert with_them.validation_seconds == pytest.approx(3 * 1000, rel=0.1), "at each of three looks"
    assert with_them.peak_memory_bytes > 1 << 39
    assert counted == [3]


@pytest.mark.parametrize("error", [RuntimeError("[malloc] Unable to allocate 1 byte."), ValueError("odd")], ids=str)
def test_a_plan_of_rows_that_cannot_be_answered_is_one_without_them(recipe, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(module, "generate", fails)
    assert forecast(ready_of(recipe, TWO), MemoryLimit(1 << 40, "plenty")).validation_seconds > 0

"""A run that learns from answers that it draws: rewards rise, it goes on exactly, and all else is refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from families import family_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from run_steps import adapter_bytes, stopping_after, train, without_timings
from tiny import tiny_recipe

from mlxtune.cli import main
from mlxtune.data.render import Rendered
from mlxtune.errors import AdapterError, DataError, RecipeError, UsageError
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.iteration.rollouts import Drawn, answers_to, draw, groups, log_probabilities, standing_in, starting
from mlxtune.iteration.run import resume_run
from mlxtune.iteration.steps import make_training
from mlxtune.iteration.trial import prompts_of_rows
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.metrics import read_metrics
from mlxtune.training.frozen_prefix import FrozenPrefix

WORDS = ["lamp", "kettle", "door", "chair", "radio", "clock", "stove", "phone"]
VOWEL = "{name: vowel, scorer: regex, pattern: '[aeiou]', max_tokens: 6}"
GROUP = 4


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Prompts whose answers are right where they have a vowel."""
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    path = tiny_recipe(tmp_path)
    rows = [{"prompt": f"My {word}?", "completion": "yes"} for word in WORDS]
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def grpo(**more):
    given = {"type": "grpo", "max_tokens": 6, "group_size": GROUP, **more}
    return f"objective={json.dumps(given)}"


BASE = (f"evaluation.tasks=[{VOWEL}]", "training.batch_size=4", "training.epochs=50", "evaluation.forgetting=false")
QUICK = (*BASE, "training.learning_rate=0.02", "evaluation.every_steps=4", "checkpoint.every_steps=2")

SAME = "method.dropout=0"
"""A token is as likely at each reading, as several updates of the same answers want it."""


def steps(run_dir):
    return [line for line in read_metrics(run_dir / "metrics.jsonl") if "loss" in line]


def ready_for(recipe, *overrides):
    return make_ready(open_recipe(load_recipe(recipe, [*QUICK, *overrides]).recipe, device="cpu"))


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"loss": "dr_grpo", "beta": 0.0}, marks=pytest.mark.slow, id="dr. grpo, set free"),
        pytest.param({"num_iterations": 2, "beta": 0.01}, marks=pytest.mark.slow, id="two updates of the same answers"),
    ],
)
def test_the_reward_rises(recipe, tmp_path, more):
    letters = "evaluation.tasks=[{name: early, scorer: regex, pattern: '[a-m]', max_tokens: 4}]"
    quick = ("training.learning_rate=0.02", "training.lr_schedule=constant", "evaluation.every_steps=10")
    sharp = "method.modules_to_save=[norm, embed_tokens]"  # without, a network so small is never sure of a letter
    drawn = grpo(max_tokens=4, group_size=8, **more)
    overrides = (*BASE, SAME, sharp, drawn, letters, *quick, "training.max_steps=20")
    result = train(recipe, tmp_path / "run", *overrides, score=True)
    rewards = [line["reward"] for line in steps(tmp_path / "run")]
    assert np.mean(rewards[:3]) < 0.5
    assert np.mean(rewards[-5:]) > 0.75
    valid = [line["valid_loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "valid_loss" in line]
    assert valid[-1] == -1.0, "less the mean reward of what is answered greedily"
    assert result.scores is not None
    base, tuned = (result.scores[model]["early.regex"]["mean"] for model in ("base", "tuned"))
    assert (base, tuned) == (0, 1)


def test_what_a_step_tells(recipe, tmp_path):
    train(recipe, tmp_path / "run", *QUICK, SAME, grpo(num_iterations=2), "training.max_steps=4")
    first, second, third, _ = steps(tmp_path / "run")
    assert first["kl"] == pytest.approx(0, abs=1e-5), "nothing is learned yet"
    assert first["clipped_share"] == 0
    assert first["loss"] == pytest.approx(-first["reward"], abs=1e-4)
    assert second["reward"] == first["reward"], "the same answers"
    assert second["kl"] > 1e-5
    assert third["reward_deviation"] != first["reward_deviation"], "and then others"
    assert first["target_tokens"] == pytest.approx(4 * GROUP * first["answer_tokens"])


@pytest.mark.parametrize("more", [{}, {"num_iterations": 3}], ids=["one update", "three updates of the same answers"])
def test_a_stopped_run_comes_to_what_it_would_have_come_to(recipe, tmp_path, more):
    overrides = (*QUICK, *([SAME] if more else []), grpo(**more), "training.max_steps=6", "checkpoint.every_steps=6")
    train(recipe, tmp_path / "whole", *overrides)
    watch, _ = stopping_after(4)
    train(recipe, tmp_path / "parts", *overrides, watch=watch)
    kept = list((tmp_path / "parts" / "checkpoints").glob("step_*/drawn.safetensors"))
    assert len(kept) == bool(more), "answers are kept as long as updates are made of them"
    resume_run(tmp_path / "parts", device="cpu", score=False)
    assert adapter_bytes(tmp_path / "parts") == adapter_bytes(tmp_path / "whole")
    assert without_timings(tmp_path / "parts") == without_timings(tmp_path / "whole")


def test_so_does_one_that_is_stopped_while_it_reads_what_it_drew(recipe, tmp_path):
    overrides = (
        *QUICK,
        grpo(),
        "training.max_steps=3",
        "training.batch_size=2",
        "training.gradient_accumulation_steps=2",
    )
    train(recipe, tmp_path / "whole", *overrides)
    asked = []

    def should_stop():
        asked.append(True)
        return len(asked) == 6  # it is asked before each step and before each of its two batches

    train(recipe, tmp_path / "parts", *overrides, watch=Watch(should_stop=should_stop))
    (kept,) = (tmp_path / "parts" / "checkpoints").glob("step_*/drawn.safetensors")
    assert (kept.parent / "window.safetensors").exists()
    resume_run(tmp_path / "parts", device="cpu", score=False)
    assert adapter_bytes(tmp_path / "parts") == adapter_bytes(tmp_path / "whole")
    assert without_timings(tmp_path / "parts") == without_timings(tmp_path / "whole")


def test_an_update_is_the_same_however_its_answers_are_read(recipe, tmp_path):
    common = (*QUICK, grpo(beta=0.1), "training.max_steps=2", "training.learning_rate=0.001")
    train(recipe, tmp_path / "one", *common, "training.batch_size=8")
    train(recipe, tmp_path / "four", *common, "training.batch_size=8", "training.grad_checkpoint={every: 1}")
    for one, four in zip(*(steps(tmp_path / name) for name in ("one", "four")), strict=True):
        for name in ("loss", "reward", "grad_norm", "kl", "answer_tokens"):
            assert one[name] == pytest.approx(four[name], rel=1e-3, abs=1e-5)


def test_a_drawn_row_is_its_prompt_and_an_answer_with_its_end(recipe):
    ready = ready_for(recipe, grpo(max_tokens=12))
    tokenizer, prompts = ready.opened.model.tokenizer, ready.prompts["train"]
    drawn = draw(ready, range(len(WORDS)), step=0)
    assert len(drawn.rows) == len(WORDS) * GROUP
    ended = 0
    for number, row in enumerate(drawn.rows):
        prompt = prompts.token_ids[number // GROUP]
        assert row.token_ids[: len(prompt)].tolist() == list(prompt)
        assert row.where == f"{recipe.parent / 'train.jsonl'}:{number // GROUP + 1}"
        answer = row.token_ids[row.is_target].tolist()
        assert len(answer) == len(row.token_ids) - len(prompt) <= 12
        ends = [token in tokenizer.eos_token_ids for token in answer]
        assert not any(ends[:-1])
        assert ends[-1] != bool(drawn.told[number, 3]), "cut, or ended by itself"
        ended += ends[-1]
    assert 0 < ended < len(drawn.rows)
    assert len({tuple(row.token_ids.tolist()) for row in drawn.rows[:GROUP]}) > 1, "a group's answers differ"


def test_answers_are_those_of_the_seed_and_the_step(recipe):
    ready = ready_for(recipe, grpo())
    first, again, other = (draw(ready, [0, 1], step=step) for step in (0, 0, 1))
    same = lambda one, two: all(map(np.array_equal, *([row.token_ids for row in each.rows] for each in (one, two))))  # noqa: E731
    assert same(first, again)
    assert not same(first, other)


def test_the_start_is_the_network_before_any_step(recipe):
    ready = ready_for(recipe, grpo())
    rows = draw(ready, [0], step=0).rows
    before = np.concatenate(log_probabilities(ready, rows))
    network = ready.state.network
    moved = {name: array + 0.1 for name, array in tree_flatten(network.trainable_parameters())}
    network.load_weights(list(moved.items()), strict=False)
    after = np.concatenate(log_probabilities(ready, rows))
    with starting(ready):
        compared = np.concatenate(log_probabilities(ready, rows))
    np.testing.assert_array_equal(compared, before)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(np.concatenate(log_probabilities(ready, rows)), after)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6),
    kinds=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_drawn_answers_are_kept_to_the_last_bit(lengths, kinds, seed):
    random = np.random.default_rng(seed)
    rows = [
        Rendered(random.integers(0, 99, prompt + answer).astype(np.int32), np.arange(prompt + answer) >= prompt, "a:1")
        for prompt, answer in lengths
    ]
    told = random.normal(size=(len(rows), 4)).astype(np.float32)
    values = [[random.normal(size=answer).astype(np.float32) for _, answer in lengths] for _ in range(kinds)]
    drawn = Drawn(rows, told, values)
    found = Drawn.of_arrays(drawn.arrays(), ["a:1"] * len(rows))
    for one, other in zip(drawn.rows, found.rows, strict=True):
        np.testing.assert_array_equal(one.token_ids, other.token_ids)
        np.testing.assert_array_equal(one.is_target, other.is_target)
    np.testing.assert_array_equal(drawn.told, found.told)
    for kind, other in zip(drawn.log_probabilities, found.log_probabilities, strict=True):
        for one, same in zip(kind, other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_rewards_are_weighed(recipe):
    rewards = [{"task": "vowel", "weight": 2.0}, {"task": "said", "metric": "exact_match", "weight": -0.5}]
    tasks = f"evaluation.tasks=[{VOWEL}, {{name: said, scorer: exact_match}}, {{name: other, scorer: json_valid}}]"
    prompts = ready_for(recipe, grpo(rewards=rewards), tasks).prompts["train"]
    assert [prompts.reward(0, answer) for answer in ("zz", "ab", "yes")] == [0, 2, 1.5]
    own = ready_for(recipe, grpo(), tasks).prompts["train"]
    assert [own.reward(0, answer) for answer in ("zz", "ab", "yes", "1", '"a"')] == [0, 1, 2, 1, 2], "one each"


def test_full_fine_tuning_draws_with_what_it_computes_with(recipe, tmp_path):
    train(recipe, tmp_path / "run", *QUICK, grpo(beta=0.0), "method={type: full}", "training.max_steps=6")
    assert len(steps(tmp_path / "run")) == 6


def test_plan_says_what_it_takes_at_most(recipe):
    command = [
        "plan",
        str(recipe),
        *QUICK,
        SAME,
        grpo(num_iterations=2),
        "training.epochs=3",
        "--json",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(main, [*command, "--quiet"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["steps"] == 3 * 2 * 2, "epochs, batches an epoch, updates a batch"
    assert found["steps_an_epoch"] == 4
    assert found["rows"] == len(WORDS)
    assert found["target_tokens_an_epoch"] == len(WORDS) * GROUP * 6
    assert found["seconds"] > 0
    assert found["validation_seconds"] > 0


def test_no_part_is_larger_than_one_of_the_longest_answers(recipe):
    ready = ready_for(recipe, grpo(max_tokens=12))
    for positions in (100, 150, 200, 300):
        parts = {}
        for name, one in (("drawn", ready), ("foretold", standing_in(ready))):
            rows = one.opened.datasets["train"].rows
            training = make_training(one, rows, FrozenPrefix(one.reader, None))
            own = [(0, 1, 2), (3,)]
            batches = training.draw(one.state, own) if training.draw else groups(range(4), one.objective.drawing)
            parts[name] = [(len(part), training.make_batch(part)) for part in training.parts(batches, positions)]
        ready.state.drawn = None
        for (rows, drawn), (same, longest) in zip(parts["drawn"], parts["foretold"], strict=True):
            assert rows == same
            assert drawn.token_ids.size <= longest.token_ids.size
            assert drawn.target_id.size <= longest.target_id.size


def test_a_run_takes_no_more_memory_than_the_plan_says(recipe, tmp_path):
    def said(*command):  # in a process of its own: whatever is in memory already counts
        drawn = grpo(group_size=16, max_tokens=44)  # so that learning takes more than drawing, whose peak is by chance
        few = ("training.batch_size=1", "training.max_steps=3", "data.valid=null")
        common = (str(recipe), *QUICK, drawn, *few, "--device", "cpu", "--json")
        done = subprocess.run(
            [sys.executable, "-m", "mlxtune", command[0], *common, *command[1:]],
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout)

    planned = said("plan")["peak_memory_bytes"]
    said("train", "--run-dir", str(tmp_path / "run"), "--no-score")
    assert 0.8 * planned < steps(tmp_path / "run")[-1]["peak_memory_bytes"] < 1.05 * planned


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["evaluation.tasks=[]"], "a task has to say how good an answer is"),
        ([grpo(rewards=[{"task": "vowels"}])], "there is no task 'vowels' in evaluation.tasks, but vowel"),
        ([grpo(rewards=[{"metric": "regex"}])], "task is missing"),
        (["evaluation.tasks=[{name: c, scorer: choice, labels: [a, b]}]"], "writes no answer; use exact_match"),
        (["evaluation.tasks=[{name: a, scorer: bleu}, {name: b, scorer: bleu, answer_after: X}]"], "one answer_after"),
        (["method={type: full}"], "set beta 0"),
        ([grpo(group_size=1)], "group_size"),
        ([grpo(epsilon=1.5)], "epsilon"),
        ([grpo(loss="ppo")], "loss must be one of grpo, dr_grpo"),
        (["data.overflow=split"], "the whole of a prompt"),
        (["data.overflow=truncate_right"], "the whole of a prompt"),
        (["data.train_on=everything"], "never the prompt"),
        (["data.replay={file: train.jsonl}"], "beside prompts"),
        (["training.cache_frozen_prefix=kept"], "no answer is met a second time"),
        (["data.train=[{path: train.jsonl, weight: 2.0}]"], "prompts have no weights"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_for_drawn_answers_is_refused(recipe, overrides, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [*QUICK, grpo(), *overrides])
    assert said in f"{caught.value} {caught.value.remedy}"


def test_a_figure_that_no_scorer_gives_is_refused_with_those_that_it_gives(recipe, tmp_path):
    with pytest.raises(RecipeError, match="'vowel' gives no figure 'regexp'") as caught:
        train(recipe, tmp_path / "run", *QUICK, grpo(rewards=[{"task": "vowel", "metric": "regexp"}]))
    assert "regex, matches" in caught.value.remedy
    assert not (tmp_path / "run").exists()


def test_a_prompt_that_leaves_no_room_is_refused(recipe, tmp_path):
    with pytest.raises(DataError, match=r"an answer of up to 500 .* longer than \d+") as caught:
        train(recipe, tmp_path / "run", *QUICK, grpo(max_tokens=500))
    assert caught.value.where == f"{recipe.parent / 'train.jsonl'}:1"
    assert not (tmp_path / "run").exists()


def test_rows_whose_answers_cannot_be_judged_are_refused(recipe, tmp_path):
    with pytest.raises(DataError, match="the reference answer is not a JSON object") as caught:
        train(recipe, tmp_path / "run", *QUICK, grpo(), "evaluation.tasks=[{name: j, scorer: json_fields}]")
    assert "train.jsonl" in str(caught.value) or "test.jsonl" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_owners_function_needs_leave(recipe, tmp_path):
    with pytest.raises(UsageError, match="nobody has allowed"):
        train(recipe, tmp_path / "run", *QUICK, grpo(), "evaluation.tasks=[{name: p, scorer: python, function: a.b}]")
    assert not (tmp_path / "run").exists()


def test_dropout_is_refused_where_it_would_be_taken_for_what_several_updates_did(recipe, tmp_path):
    with pytest.raises(AdapterError, match=r"dropout \(0.1\) makes a token's likelihood another") as caught:
        train(recipe, tmp_path / "run", *BASE, grpo(num_iterations=2))
    assert "method.dropout: 0" in caught.value.remedy
    assert not (tmp_path / "run").exists()


def test_answers_are_drawn_and_compared_without_dropout(recipe):
    dropped, plain = (ready_for(recipe, grpo(), f"method={{rank: 2, dropout: {share}}}") for share in (0.5, 0.0))
    for ready in (dropped, plain):
        network = ready.state.network
        moved = {name: array + 0.1 for name, array in tree_flatten(network.trainable_parameters())}
        network.load_weights(list(moved.items()), strict=False)
    one, other = (draw(ready, [0, 1], step=0) for ready in (dropped, plain))
    for row, same in zip(one.rows, other.rows, strict=True):
        np.testing.assert_array_equal(row.token_ids, same.token_ids)
    np.testing.assert_allclose(np.concatenate(one.log_probabilities[0]), np.concatenate(other.log_probabilities[0]))


def test_a_prompt_is_that_of_its_row_where_longer_rows_are_dropped(recipe):
    rows = [{"prompt": f"My {word}?", "completion": "yes"} for word in WORDS]
    rows.insert(2, {"prompt": "My " + "long " * 40, "completion": "no"})
    (recipe.parent / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ready = ready_for(recipe, grpo(), "data.overflow=drop", "data.max_seq_length=100")
    prompts, own = ready.prompts["train"], ready.opened.datasets["train"].rows
    assert len(own) == len(prompts.token_ids) == len(prompts.examples) == len(WORDS)
    for number, row in enumerate(own):
        assert row.token_ids[: row.is_target.argmax()].tolist() == list(prompts.token_ids[number])
        assert row.where == prompts.examples[number].where
    assert draw(ready, [2], step=0).rows[0].where.endswith(":4")


def test_kl_is_of_where_training_started_which_may_be_an_adapter(recipe, tmp_path):
    train(recipe, tmp_path / "first", *QUICK, grpo(), "training.max_steps=4")
    started = (*QUICK, SAME, grpo(beta=0.1), "training.max_steps=2", f"model.adapter={tmp_path / 'first'}")
    train(recipe, tmp_path / "second", *started)
    first, second = steps(tmp_path / "second")
    assert first["kl"] == pytest.approx(0, abs=1e-6), "not of the base, from which the adapter is far"
    assert second["kl"] > 1e-5


@pytest.mark.parametrize("family", ["qwen3_moe", pytest.param("mamba", marks=pytest.mark.slow)])
def test_a_network_that_trains_draws_what_one_that_answers_does(recipe, family):
    shutil.rmtree(recipe.parent / "model")
    family_folder(recipe.parent / "model", family)
    ready = ready_for(recipe, grpo(max_tokens=6))
    network, prompts = ready.state.network, ready.prompts["train"].token_ids
    assert network.training
    drawn = [answer.token_ids for answer in answers_to(ready, prompts, temperature=0.0)]
    network.eval()
    assert [answer.token_ids for answer in answers_to(ready, prompts, temperature=0.0)] == drawn


def test_of_text_rows_a_prompt_goes_to_where_the_answer_begins(recipe):
    for split in ("train", "valid", "test"):
        rows = [{"text": f"Q: my {word} {split}?\nA: yes"} for word in WORDS]
        (recipe.parent / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "vowel", "scorer": "regex", "pattern": "[aeiou]", "answer_after": "\nA:"}
    ready = ready_for(recipe, grpo(), f"evaluation.tasks={json.dumps([task])}")
    tokenizer, rows = ready.opened.model.tokenizer, ready.opened.datasets["valid"].rows
    assert tokenizer.decode(ready.prompts["valid"].token_ids[0]).endswith("valid?\nA:")
    tried = prompts_of_rows(ready, rows)
    assert all(len(one) >= len(asked) for one, asked in zip(tried, ready.prompts["valid"].token_ids, strict=True))


def test_a_plan_asks_what_validation_asks(recipe):
    ready = ready_for(recipe, grpo())
    asked = [list(ids) for ids in ready.prompts["valid"].token_ids]
    assert prompts_of_rows(ready, ready.opened.datasets["valid"].rows) == asked

"""Other models beside a run's own: on the same rows, in their own template, with and without examples before them."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny import CHATML, SPECIAL, tiny_model_folder, tiny_recipe, tiny_row
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mlxtune.errors import DataError, ModelError, NetworkError, UsageError
from mlxtune.evaluation.own_code import python_allowed
from mlxtune.iteration.score import evaluate
from mlxtune.iteration.scoring.row_scores import read_row_scores
from mlxtune.runs.folder import open_run

SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1}
MERGES = [("t", "e"), ("te", "s"), ("s", "a"), ("i", "d"), ("W", "h")]
OTHER = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def rival_folder(folder, *, chat_template=OTHER, context=2048, merges=MERGES, seed=5):
    """A model of another make: other weights, other tokens, another template."""
    tiny_model_folder(folder, seed=seed, chat_template=chat_template, **SHAPE)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIAL, *alphabet, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    backend.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
    return folder


@pytest.fixture(scope="module")
def scored(tiny_run, tmp_path_factory):
    """A run of its own, with a model of another make beside it, without and with two examples."""
    folder = tmp_path_factory.mktemp("against")
    run = shutil.copytree(tiny_run, folder / "run")
    large = rival_folder(folder / "large")
    evaluate(run, against=[str(large)], shots=[0, 2], device="cpu")
    return run, large


def scores_of(run):
    return json.loads((run / "scores.json").read_text())


def entries_of(run):
    return {entry["label"]: entry for entry in scores_of(run)["against"]}


def samples_of(run):
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


# --- what is in the table


def test_each_untuned_model_is_there_with_each_number_of_examples_and_the_base_with_some(scored):
    run, large = scored
    entries = entries_of(run)
    assert list(entries) == ["base, 2-shot", "large", "large, 2-shot"]
    assert [entry["shots"] for entry in entries.values()] == [2, 0, 2]
    assert entries["large"]["model"] == str(large)
    for entry in entries.values():
        assert entry["metrics"].keys() == scores_of(run)["tuned"].keys()
        assert entry["cost"].keys() == {"parameters", "disk_bytes", "peak_memory_bytes", "tokens_per_s"}
        assert all(entry["cost"].values())


def test_a_model_with_another_tokenizer_compares_in_bits_per_byte_and_not_in_loss(scored):
    run, _ = scored
    entries, rows = entries_of(run), read_row_scores(open_run(run))
    assert "loss" not in entries["large"]["differences"]
    assert "loss" in entries["base, 2-shot"]["differences"]
    found = entries["large"]["differences"]["bits_per_byte"]
    means = [scores_of(run)["tuned"]["bits_per_byte"]["mean"], entries["large"]["metrics"]["bits_per_byte"]["mean"]]
    assert found["mean"] == pytest.approx(means[0] - means[1])
    # the same bytes for both, cut into fewer tokens by the one that merges
    ours, theirs = rows["tuned"], rows["large"]
    assert ours["bits_per_byte"].sums[:, 1].tolist() == theirs["bits_per_byte"].sums[:, 1].tolist()
    assert (ours["loss"].sums[:, 1] > theirs["loss"].sums[:, 1]).all()


def test_of_the_same_tokens_all_compares_and_one_that_never_learned_them_is_beaten(scored, tmp_path):
    run = shutil.copytree(scored[0], tmp_path / "run")
    evaluate(run, against=[str(rival_folder(tmp_path / "same", chat_template=CHATML, merges=[]))], device="cpu")
    found = entries_of(run)["same"]["differences"]
    assert found.keys() == scores_of(run)["tuned"].keys()
    assert {name: found[name]["verdict"] for name in ("loss", "bits_per_byte")} == dict.fromkeys(
        ("loss", "bits_per_byte"), "better"
    )


def test_examples_are_training_rows_the_same_for_all_models(tiny_run, scored):
    run, _ = scored
    shown = {label: entry["shown"] for label, entry in entries_of(run).items()}
    assert shown["large"] == []
    assert shown["large, 2-shot"] == shown["base, 2-shot"]
    train = {f"{tiny_run.parent / 'train.jsonl'}:{line}" for line in range(1, 13)}
    assert len(set(shown["base, 2-shot"]) & train) == 2


def test_each_sample_has_every_models_answer_and_scores(scored):
    run, _ = scored
    labels = set(entries_of(run))
    for sample in samples_of(run):
        assert sample["against"].keys() == labels
        assert sample["scores"].keys() == labels | {"base", "tuned"}


def test_what_each_row_adds_is_there_for_every_model(scored):
    run, _ = scored
    rows = read_row_scores(open_run(run))
    assert rows.keys() == {"base", "tuned", *entries_of(run)}
    for model, metrics in rows.items():
        found = scores_of(run)[model] if model in ("base", "tuned") else entries_of(run)[model]["metrics"]
        assert {name: one.value for name, one in metrics.items()} == pytest.approx(
            {name: interval["mean"] for name, interval in found.items()}
        )


def test_the_card_sets_them_beside_the_tuned_model(scored):
    run, _ = scored
    card = (run / "README.md").read_text()
    assert "## Beside other models, on the same rows" in card
    assert "| large, 2-shot |" in card


def test_what_is_in_the_table_is_not_scored_again_and_a_new_model_joins(scored, tmp_path):
    run = shutil.copytree(scored[0], tmp_path / "run")
    told = set()

    def spy(what, *_):
        told.add(what.partition(",")[0])

    before = entries_of(run)
    evaluate(run, against=[str(scored[1])], shots=[2], device="cpu", progress=spy)
    assert not [what for what in told if what.startswith("score")]
    assert entries_of(run) == before
    evaluate(run, against=[str(rival_folder(tmp_path / "small", seed=6))], device="cpu", progress=spy)
    assert {what for what in told if what.startswith("score")} == {"score small"}
    assert entries_of(run).keys() == {*before, "small"}
    assert samples_of(run)[0]["against"].keys() == {*before, "small"}


def test_another_runs_scores_of_the_same_model_come_from_the_cache(scored, tmp_path):
    other = shutil.copytree(scored[0], tmp_path / "run")
    (other / "scores.json").unlink()
    told = set()
    evaluate(other, against=[str(scored[1])], shots=[0, 2], device="cpu", progress=lambda what, *_: told.add(what))
    assert {what.partition(",")[0] for what in told if what.startswith("score")} == {"score tuned"}
    assert {k: v["metrics"] for k, v in entries_of(other).items()} == {
        k: v["metrics"] for k, v in entries_of(scored[0]).items()
    }


def test_samples_or_row_scores_that_are_gone_are_made_anew(scored, tmp_path):
    run = shutil.copytree(scored[0], tmp_path / "run")
    (run / "row_scores.json.gz").write_bytes(b"damaged")
    evaluate(run, against=[str(scored[1])], device="cpu")
    assert read_row_scores(open_run(run)).keys() == {"base", "tuned", "large"}
    assert list(entries_of(run)) == ["large"]


def test_scores_that_are_made_anew_say_which_models_are_no_longer_beside_them(scored, tmp_path):
    run = shutil.copytree(scored[0], tmp_path / "run")
    notes = []
    evaluate(run, shots=[2], device="cpu", force=True, note=notes.append)
    assert list(entries_of(run)) == ["base, 2-shot"]
    assert len(notes) == 1
    assert "without: large, large, 2-shot. Name models again" in notes[0]


def test_code_of_the_owners_that_has_changed_scores_every_model_anew(own_run, tmp_path, monkeypatch):
    own = Path("own_code_against.py")
    monkeypatch.chdir(tmp_path)
    recipe = own_run / "recipe.resolved.json"
    content = json.loads(recipe.read_text())
    task = {"name": "own", "scorer": "python", "function": f"{own.stem}.right", "max_tokens": 1, "answer_after": None}
    recipe.write_text(json.dumps(content | {"evaluation": content["evaluation"] | {"tasks": [task]}}))
    large = str(rival_folder(tmp_path / "large"))
    try:
        for value in (0.25, 0.75):
            own.write_text(f"def right(output, reference):\n    return {value}\n")
            sys.modules.pop(own.stem, None)
            with python_allowed():
                (entry,) = evaluate(own_run, against=[large], device="cpu")["against"]
            assert entry["metrics"]["own.score"]["mean"] == value
    finally:
        sys.modules.pop(own.stem, None)


# --- models that are not there, the same, or named alike


def test_a_model_that_does_not_exist_is_told_before_any_work(own_run):
    told = []
    with pytest.raises(ModelError, match="there is no such file or folder"):
        evaluate(own_run, against=["./no-such-model"], device="cpu", progress=lambda *what: told.append(what))
    assert not [what for what, *_ in told if what.startswith("score")]
    assert not (own_run / "scores.json").exists()


def test_a_model_of_the_hub_that_is_not_here_is_told_offline(own_run):
    with pytest.raises((ModelError, NetworkError)) as caught:
        evaluate(own_run, against=["org/name"], device="cpu")
    assert "not on this machine" in caught.value.message or "offline" in (caught.value.remedy or "")


def test_the_base_named_again_stands_in_the_table_once_and_that_is_said(own_run):
    notes = []
    base = str(own_run.parent / "model")
    evaluate(own_run, against=[base, base], device="cpu", note=notes.append)
    assert entries_of(own_run) == {}
    assert notes == [f"{base} is the same model as base, and stands in the table once"]


def test_the_same_name_twice_is_one_model_and_two_folders_of_one_name_are_two(own_run, tmp_path):
    one, other = (rival_folder(tmp_path / place / "large", seed=seed) for place, seed in (("a", 1), ("b", 2)))
    evaluate(own_run, against=[str(one), str(one), str(other)], device="cpu")
    assert list(entries_of(own_run)) == ["large", str(other)]


def test_a_model_that_is_called_another_way_is_the_one_that_is_there_already(scored, tmp_path, monkeypatch):
    run = shutil.copytree(scored[0], tmp_path / "run")
    monkeypatch.chdir(scored[1].parent)
    before = entries_of(run)
    evaluate(run, against=["./large"], shots=[0, 1], device="cpu")
    assert entries_of(run).keys() == {*before, "base, 1-shot", "large, 1-shot"}


def test_a_folder_called_like_the_runs_own_models_goes_by_its_path(own_run, tmp_path):
    tuned = rival_folder(tmp_path / "elsewhere" / "tuned")
    evaluate(own_run, against=[str(tuned)], device="cpu")
    assert list(entries_of(own_run)) == [str(tuned)]


def test_a_run_is_no_model_to_compare_with(own_run):
    with pytest.raises(UsageError) as caught:
        evaluate(own_run, against=[str(own_run)], device="cpu")
    assert "mlxtune runs compare" in caught.value.remedy


def test_a_number_of_examples_below_none_is_refused(own_run):
    with pytest.raises(UsageError, match="below 0"):
        evaluate(own_run, shots=[-1], device="cpu")


# --- templates and contexts


def test_a_model_without_a_chat_template_is_asked_by_one_that_fits_all_and_that_is_said(own_run, tmp_path):
    plain = rival_folder(tmp_path / "plain", chat_template=None)
    (entry,) = evaluate(own_run, against=[str(plain)], device="cpu")["against"]
    assert entry["notes"] == ["it has no chat template of its own, and is asked by instruction"]
    assert "bits_per_byte" in entry["differences"]


def test_a_template_that_refuses_system_messages_gets_them_in_the_first_question(own_run, tmp_path):
    plain = rival_folder(tmp_path / "plain", chat_template=NO_SYSTEM)
    for entry in evaluate(own_run, against=[str(plain)], shots=[0, 1], device="cpu")["against"][1:]:
        assert entry["notes"] == [
            "its chat template refuses system messages: they stand at the top of the first question"
        ]


def test_a_context_too_short_for_the_examples_is_an_error_that_names_the_rows(own_run, tmp_path):
    short = rival_folder(tmp_path / "short", context=150)
    evaluate(own_run, against=[str(short)], device="cpu")
    with pytest.raises(DataError) as caught:
        evaluate(own_run, against=[str(short)], shots=[3], device="cpu")
    assert "6 problems" in caught.value.message
    assert "test.jsonl:1: with 3 examples before it the row and its answer need" in caught.value.message
    assert "short has 150" in caught.value.message
    assert "--shots" in caught.value.remedy
    assert list(entries_of(own_run)) == ["short"]


def test_more_examples_than_training_rows_are_refused(own_run):
    with pytest.raises(DataError, match="40 examples are wanted, and the training data has 12 rows"):
        evaluate(own_run, shots=[40], device="cpu")


def test_a_training_row_that_is_a_test_row_too_is_never_an_example(own_run):
    """Eleven of twelve training rows are asked in the test: the twelfth is the only example that is left."""
    rows = [tiny_row(f"train {number}") for number in range(11)]
    (own_run.parent / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (entry,) = evaluate(own_run, shots=[1], device="cpu")["against"]
    assert [place.rpartition("/")[2] for place in entry["shown"]] == ["train.jsonl:12"]
    with pytest.raises(DataError, match="has 1 rows"):
        evaluate(own_run, shots=[2], device="cpu")


# --- a model on its own


def test_any_model_may_be_set_against_others(tiny_run, tmp_path):
    folder = tiny_run.parent
    large = rival_folder(tmp_path / "large")
    found = evaluate(folder / "model", recipe=folder / "recipe.yaml", against=[str(large)], shots=[0, 1], device="cpu")
    assert [entry["label"] for entry in found["against"]] == [f"{folder / 'model'}, 1-shot", "large", "large, 1-shot"]
    assert "bits_per_byte" in found["against"][1]["differences"]


def test_a_file_of_rows_has_no_training_data_to_take_examples_from(tiny_run):
    with pytest.raises(UsageError, match="a file of rows has none"):
        evaluate(tiny_run.parent / "model", data=tiny_run.parent / "test.jsonl", shots=[1], device="cpu")


def test_text_rows_with_examples_are_compared_by_their_tasks_alone(tmp_path):
    from mlxtune.iteration.run import run_recipe

    recipe = tiny_recipe(tmp_path)
    for split, count in (("train", 9), ("valid", 2), ("test", 6)):
        rows = [{"text": f"Q: {split} {number}\nA: {number}"} for number in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["training.max_steps=1", "evaluation.tasks=[{name: number, scorer: exact_match, max_tokens: 2}]"]
    run_recipe(recipe, overrides, device="cpu", run_dir=tmp_path / "run", score=False)
    (entry,) = evaluate(tmp_path / "run", shots=[2], device="cpu")["against"]
    assert entry["metrics"].keys() == {"number.exact_match", "number.exact_match_normalized"}
    assert entry["differences"].keys() == entry["metrics"].keys()
    assert entry["notes"][0].startswith("no likelihood")
    assert samples_of(tmp_path / "run")[0]["prompt"] == "Q: test 0\nA:"

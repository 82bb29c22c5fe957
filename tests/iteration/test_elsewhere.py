"""The estimate for another machine: its memory against what a plan measures here, its time against sums by hand."""

import json
from dataclasses import replace

import pytest
from own_process import in_own_process, plan_each
from tiny import tiny_model_folder, tiny_recipe, tiny_row

from mlxtune.data.batch import Shape
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.device.profiles import Machine, machine_named
from mlxtune.errors import AdapterError, UsageError
from mlxtune.iteration.elsewhere import Sizes, foretell_elsewhere, operations, peak_bytes
from mlxtune.iteration.opening import open_recipe
from mlxtune.models.load import open_unread
from mlxtune.recipe.load import load_recipe

LENGTH = "data.max_seq_length=1024"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    path = tiny_recipe(folder)
    tiny_model_folder(folder / "model", hidden=64, heads=2, kv_heads=1, layers=6)
    rows = [tiny_row(f"row {number} " + "word " * 20) for number in range(24)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def unread(recipe, *overrides):
    settings = load_recipe(recipe, [LENGTH, *overrides]).recipe
    return settings, open_recipe(settings, device="cpu", open_network=open_unread)


METHODS = (
    (),
    ("method.layers={top: 2}",),
    ("training.grad_checkpoint={every: 1}",),
    ("method={type: dora, rank: 2}",),
    ("method={rank: 2, modules_to_save: [embed_tokens, norm, q_proj]}",),
    ("method={rank: 2, target_modules: [q_proj, embed_tokens], rank_pattern: {q_proj: 8}}",),
    ("method={type: full}",),
    ("method={type: full, layers: {top: 2}}",),
    ("method={type: full, train_embeddings: true}", "training.batch_size=1"),
    ("method={type: full}", "training.optimizer=sgd", "training.batch_size=1"),
    ("method={type: full}", "training.optimizer=adafactor", "training.batch_size=1"),
    ("method={type: full}", "training.gradient_accumulation_steps=2", "training.grad_checkpoint={every: 1}"),
)


@pytest.fixture(scope="module")
def planned(recipe):
    """The plan of each method."""
    each = [(LENGTH, "training.max_steps=2", *overrides) for overrides in METHODS]
    return dict(zip(METHODS, in_own_process(plan_each, recipe, each), strict=True))


@pytest.mark.parametrize("overrides", METHODS, ids=str)
def test_with_the_cpus_formats_memory_is_what_a_plan_measures_within_a_third(recipe, planned, overrides):
    _, opened = unread(recipe, "training.max_steps=2", *overrides)
    found, measured = foretell_elsewhere(opened, machine_named("m2-16gb"), CPU_FLOAT32), planned[overrides]
    assert found.peak_memory_bytes == pytest.approx(measured.peak_memory_bytes, rel=0.34)
    assert found.trainable_parameters == measured.trainable_parameters
    assert (found.steps, found.steps_an_epoch) == (measured.steps, measured.steps_an_epoch)


NOTHING = Sizes(
    weight_bytes=0,
    trainable=0,
    largest_trained=0,
    replaced=0,
    gained=0,
    largest_gained=0,
    lower=0,
    upper=0,
    head=0,
    head_trains=False,
    width=0,
    heads=0,
    lower_blocks=0,
    upper_blocks=0,
    kept=0,
    kept_by_largest=0,
    targets_alone=True,
    vocabulary=10,
)


def test_operations_are_two_a_weight_and_position_each_way_and_attentions_and_the_heads():
    sizes = replace(NOTHING, lower=1000, upper=300, head=50, width=8, lower_blocks=2, upper_blocks=1)
    shape = Shape(prefix=0, rows=2, length=4, targets=3)  # 8 positions, 32 pairs
    whole = operations(shape, sizes, reads_lower=True, recomputed=False)
    weights = 2 * 8 * (1000 + 2 * 300)  # the blocks below are read forward alone
    attention = 4 * 8 * 32 * (2 + 2 * 1)
    head = 2 * 2 * 3 * 50
    assert whole == weights + attention + head
    kept = operations(shape, sizes, reads_lower=False, recomputed=True)
    assert kept == 2 * 8 * 3 * 300 + 4 * 8 * 32 * 3 + head


def test_weights_that_train_are_counted_in_place_of_the_bases_and_an_update_in_place_of_what_was():
    sizes = replace(NOTHING, weight_bytes=2 * 1000, trainable=600, replaced=600)  # of 1000 weights in bfloat16
    at_rest = 2 * 400 + 4 * 600 * (1 + 2)  # frozen weights, masters, adamw's moments
    assert peak_bytes(sizes, 10**6, 2, copies=2, adds_up=False) == at_rest + (4 + 2) * 600 + 10**6
    assert peak_bytes(sizes, 10**6, 2, copies=2, adds_up=True) == at_rest + (4 + 4 + 2) * 600 + 10**6
    update = 4 * 600 * 1.5  # the gradients' sum, and what is at work of some arrays
    assert peak_bytes(sizes, 0, 2, copies=2, adds_up=False) == at_rest + update
    beside = replace(sizes, replaced=0)
    assert peak_bytes(beside, 0, 2, copies=2, adds_up=False) == at_rest + 2 * 600 + update
    one = replace(sizes, largest_trained=600)  # of which several new arrays are there at once
    assert peak_bytes(one, 0, 2, copies=2, adds_up=False) == at_rest + update + 3 * 4 * 600


def test_a_gradient_of_the_weights_themselves_is_half_as_much_work_again():
    sizes = replace(NOTHING, upper=300, trainable=300)
    shape = Shape(prefix=0, rows=2, length=4, targets=3)
    beside = operations(shape, sizes, reads_lower=True, recomputed=False)
    assert operations(shape, replace(sizes, replaced=300), reads_lower=True, recomputed=False) == 1.5 * beside


def test_a_pair_takes_what_its_two_answers_take_as_rows(recipe, tmp_path):
    answers = {"chosen": "Yes, " * 9, "rejected": "No, " * 12}
    prompts = [f"Say {number}." for number in range(4)]
    pairs = [{"prompt": prompt, **answers} for prompt in prompts]
    rows = [{"prompt": prompt, "completion": answer} for prompt in prompts for answer in answers.values()]
    found = []
    for kind, own in (("dpo", pairs), ("sft", rows)):
        file = tmp_path / f"{kind}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in own))
        overrides = [f"objective={{type: {kind}}}", f"data={{train: '{file}', max_seq_length: 1024}}"]
        sizes = [f"training.batch_size={len(own)}", "training.max_steps=1", "evaluation.tasks=[]"]
        found.append(foretell_elsewhere(unread(recipe, *overrides, *sizes)[1], machine_named("m2-16gb")))
    assert found[0].peak_memory_bytes == found[1].peak_memory_bytes
    assert found[0].seconds == found[1].seconds


def test_a_quantized_base_is_refused_for_full_tuning_as_training_refuses_it(recipe, tmp_path):
    tiny_model_folder(tmp_path / "q4", quantized=True)
    _, opened = unread(recipe, f"model.source={tmp_path / 'q4'}", "method={type: full}")
    with pytest.raises(AdapterError, match=r"is quantized, and method\.type full changes float weights"):
        foretell_elsewhere(opened, machine_named("m2-16gb"))


def test_a_machine_with_twice_of_everything_takes_half_of_the_time_and_a_small_one_does_not_fit(recipe):
    _, opened = unread(recipe)
    small = Machine("one", "one", 1, 100, 8)
    found = foretell_elsewhere(opened, small)
    double = foretell_elsewhere(unread(recipe)[1], Machine("two", "two", 2, 200, 16))
    assert found.seconds == pytest.approx(2 * double.seconds)
    assert found.fits
    assert found.to_json()["label"] == "estimate, unverified"
    nothing = foretell_elsewhere(unread(recipe)[1], Machine("none", "none", 0, 100, 8))
    assert not nothing.fits
    assert nothing.recomputed  # the most that can be done about memory


def test_how_fast_another_machine_draws_answers_nobody_knows(recipe):
    _, opened = unread(recipe, "objective={type: grpo, max_tokens: 8}")
    with pytest.raises(UsageError, match="objective grpo draws answers") as caught:
        foretell_elsewhere(opened, machine_named("m2-16gb"))
    assert "without it" in caught.value.remedy

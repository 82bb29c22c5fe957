"""`convert` with its measures: who judges, who chooses, and what is said of the loss."""

import json
from functools import partial

import mlx.core as mx
import mlx_lm
import pytest
from tiny import tiny_llama, tiny_model_folder, tiny_row

from mlxtune.device.choose import Device, open_device
from mlxtune.device.memory import MemoryLimit
from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16
from mlxtune.errors import DataError, DeviceError, ModelError, UsageError
from mlxtune.evaluation import sensitivity
from mlxtune.iteration import converting
from mlxtune.iteration.converting import convert as convert_on
from mlxtune.models.load import bytes_to_open, open_model
from mlxtune.progress import silent

convert = partial(convert_on, device="cpu")
SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1}
GPU = Device("gpu", GPU_BFLOAT16, "a test says so", compiles=False)


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("source") / "floats", **SHAPE)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "own.jsonl"
    path.write_text("".join(json.dumps(tiny_row(f"row {number}")) + "\n" for number in range(8)))
    return path


def judge_on(device, rows, *, choosing=False):
    return converting._Judge(converting._read_rows(rows, choosing=choosing), device, silent)


def kl_in_full(source, out, text):
    """Mean KL over all positions of one text, from both networks' full logits."""
    p, q = (
        mx.softmax(open_model(folder, open_device("cpu").precision).network(text)[0], axis=-1)
        for folder in (source, out)
    )
    return mx.mean(mx.sum(p * mx.log(p / q), axis=-1)).item()


def test_what_is_lost_is_measured_and_fewer_bits_lose_more(tmp_path, floats, rows):
    found = {bits: convert(str(floats), tmp_path / str(bits), bits=bits, data=rows)["fidelity"] for bits in (3, 8)}

    text = mx.array([list(range(3, 90))])
    assert found[3]["mean_kl"] > 10 * found[8]["mean_kl"] > 0
    assert found[3]["mean_kl"] == pytest.approx(kl_in_full(floats, tmp_path / "3", text), rel=0.5)
    assert found[3]["token_agreement"] < found[8]["token_agreement"]
    assert found[8]["data"] == str(rows)
    answers = [f'{{"said": "row {number}"}}' for number in range(8)]
    assert found[8]["positions"] == sum(len(answer) + 1 for answer in answers)


def test_without_rows_of_ones_own_a_packaged_recipe_judges(tmp_path, floats):
    found = convert(str(floats), tmp_path / "out", bits=4)["fidelity"]
    assert found["data"].endswith("valid.jsonl")
    assert found["positions"] > 500


@pytest.mark.parametrize(
    "template", [None, "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"]
)
def test_a_model_without_a_chat_template_for_the_packaged_rows_is_judged_by_their_text(tmp_path, template):
    source = tiny_model_folder(tmp_path / "base", chat_template=template, **SHAPE)
    assert convert(str(source), tmp_path / "out", bits=4)["fidelity"]["positions"] > 500


def test_where_nothing_is_lost_nothing_is_measured(tmp_path, floats, monkeypatch):
    monkeypatch.setattr(converting, "open_model", None)
    result = convert(str(floats), tmp_path / "out", dtype="float32")
    assert (result["exact"], result["fidelity"]) == (True, None)


def test_measuring_can_be_left_out(tmp_path, floats, monkeypatch):
    monkeypatch.setattr(converting, "open_model", None)
    result = convert(str(floats), tmp_path / "out", bits=4, measure=False)
    assert (result["exact"], result["fidelity"]) == (False, None)


def test_a_sensitive_mix_is_as_large_as_uniform_bits_and_loses_less(tmp_path, floats, rows):
    uniform = convert(str(floats), tmp_path / "uniform", bits=4, data=rows)

    mixed = convert(str(floats), tmp_path / "mixed", bits=4, mix="sensitive", data=rows)

    assert mixed["bytes"] <= uniform["bytes"]
    assert len({form["bits"] for form in mixed["forms"]}) > 1
    # judged by the half of the rows that did not choose
    assert mixed["fidelity"]["positions"] == uniform["fidelity"]["positions"] // 2
    text = mx.array([list(range(3, 90))])
    assert kl_in_full(floats, tmp_path / "mixed", text) < kl_in_full(floats, tmp_path / "uniform", text)
    mlx_lm.load(str(tmp_path / "mixed"))


def test_rows_that_say_the_same_never_both_choose_and_judge(rows):
    doubled = rows.with_name("doubled.jsonl")
    doubled.write_text(rows.read_text() * 2)

    split = converting._read_rows(doubled, choosing=True)

    said = [{example.messages for example in part} for part in (split.choosing, split.judging)]
    assert not said[0] & said[1]
    assert [len(part) for part in said] == [4, 4]


@pytest.mark.parametrize("text", ["", "no json\n", '{"said": 1}\n'])
def test_rows_that_cannot_be_read_are_refused_before_any_work(tmp_path, floats, text):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)

    with pytest.raises(DataError):
        convert("no-such-model-on-any-machine", tmp_path / "out", bits=4, data=path)

    assert not (tmp_path / "out").exists()


def test_one_row_cannot_both_choose_and_judge(tmp_path, floats):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(tiny_row("alone")) + "\n")
    with pytest.raises(DataError, match="all rows here are the same"):
        convert(str(floats), tmp_path / "out", bits=4, mix="sensitive", data=path)


def test_a_sensitive_mix_needs_rows(tmp_path, floats):
    with pytest.raises(UsageError, match="chosen on your own rows") as caught:
        convert(str(floats), tmp_path / "out", bits=4, mix="sensitive")
    assert caught.value.remedy == "add --data FILE"


def test_rows_that_nothing_would_be_measured_on_are_refused(tmp_path, floats, rows):
    with pytest.raises(UsageError, match="nothing is measured on these rows"):
        convert(str(floats), tmp_path / "out", bits=4, data=rows, measure=False)


def test_the_gpus_number_formats_choose_and_judge_too(floats, rows):
    judge = judge_on(GPU, rows, choosing=True)

    chosen = judge.choose_bits(floats, {"group_size": 32, "bits": 5, "mode": "affine"})
    compare = judge.read_source(floats)

    sizes = {path: module.weight.size for path, module in tiny_llama(**SHAPE).named_modules() if path in chosen}
    mean = sum(sizes[path] * setting["bits"] for path, setting in chosen.items()) / sum(sizes.values())
    assert 4.9 < mean <= 5
    assert len({setting["bits"] for setting in chosen.values()}) > 1
    assert compare(floats)["token_agreement"] == 1.0


def test_bits_that_are_stored_are_enough_where_more_would_spare_nothing(tmp_path, rows):
    source = tiny_model_folder(tmp_path / "source", quantized=True, **SHAPE)
    judge = judge_on(open_device("cpu"), rows, choosing=True)

    chosen = judge.choose_bits(source, {"group_size": 32, "bits": 5, "mode": "affine"})

    assert all(setting == {"group_size": 32, "bits": 4, "mode": "affine"} for setting in chosen.values())


def test_layers_that_would_pass_through_lose_nothing_and_are_left(tmp_path, rows):
    source = tiny_model_folder(tmp_path / "source", quantized=True, **SHAPE)
    report = convert(str(source), tmp_path / "out", bits=4, mix="sensitive", data=rows)
    assert report["exact"]
    assert report["forms"] == [{"bits": 4, "group_size": 32, "mode": "affine", "layers": 15}]


@pytest.fixture
def small_memory(monkeypatch):
    """A machine on which no network can be opened."""
    monkeypatch.setattr(converting, "memory_limit", lambda: MemoryLimit(1000, "a test says so"))


def test_a_model_too_large_to_be_read_is_converted_and_that_is_said(tmp_path, floats, small_memory):
    result = convert(str(floats), tmp_path / "out", bits=4)

    assert result["fidelity"] is None
    assert any("not measured: the model takes" in note for note in result["notes"])
    mlx_lm.load(str(tmp_path / "out"))


def test_a_result_too_large_to_be_read_is_kept_unmeasured_and_that_is_said(tmp_path, rows, monkeypatch):
    """On a GPU packed weights stay so, and expanded they are larger."""
    source, expanded = (
        tiny_model_folder(tmp_path / str(packed), quantized=packed, **SHAPE) for packed in (True, False)
    )
    judge = judge_on(GPU, rows)
    between = (bytes_to_open(source, GPU_BFLOAT16) + bytes_to_open(expanded, GPU_BFLOAT16)) // 2
    monkeypatch.setattr(converting, "memory_limit", lambda: MemoryLimit(between, "a test says so"))

    found = judge.read_source(source)(expanded)

    assert found is None
    (note,) = judge.notes
    assert note.startswith("what was lost is not measured: the model takes")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_source_and_result_are_opened_as_they_will_be_asked(tmp_path, floats, rows, monkeypatch, dtype):
    convert(str(floats), tmp_path / "out", dtype=dtype, measure=False)
    opened = []

    def spy(folder, precision):
        opened.append((folder, precision.name))
        return open_model(folder, precision)

    monkeypatch.setattr(converting, "open_model", spy)
    judge_on(GPU, rows).read_source(tmp_path / "out")(floats)
    judge_on(GPU, rows).read_source(floats)(tmp_path / "out")

    in_file = (tmp_path / "out", f"gpu-{dtype}")
    assert opened == [in_file, (floats, "gpu-bfloat16"), (floats, "gpu-bfloat16"), in_file]


def test_a_result_that_says_no_numbers_is_refused(tmp_path, floats, rows, monkeypatch):
    def broken(folder, precision):
        model = open_model(folder, precision)
        if folder != floats:
            model.network.model.norm.weight = model.network.model.norm.weight * float("nan")
        return model

    monkeypatch.setattr(converting, "open_model", broken)
    with pytest.raises(ModelError, match="no numbers") as caught:
        convert(str(floats), tmp_path / "out", bits=4, data=rows)

    assert "--no-measure" in caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("together", [1, 256 << 20])
@pytest.mark.parametrize("quantized", [False, True])
def test_the_memory_of_a_sensitive_mix_counts_the_largest_layer_whole(tmp_path, rows, monkeypatch, together, quantized):
    source = tiny_model_folder(tmp_path / "source", quantized=quantized, **SHAPE)
    sizes = [module.weight.size for module in tiny_llama(**SHAPE).modules() if hasattr(module, "to_quantized")]
    needed = bytes_to_open(source, CPU_FLOAT32) + 8 * (max(sizes) if together == 1 else sum(sizes))
    monkeypatch.setattr(sensitivity, "WEIGHTS_TOGETHER", together)
    asked = {"group_size": 32, "bits": 5, "mode": "affine"}
    judge = judge_on(open_device("cpu"), rows, choosing=True)

    monkeypatch.setattr(converting, "memory_limit", lambda: MemoryLimit(needed - 1, "a test says so"))
    with pytest.raises(DeviceError, match="a sensitive mix cannot be measured"):
        judge.choose_bits(source, asked)
    monkeypatch.setattr(converting, "memory_limit", lambda: MemoryLimit(needed, "a test says so"))
    assert judge.choose_bits(source, asked)


def test_rows_that_are_cut_keep_the_token_that_their_family_begins_with(tmp_path, monkeypatch):
    source, path = tiny_model_folder(tmp_path / "source", **SHAPE), tmp_path / "long.jsonl"
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    bos = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    path.write_text("".join(json.dumps({"text": f"{number} {'word ' * 600}"}) + "\n" for number in range(4)))
    read = {}

    def choosing(reader, layers, dataset, *_, **__):
        read["choosing"] = dataset
        return {layer: {bits: 1.0 / bits for bits in converting.BITS} for layer in layers}

    def judging(reader, dataset, **_):
        read["judging"] = dataset

    monkeypatch.setattr(converting, "foretell_losses", choosing)
    monkeypatch.setattr(converting, "read_distributions", judging)
    judge = judge_on(open_device("cpu"), path, choosing=True)
    judge.choose_bits(source, {"group_size": 32, "bits": 5, "mode": "affine"})
    judge.read_source(source)

    assert [[row.token_ids[0] for row in part] for part in read.values()] == [[1, 1], [1, 1]]
    assert [{len(row.token_ids) for row in part} for part in read.values()] == [{256}, {2048}]


@pytest.mark.parametrize("measure", [True, False])
def test_rows_that_lie_in_the_output_are_not_replaced(tmp_path, floats, measure):
    path = tmp_path / "out" / "own.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(tiny_row("a")) + "\n" + json.dumps(tiny_row("b")) + "\n")

    with pytest.raises(UsageError, match="the data is there, and is not replaced"):
        convert(str(floats), path.parent, bits=4, mix="sensitive", data=path, measure=measure, force=True)

    assert path.is_file()


def test_a_model_too_large_to_be_read_gets_no_sensitive_mix(tmp_path, floats, rows, small_memory):
    with pytest.raises(DeviceError, match="a sensitive mix cannot be measured: the model takes"):
        convert(str(floats), tmp_path / "out", bits=4, mix="sensitive", data=rows)
    assert not (tmp_path / "out").exists()

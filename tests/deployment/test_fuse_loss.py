"""A fused model that lost too much of its tuning is refused, and the smallest form that would pass is named."""

import json
import math

import mlx.core as mx
import mlx_lm
import pytest
from tiny import tiny_model_folder

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import save_adapter
from mlxtune.deployment.fuse import fuse
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16
from mlxtune.errors import DataError, ModelError, UsageError
from mlxtune.evaluation.fidelity import Fidelity
from mlxtune.models.load import load_network

SHAPE = LoraShape(rank=2, alpha=4.0)


@pytest.fixture
def base_and_adapter(tmp_path):
    """Makes a tiny base, quantized to 4 bits or not, and an adapter whose factors are ``change`` everywhere."""

    def make(*, quantized=True, change=0.05):
        base = tiny_model_folder(tmp_path / "base", quantized=quantized)
        network, _ = load_network(base)
        attach_lora(network, SHAPE, seed=0)
        load_adapter_parameters(network, {name: array + change for name, array in adapter_parameters(network).items()})
        (tmp_path / "adapter").mkdir()
        save_adapter(network, tmp_path / "adapter", base_model="base")
        return base, tmp_path / "adapter"

    return make


def nats_of(quantization):
    """A measure that says so many nats for so many bits of the adapted layers, and none for floats."""

    def measure(folder):
        config = json.loads((folder / "config.json").read_text()).get("quantization")
        return Fidelity(100, 0.0 if config is None else quantization[config["bits"]], 1.0)

    return measure


def bits_of(quantization, path):
    return quantization.get(path, quantization)["bits"]


def test_too_much_loss_is_refused_with_the_smallest_number_of_bits_that_would_pass(base_and_adapter, tmp_path):
    measure = nats_of({3: 0.5, 4: 0.3, 5: 0.1, 6: 0.01, 8: 0.0})
    with pytest.raises(ModelError, match=r"stored as 3 bits, the fused model keeps .* and is 0.5 nats from") as caught:
        fuse(*base_and_adapter(), tmp_path / "out", precision=CPU_FLOAT32, bits=3, measure=measure)
    assert caught.value.remedy.startswith("--requantize --bits 6 is the smallest that would pass; or add --accept-loss")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_floats_are_offered_where_no_number_of_bits_would_pass(base_and_adapter, tmp_path):
    measure = nats_of(dict.fromkeys((4, 5, 6, 8), 1.0))
    with pytest.raises(ModelError) as caught:
        fuse(*base_and_adapter(), tmp_path / "out", precision=CPU_FLOAT32, bits="stored", measure=measure)
    assert caught.value.remedy.startswith("--dtype float16 is the smallest")


def test_an_update_that_bfloat16_rounds_away_is_refused_though_the_answers_are_near(base_and_adapter, tmp_path):
    folders = base_and_adapter(quantized=False, change=1e-3)
    weights = mx.load(str(folders[0] / "model.safetensors"))
    on_the_grid = {name: array.astype(mx.bfloat16) for name, array in weights.items()}
    mx.save_safetensors(str(folders[0] / "model.safetensors"), on_the_grid)
    with pytest.raises(ModelError, match=r"stored as bfloat16.*at least 90% and at most 0.02 nats") as caught:
        fuse(*folders, tmp_path / "out", precision=GPU_BFLOAT16, dtype="bfloat16", measure=nats_of({}))
    assert "--dtype float" in caught.value.remedy


@pytest.mark.parametrize("accept_loss", [False, True])
def test_a_fused_model_that_says_no_numbers_is_refused(base_and_adapter, tmp_path, accept_loss):
    with pytest.raises(ModelError, match="is nan nats from base plus adapter"):
        fuse(*base_and_adapter(), tmp_path / "out", precision=CPU_FLOAT32, measure=lambda _: Fidelity(9, math.nan, 0.0))


def test_loss_can_be_accepted_and_is_reported(base_and_adapter, tmp_path):
    measure = nats_of({3: 0.5})
    report = fuse(
        *base_and_adapter(), tmp_path / "out", precision=CPU_FLOAT32, bits=3, measure=measure, accept_loss=True
    )
    assert report.loses_too_much
    assert report.fidelity.mean_kl == 0.5
    assert "is 0.5 nats from base plus adapter" in report.in_words()
    mlx_lm.load(str(tmp_path / "out"))


def test_auto_takes_more_bits_until_little_enough_is_lost(base_and_adapter, tmp_path):
    told = []

    def measure(folder):
        told.append(json.loads((folder / "config.json").read_text())["quantization"])
        return Fidelity(100, 0.5 if len(told) < 3 else 0.0, 1.0)

    report = fuse(*base_and_adapter(), tmp_path / "out", precision=CPU_FLOAT32, bits="auto", measure=measure)
    assert not report.loses_too_much
    layers = [[bits_of(seen, path) for path in report.layers] for seen in told]
    assert [min(bits) for bits in layers] == sorted({min(bits) for bits in layers})
    assert [bits_of(seen, "model.embed_tokens") for seen in told] == [4, 4, 4]  # no adapter touched it
    mlx_lm.load(str(tmp_path / "out"))


def test_what_the_adapter_did_not_touch_keeps_its_bits(base_and_adapter, tmp_path):
    report = fuse(*base_and_adapter(), tmp_path / "out", precision=CPU_FLOAT32, bits=8)
    quantization = report.quantization
    assert quantization["bits"] == 8
    assert quantization["model.embed_tokens"] == {"bits": 4, "group_size": 32, "mode": "affine"}


def test_bits_of_a_base_that_has_none_have_to_be_named(base_and_adapter, tmp_path):
    folders = base_and_adapter(quantized=False)
    with pytest.raises(UsageError, match="the base is not quantized") as caught:
        fuse(*folders, tmp_path / "out", precision=CPU_FLOAT32, bits="stored")
    assert caught.value.remedy == "add --bits N"
    with pytest.raises(UsageError, match="7 bits"):
        fuse(*folders, tmp_path / "out", precision=CPU_FLOAT32, bits=7)
    report = fuse(*folders, tmp_path / "out", precision=CPU_FLOAT32, bits=8)
    assert report.quantization == {"bits": 8, "group_size": 32, "mode": "affine"}


def test_a_run_is_measured_on_its_held_out_rows(tiny_run, tmp_path):
    report = fuse_run(tiny_run, tmp_path / "out", device="cpu", dtype="float16")
    assert report.fidelity.positions > 0
    assert report.fidelity.mean_kl < 1e-4
    assert report.fidelity.token_agreement == 1.0


def test_a_model_and_an_adapter_are_measured_on_the_rows_that_are_given(tiny_run, tmp_path):
    project = tiny_run.parent
    adapter = tiny_run / "adapter"
    report = fuse_run(project / "model", tmp_path / "out", adapter=adapter, data=project / "test.jsonl", device="cpu")
    assert report.fidelity.positions > 0
    assert fuse_run(project / "model", tmp_path / "unmeasured", adapter=adapter, device="cpu").fidelity is None
    with pytest.raises(DataError):
        fuse_run(project / "model", tmp_path / "other", adapter=adapter, data=project / "gone.jsonl", device="cpu")
    with pytest.raises(UsageError, match="no held-out rows on which the loss of requantizing"):
        fuse_run(project / "model", tmp_path / "other", adapter=adapter, bits=8, device="cpu")
    fuse_run(project / "model", tmp_path / "other", adapter=adapter, bits=8, accept_loss=True, device="cpu")
    mlx_lm.load(str(tmp_path / "other"))

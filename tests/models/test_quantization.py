"""What options mean, which layers a mix gives more bits, and bits dealt out where they spare most."""

import itertools

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.convert import mixed_quant_predicate_builder
from tiny import tiny_llama

from mlxtune.errors import ModelError, UsageError
from mlxtune.models.quantization import allocate_bits, mixed, quantization_wanted, setting_asked
from mlxtune.recipe.choices import BITS, FIXED_MODES, GROUP_SIZES, MIXES, MODES


@pytest.mark.parametrize(("mode", "bits", "group_size"), [*itertools.product(MODES, BITS, (16, *GROUP_SIZES))])
def test_what_is_taken_is_what_mlx_has(mode, bits, group_size):
    weight = mx.ones((2, 128))
    try:
        mx.eval(mx.quantize(weight, group_size, bits, mode))
    except (ValueError, RuntimeError):
        with pytest.raises(UsageError):
            setting_asked(bits, group_size, mode)
    else:
        expected = {"bits": bits, "group_size": group_size, "mode": mode}
        assert setting_asked(bits, group_size, mode) == expected


@pytest.mark.parametrize("mode", FIXED_MODES)
def test_a_mode_alone_says_bits_and_groups(mode):
    _, scales, *_ = mx.quantize(mx.ones((1, 128)), mode=mode)  # MLX's own defaults
    setting = setting_asked(mode=mode)
    assert setting is not None
    assert setting["group_size"] == 128 // scales.shape[-1]


def test_nothing_asked_is_nothing_quantized():
    assert setting_asked() is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_size": 32}, "a group size alone quantizes nothing"),
        ({"mode": "affine"}, "affine does not say to how many bits"),
        ({"mode": "fp4"}, "there is no mode fp4"),
        ({"mode": "mxfp4", "bits": 8}, "--bits 8: mxfp4 has 4 bits in groups of 32, and nothing else"),
        ({"mode": "nvfp4", "group_size": 32}, "--group-size 32: nvfp4 has 4 bits in groups of 16"),
        ({"mix": "mixed_1_2"}, "there is no mix mixed_1_2"),
        ({"mix": "mixed_3_6", "bits": 4}, "mixed_3_6 says how many bits there are"),
        ({"mix": "mixed_3_6", "mode": "mxfp4"}, "a mix is affine, and mxfp4 is not"),
        ({"mix": "mixed_3_6", "group_size": 48}, "3 bits in groups of 48"),
        ({"mix": "sensitive"}, "this mix needs a mean that its bits keep to"),
    ],
)
def test_contradictions_are_refused_with_a_remedy(options, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        setting_asked(**options)
    assert caught.value.remedy


@pytest.mark.parametrize("mix", [mix for mix in MIXES if mix != "sensitive"])
@pytest.mark.parametrize("layers", [1, 2, 8, 11, 30])
def test_a_mix_is_mlx_lms_layer_by_layer(mix, layers):
    network = tiny_llama(layers=layers, hidden=32, heads=2, kv_heads=1, tied=False)
    predicate = mixed_quant_predicate_builder(mix, network, 32)

    found = mixed(network, mix, 32)

    named = dict(network.named_modules())
    assert found == {path: predicate(path, named[path]) for path in found}
    assert set(found) == {path for path, module in named.items() if hasattr(module, "to_quantized")}
    assert len({setting["bits"] for setting in found.values()}) == 2


def test_a_familys_exceptions_stand_above_a_mix():
    network = tiny_llama(hidden=32, heads=2, kv_heads=1)
    eight = {"group_size": 64, "bits": 8, "mode": "affine"}
    network.__class__ = type(
        "Model",
        (type(network),),
        {"quant_predicate": property(lambda _: lambda path, _: eight if "down_proj" in path else "k_proj" not in path)},
    )

    found = mixed(network, "mixed_3_6", 32)

    assert all(setting == eight for path, setting in found.items() if "down_proj" in path)
    assert not any("k_proj" in path for path in found)
    assert found["model.layers.1.self_attn.v_proj"]["bits"] == 6


def test_a_mix_is_refused_for_a_network_whose_layers_have_other_names():
    network = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    with pytest.raises(ModelError, match="no down_proj"):
        mixed(network, "mixed_3_6", 32)


def test_wanted_layers_carry_the_mode():
    found = quantization_wanted(tiny_llama(), 4, 32, "mxfp4")
    assert all(setting == {"bits": 4, "group_size": 32, "mode": "mxfp4"} for setting in found.values())


def test_a_familys_exception_that_names_no_mode_is_affine_whatever_the_others_are():
    network = tiny_llama(hidden=32, heads=2, kv_heads=1)
    own = {"group_size": 64, "bits": 8}
    predicate = property(lambda _: lambda path, _: own if "down_proj" in path else True)
    network.__class__ = type("Model", (type(network),), {"quant_predicate": predicate})

    found = quantization_wanted(network, 4, 16, "nvfp4")

    assert found["model.layers.0.mlp.down_proj"] == own | {"mode": "affine"}
    assert found["model.layers.0.mlp.up_proj"]["mode"] == "nvfp4"


def test_bits_go_where_they_spare_most():
    losses = {"tough": {2: 0.02, 4: 0.01, 6: 0.0}, "frail": {2: 9.0, 4: 2.0, 6: 0.1}}
    assert allocate_bits(losses, {"tough": 100, "frail": 100}, 4) == {"tough": 2, "frail": 6}


def test_a_large_layer_has_to_spare_more_for_its_bits():
    losses = {"large": {2: 3.0, 4: 0.0}, "small": {2: 1.0, 4: 0.0}}
    assert allocate_bits(losses, {"large": 400, "small": 100}, 3) == {"large": 2, "small": 4}


@given(
    st.lists(st.tuples(st.integers(1, 50), st.lists(st.floats(0, 10), min_size=3, max_size=3)), min_size=1, max_size=4),
    st.integers(2, 4),
)
def test_the_mean_is_kept_to_and_no_uniform_choice_is_far_better(layers, mean_bits):
    choices = (2, 3, 4)
    sizes = {str(i): size for i, (size, _) in enumerate(layers)}
    losses = {str(i): dict(zip(choices, sorted(own, reverse=True), strict=True)) for i, (_, own) in enumerate(layers)}

    chosen = allocate_bits(losses, sizes, mean_bits)

    def cost(bits):
        return sum(bits[path] * sizes[path] for path in sizes)

    def loss(bits):
        return sum(losses[path][bits[path]] for path in sizes)

    room = mean_bits * sum(sizes.values())
    assert cost(chosen) <= room
    every = [dict(zip(sizes, bits, strict=True)) for bits in itertools.product(choices, repeat=len(sizes))]
    best = min(loss(bits) for bits in every if cost(bits) <= room)
    # what greed may miss is less than one layer's last steps
    assert loss(chosen) <= best + max(own[2] - own[4] for own in losses.values()) + 1e-9

"""PEFT's config, setting by setting: what it says, what it refuses, and what a stranger may have written into it."""

import time
from pathlib import Path

import pytest

from mlxtune.adapters.patterns import matches
from mlxtune.adapters.peft_rule import read_rule
from mlxtune.errors import AdapterError

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
WHERE = Path("adapter_config.json")
Q = "model.layers.{}.self_attn.q_proj"
EXPERT = "model.layers.1.block_sparse_moe.experts.5.w1"


def rule(**settings):
    return read_rule(CONFIG | settings, WHERE)


# What peft.tuners.tuners_utils.check_target_module_exists (0.20) answers for each.
@pytest.mark.parametrize(
    ("settings", "name", "targeted"),
    [
        ({}, Q.format(0), True),
        ({}, "q_proj", True),
        ({"target_modules": ["proj"]}, Q.format(0), False),
        ({"target_modules": ["self_attn.q_proj"]}, Q.format(0), True),
        ({"target_modules": "q_proj"}, Q.format(0), False),
        ({"target_modules": ".*q_proj"}, Q.format(0), True),
        ({"target_modules": ".*q_pro"}, Q.format(0), False),
        ({"layers_to_transform": [1, 11]}, Q.format(1), True),
        ({"layers_to_transform": [1, 11]}, Q.format(11), True),
        ({"layers_to_transform": [1, 11]}, Q.format(2), False),
        ({"layers_to_transform": 2}, Q.format(2), True),
        ({"layers_to_transform": [0], "layers_pattern": "h"}, Q.format(0), False),
        ({"layers_to_transform": [0], "layers_pattern": ["h", "layers"]}, Q.format(0), True),
        ({"layers_to_transform": [0], "target_modules": [Q.format(3)]}, Q.format(3), True),
        ({"layers_to_transform": [1], "target_modules": ["w1"]}, EXPERT, True),
        ({"layers_to_transform": [5], "target_modules": ["w1"]}, EXPERT, False),
        ({"layers_to_transform": [0], "target_modules": ["lm_head"]}, "lm_head", True),
        ({"layers_to_transform": [0], "target_modules": ["embed_tokens"]}, "model.embed_tokens", False),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, Q.format(0), False),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, Q.format(10), True),
        ({"exclude_modules": r".*\.0\..*"}, Q.format(0), False),
        ({"modules_to_save": ["self_attn"]}, Q.format(0), False),
        ({"modules_to_save": ["attn"]}, Q.format(0), True),
        ({"target_modules": "all-linear"}, "model.layers.0.mlp.gate", True),
        ({"target_modules": "all-linear"}, "lm_head", False),
    ],
)
def test_a_layer_is_targeted_by_peft_s_rules(settings, name, targeted):
    assert rule(**settings).targets_name(name) is targeted


@pytest.mark.parametrize(
    ("settings", "rank", "scale"),
    [
        ({}, 2, 2.0),
        ({"use_rslora": True}, 2, 4 / 2**0.5),
        ({"rank_pattern": {"q_proj": 8}}, 8, 0.5),
        ({"rank_pattern": {"q_proj": 8}, "use_rslora": True, "alpha_pattern": {"q_proj": 3}}, 8, 3 / 8**0.5),
        ({"rank_pattern": {"proj": 8}}, 2, 2.0),
        ({"rank_pattern": {"model.layers.1": 8}}, 2, 2.0),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": 8}}, 8, 0.5),
        ({"rank_pattern": {"^layers.1.self_attn.q_proj": 8}}, 2, 2.0),
        ({"rank_pattern": {r"layers\.\d+\..*": 4, "q_proj": 8}}, 4, 1.0),
        ({"alpha_pattern": {"layers.[02].*": 1}}, 2, 2.0),
        ({"alpha_pattern": {"layers.[01].*": 0.5}}, 2, 0.25),
    ],
)
def test_ranks_and_alphas_are_the_first_pattern_s_that_fits_the_end_of_a_name(settings, rank, scale):
    found = rule(**settings)
    assert found.rank_of(Q.format(1)) == rank
    assert found.scale_of(Q.format(1)) == pytest.approx(scale, rel=1e-15)


def test_settings_that_change_nothing_are_accepted():
    harmless = {"init_lora_weights": True, "use_dora": False, "rank_pattern": {}, "modules_to_save": None}
    harmless |= {"peft_version": "0.21.2", "layers_to_transform": [], "qalora_group_size": 16, "dora_of_tomorrow": None}
    harmless |= {"exclude_modules": None, "alpha_pattern": None, "target_parameters": None, "bias": "none"}
    assert rule(**harmless) == rule()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"lora_bias": True}, "lora_bias"),
        ({"setting_of_tomorrow": 1}, "setting_of_tomorrow"),
        ({"bias": "all"}, "bias: 'all'"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"init_lora_weights": {"a": 1}}, "changes the base"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": {"q_proj": 1}}, "target_modules is"),
        ({"target_modules": ["q_proj", 3]}, "target_modules is"),
        ({"target_modules": ".*q_proj", "layers_to_transform": [0]}, "not with a pattern"),
        ({"layers_to_transform": "top"}, "'top'"),
        ({"layers_to_transform": [0.5]}, "layers_to_transform is"),
        ({"layers_pattern": 3}, "layers_pattern is 3"),
        ({"exclude_modules": 3}, "exclude_modules is 3"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is 'lm_head'"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is"),
        ({"rank_pattern": {"q_proj": 2.0}}, "rank_pattern is"),
        ({"rank_pattern": {"q_proj": 0}}, "rank is at least 1"),
        ({"alpha_pattern": {"q_proj": "4"}}, "alpha_pattern is"),
        ({"alpha_pattern": {"q_proj": -1}}, "above 0"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
        ({"use_dora": 1}, "use_dora is 1"),
        ({"ensure_weight_tying": 1}, "ensure_weight_tying is 1"),
        ({"r": "2"}, "r is '2'"),
        ({"r": True}, "r is True"),
        ({"r": 0}, "rank is at least 1"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"lora_alpha": float("nan")}, "above 0"),
        ({"lora_dropout": "0.1"}, "lora_dropout is '0.1'"),
        ({"lora_dropout": 1}, "dropout is at least 0 and below 1"),
    ],
    ids=str,
)
def test_settings_that_would_change_the_factors_meaning_are_refused_by_name(setting, named):
    with pytest.raises(AdapterError) as caught:
        rule(**setting)
    assert named in caught.value.message
    assert caught.value.where == str(WHERE)


@pytest.mark.parametrize("pattern", ["(", "(*q_proj", "[a", "a{2,1}", "(?P<a>x)(?P<a>y)", "x" * 30_000])
@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "rank_pattern", "layers_pattern"])
def test_a_pattern_that_is_none_is_refused(key, pattern):
    settings = {key: {pattern: 4} if key == "rank_pattern" else pattern}
    if key == "layers_pattern":
        settings |= {"layers_to_transform": [0]}
    found = rule(**settings)
    with pytest.raises(AdapterError, match=r"is no regular expression|characters"):
        found.rank_of(Q.format(0)) if key == "rank_pattern" else found.targets_name(Q.format(0))


@pytest.mark.parametrize("pattern", [r"((.|.)*)*\d\d", r"(.|.)*\d\d\d", r"(?:(.)|.)*\1[A-Z]"])
def test_a_pattern_without_end_is_refused_soon(pattern):
    name = ".".join(["model.layers.0.self_attn"] * 4)
    start = time.monotonic()
    with pytest.raises(AdapterError, match="takes too long"):
        matches(pattern, name)
    assert time.monotonic() - start < 5


def test_as_many_patterns_as_a_large_network_has_layers_are_matched_soon():
    names = [f"model.layers.{i}.mlp.{leaf}_proj" for i in range(100) for leaf in ("q", "k", "v", "o", "up", "down")]
    found = rule(rank_pattern={name.replace(".", r"\."): 3 + i for i, name in enumerate(names)})
    start = time.process_time()
    assert [found.rank_of(name) for name in names] == [3 + i for i in range(600)]
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "setting", [{"trainable_token_indices": [1]}, {"bias": "all"}, {"init_lora_weights": "pissa"}, {"peft_type": "IA3"}]
)
def test_what_peft_alone_can_open_it_is_asked_to_merge(setting):
    with pytest.raises(AdapterError) as caught:
        rule(**setting)
    assert "merge_and_unload" in caught.value.remedy


def test_a_config_is_told_in_one_line_however_long_its_values_are():
    with pytest.raises(AdapterError) as caught:
        rule(target_modules={"x": "y" * 10_000})
    assert len(caught.value.message) < 400

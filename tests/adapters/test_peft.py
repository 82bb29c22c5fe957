"""PEFT's folders: each setting gives the logits of its formula, and what is not known is refused by name."""

import mlx.core as mx
import numpy as np
import pytest
import safetensors.numpy
from adapted import (
    ALL,
    CONFIG,
    MIXTURES,
    NETWORKS,
    QS,
    ROUND_TRIPS,
    TOKENS,
    draw,
    factors,
    layer,
    mixture_tensors,
    on_embedding,
    peft_folder,
    tiny_mixture,
    whole_modules,
)
from families import tiny_network
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters
from reference.peft import PREFIX, merge_peft
from tiny import VOCABULARY_SIZE, tiny_llama

from mlxtune.adapters.attach import Update, attach_updates
from mlxtune.adapters.format import save_adapter, who_can_open
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.merge import layer_updates, merged_weights
from mlxtune.adapters.open import attach_adapter
from mlxtune.adapters.saved import saved_modules, weight_shapes
from mlxtune.device.dequantize import dequantize_network
from mlxtune.errors import AdapterError


def weights_of(network):
    return {name: np.array(array) for name, array in tree_flatten(network.parameters())}


def assert_answers_as(network, weights, *, plain=None):
    """Whether ``network`` gives the logits of a plain one with ``weights``."""
    plain = plain or tiny_llama(tied=False)
    before = np.array(plain(TOKENS))
    plain.load_weights([(name, mx.array(np.asarray(array, np.float32))) for name, array in weights.items()])
    expected = np.array(plain(TOKENS))
    assert np.abs(expected - before).max() > 0.05  # the adapter does something
    np.testing.assert_allclose(np.array(network(TOKENS)), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "ranks", "scales"),
    [
        ({"target_modules": "all-linear"}, dict.fromkeys(ALL, 2), 2.0),
        ({"target_modules": "All-Linear"}, dict.fromkeys(ALL, 2), 2.0),
        ({"use_rslora": True}, dict.fromkeys(QS, 2), 4 / 2**0.5),
        ({"target_modules": r".*\.(q|k)_proj"}, dict.fromkeys([*QS, layer(0, "k_proj"), layer(1, "k_proj")], 2), 2.0),
        ({"target_modules": ["mlp.up_proj"], "layers_to_transform": [1]}, {layer(1, "up_proj"): 2}, 2.0),
        ({"target_modules": ["up_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
         {layer(0, "up_proj"): 2}, 2.0),
        ({"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["v_proj"]}, dict.fromkeys(QS, 2), 2.0),
        ({"target_modules": "all-linear", "exclude_modules": r".*(mlp|[kvo]_proj).*"}, dict.fromkeys(QS, 2), 2.0),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": 4}}, dict(zip(QS, (2, 4), strict=True)),
         dict(zip(QS, (2.0, 1.0), strict=True))),
        ({"alpha_pattern": {"layers.[0].*": 1.0}}, dict.fromkeys(QS, 2), dict(zip(QS, (0.5, 2.0), strict=True))),
        ({"rank_pattern": {"^model.layers.1.self_attn.q_proj": 8}, "use_rslora": True},
         dict(zip(QS, (2, 8), strict=True)), dict(zip(QS, (4 / 2**0.5, 4 / 8**0.5), strict=True))),
        ({"target_modules": ["q_proj", "lm_head"]}, dict.fromkeys([*QS, "lm_head"], 2), 2.0),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_each_way_to_name_layers_ranks_and_strengths_gives_peft_s_weights(tmp_path, settings, ranks, scales):
    network, tensors = tiny_llama(tied=False), factors(ranks)
    expected = merge_peft(
        weights_of(network), tensors, (lambda name: scales if isinstance(scales, float) else scales[name])
    )
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors, CONFIG | settings))
    assert {path for path, _ in lora_layers(network)} == set(ranks)
    assert_answers_as(network, expected)


@pytest.mark.parametrize("dora", [False, True])
def test_an_embedding_s_factors_give_peft_s_weights(tmp_path, dora):
    network = tiny_llama(tied=False)
    tensors = on_embedding(dora=dora) | factors(dict.fromkeys(QS, 2), dora=dora)
    config = CONFIG | {"target_modules": ["q_proj", "embed_tokens"], "use_dora": dora}
    expected = merge_peft(weights_of(network), tensors, lambda _: 2.0)
    # PEFT writes the base's embedding and head beside it
    copies = {f"{PREFIX}model.embed_tokens.base_layer.weight": np.array(network.model.embed_tokens.weight)}
    copies[f"{PREFIX}lm_head.weight"] = np.array(network.lm_head.weight)
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors | copies, config))
    assert_answers_as(network, expected)


def test_dora_on_linear_layers_gives_peft_s_weights(tmp_path):
    network, tensors = tiny_llama(tied=False), factors(dict.fromkeys(ALL, 2), dora=True)
    expected = merge_peft(weights_of(network), tensors, lambda _: 2.0)
    config = CONFIG | {"target_modules": "all-linear", "use_dora": True}
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors, config))
    assert_answers_as(network, expected)


@pytest.mark.parametrize("quantized", [False, True])
def test_whole_modules_are_the_file_s_own(tmp_path, quantized):
    network = tiny_llama(tied=False, quantized=quantized)
    names = ["lm_head", "model.embed_tokens", "model.norm"]
    tensors = factors(dict.fromkeys(QS, 2)) | whole_modules(names)
    config = CONFIG | {"modules_to_save": ["lm_head", "embed_tokens", "model.norm"]}
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors, config))
    assert [path for path, _ in saved_modules(network)] == names
    if not quantized:
        assert_answers_as(network, merge_peft(weights_of(tiny_llama(tied=False)), tensors, lambda _: 2.0))
    np.testing.assert_array_equal(np.array(network.lm_head.saved.weight), tensors[f"{PREFIX}lm_head.weight"])


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(
    ("tensors", "settings"),
    [
        (on_embedding(), {"target_modules": ["embed_tokens"]}),
        (on_embedding(dora=True), {"target_modules": ["embed_tokens"], "use_dora": True}),
        (factors({"lm_head": 2}), {"target_modules": ["lm_head"]}),
        (whole_modules(["lm_head"]) | factors(dict.fromkeys(QS, 2)), {"modules_to_save": ["lm_head"]}),
        (whole_modules(["model.embed_tokens"]) | factors(dict.fromkeys(QS, 2)), {"modules_to_save": ["embed_tokens"]}),
        (whole_modules(["model.embed_tokens", "lm_head"]), {"target_modules": [],
                                                            "modules_to_save": ["lm_head", "embed_tokens"]}),
    ],
    ids=["embedding", "embedding, DoRA", "head", "saved head", "saved embedding", "saved both"],
)  # fmt: skip
def test_on_a_tied_model_peft_changes_one_end_and_leaves_the_other(tmp_path, tensors, settings, quantized):
    network = tiny_llama(tied=True, quantized=quantized)
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors, CONFIG | settings))
    tied = tiny_llama(tied=True, quantized=quantized)
    dequantize_network(tied)  # into the weights that packed ones stand for
    weights = weights_of(tied)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    assert_answers_as(network, merge_peft(weights, tensors, lambda _: 2.0))


def test_with_ensure_weight_tying_both_ends_change_alike(tmp_path):
    tensors = on_embedding()
    name = f"{PREFIX}model.embed_tokens.lora_embedding"
    head = {f"{PREFIX}lm_head.lora_A.weight": np.ascontiguousarray(tensors[f"{name}_B"].T),
            f"{PREFIX}lm_head.lora_B.weight": np.ascontiguousarray(tensors[f"{name}_A"].T)}  # fmt: skip
    config = CONFIG | {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}
    network = tiny_llama(tied=True)
    weights = weights_of(network) | {"lm_head.weight": weights_of(network)["model.embed_tokens.weight"]}
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors | head, config))
    assert_answers_as(network, merge_peft(weights, tensors | head, lambda _: 2.0))
    head[f"{PREFIX}lm_head.lora_A.weight"] = head[f"{PREFIX}lm_head.lora_A.weight"] + 1
    with pytest.raises(AdapterError, match="head is not its embedding's"):
        attach_adapter(tiny_llama(tied=True), peft_folder(tmp_path / "other", tensors | head, config))


STACKED = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_that_peft_has_one_by_one_are_stacked(tmp_path, family):
    kind, pattern, leaves = MIXTURES[family]
    network, tensors = tiny_mixture(kind), mixture_tensors(pattern, leaves)
    weights = weights_of(network)
    inner = pattern.split(".experts")[0]
    apart = {}  # as Hugging Face has them
    for i in range(2):
        for leaf in leaves:
            stacked = weights.pop(f"model.layers.{i}.{inner}.switch_mlp.{STACKED.get(leaf, leaf)}.weight")
            apart |= {f"model.layers.{i}.{pattern.format(e, leaf)}.weight": stacked[e] for e in range(4)}
    merged = merge_peft(weights | apart, tensors, lambda _: 2.0)
    plain = tiny_mixture(kind)
    merged = plain.sanitize({name: mx.array(np.asarray(array, np.float32)) for name, array in merged.items()})
    config = CONFIG | {"target_modules": list(leaves)}
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors, config))
    assert len(lora_layers(network)) == 6
    assert_answers_as(network, merged, plain=plain)


def test_experts_that_differ_in_rank_or_are_missing_are_refused(tmp_path):
    _, pattern, leaves = MIXTURES["mixtral"]
    tensors = mixture_tensors(pattern, leaves, experts=3)
    config = CONFIG | {"target_modules": list(leaves)}
    with pytest.raises(AdapterError, match=r"lora_a of \[3, 2, 64\], and takes \[4, 2, 64\]"):
        attach_adapter(tiny_mixture(), peft_folder(tmp_path / "few", tensors, config))
    tensors = mixture_tensors(pattern, leaves)
    name = "model.layers.0.block_sparse_moe.experts.1.w1"
    tensors |= factors({name: 3}, dims={"w1": (64, 64)})
    config |= {"rank_pattern": {"layers.0.block_sparse_moe.experts.1.w1": 3}}
    with pytest.raises(AdapterError, match=r"gate_proj has experts of different ranks"):
        attach_adapter(tiny_mixture(), peft_folder(tmp_path / "odd", tensors, config))


NOT_FOR_MLX_LM = {
    "ranks": "ranks differ by layer",
    "alphas": "alpha differs by layer",
    "DoRA of an embedding": "its DoRA of embeddings is another one",
    "saved": "it knows no modules_to_save",
    "tied, embedding": "it ties the head to the embedding, which this adapter changes without the other",
    "tied, saved head": "it knows no modules_to_save",
    "tied, saved both": "it knows no modules_to_save",
}


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_what_came_in_goes_out_again_with_the_same_tensors_and_meaning(tmp_path, case):
    kind, tensors, settings = ROUND_TRIPS[case]
    network = NETWORKS[kind]()
    attach_adapter(network, peft_folder(tmp_path / "in", tensors, CONFIG | settings))
    (tmp_path / "out").mkdir()
    save_adapter(network, tmp_path / "out", base_model="org/base")
    written = safetensors.numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(np.array_equal(written[name], array) for name, array in tensors.items())
    assert who_can_open(tmp_path / "out") == {"PEFT": None, "mlx-lm": NOT_FOR_MLX_LM.get(case)}
    for file in (tmp_path / "out").glob("adapters.safetensors"):
        theirs = NETWORKS[kind]()
        load_adapters(theirs, str(tmp_path / "out")).eval()
        np.testing.assert_allclose(np.array(theirs(TOKENS)), np.array(network(TOKENS)), rtol=0, atol=2e-5)
        file.unlink()  # so that PEFT's half is what is read
    again = NETWORKS[kind]()
    attach_adapter(again, tmp_path / "out")
    assert mx.array_equal(again(TOKENS), network(TOKENS))
    for (_, ours), (_, others) in zip(lora_layers(network), lora_layers(again), strict=True):
        assert (ours.rank, ours.dropout) == (others.rank, others.dropout)
        assert ours.scale == pytest.approx(others.scale, rel=1e-15)


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_a_plain_network_with_the_merged_weights_answers_as_base_plus_adapter(tmp_path, case):
    kind, tensors, settings = ROUND_TRIPS[case]
    network, plain = NETWORKS[kind](), NETWORKS[kind]()
    attach_adapter(network, peft_folder(tmp_path / "in", tensors, CONFIG | settings))
    if case in ("tied, embedding", "tied, saved head"):
        with pytest.raises(AdapterError, match=r"changes one of model\.embed_tokens and the head tied to it"):
            list(merged_weights(network, mx.float32))
        return
    before = weights_of(plain)
    merged = dict(merged_weights(network, mx.float32))
    plain.load_weights(list(merged.items()))  # strict: every name, no other
    np.testing.assert_allclose(np.array(plain(TOKENS)), np.array(network(TOKENS)), rtol=0, atol=2e-5)
    updates = dict(layer_updates(network))
    changed = {
        name.removesuffix(".weight") for name in merged if not np.array_equal(np.array(merged[name]), before[name])
    }
    assert updates.keys() == changed
    for path, (weight, update) in updates.items():
        np.testing.assert_array_equal(np.array(weight), before[f"{path}.weight"])
        np.testing.assert_allclose(np.array(weight + update), np.array(merged[f"{path}.weight"]), rtol=0, atol=1e-5)


def changed(tensors, name, array):
    return tensors | {f"{PREFIX}{name}": np.asarray(array)}


PAIR = factors(dict.fromkeys(QS, 2))
A = f"{QS[0]}.lora_A.weight"


@pytest.mark.parametrize(
    ("tensors", "settings", "named"),
    [
        (changed(PAIR, A, np.full((2, 64), np.nan, np.float32)), {}, "values that are not finite"),
        (changed(PAIR, A, np.zeros((2, 64), np.int32)), {}, "not a matrix of floats"),
        (changed(PAIR, A, np.zeros((2, 64, 1), np.float32)), {}, "not a matrix of floats"),
        (changed(PAIR, A, np.zeros((3, 64), np.float32)), {}, "ranks 3 and 2; the config says 2"),
        (changed(PAIR, A, np.zeros((2, 65), np.float32)), {}, r"lora_a of \[65, 2\], and takes \[64, 2\]"),
        (PAIR, {"r": 3}, "ranks 2 and 2; the config says 3"),
        (PAIR, {"rank_pattern": {"layers.1.self_attn.q_proj": 4}}, "layers.1.* ranks 2 and 2; the config says 4"),
        (PAIR, {"layers_to_transform": [1]}, "factors for model.layers.0.self_attn.q_proj, which .* not target"),
        (PAIR, {"target_modules": ["v_proj"]}, "which the config does not target"),
        (PAIR, {"exclude_modules": ["q_proj"]}, "which the config does not target"),
        (PAIR, {"target_modules": ["q_proj", "v_proj"]}, r"layers\.0\.self_attn\.v_proj\.lora_a is missing"),
        (PAIR, {"target_modules": "all-linear"}, "down_proj.lora_a is missing"),
        (PAIR | on_embedding(), {"target_modules": "all-linear"}, "embed_tokens has factors, and the config does not"),
        (PAIR, {"use_dora": True}, "has no magnitude, and use_dora is true"),
        (factors(dict.fromkeys(QS, 2), dora=True), {}, "has a magnitude, and use_dora is false"),
        (changed(factors(dict.fromkeys(QS, 2), dora=True), f"{QS[0]}.lora_magnitude_vector",
                 np.ones(65, np.float32)), {"use_dora": True}, r"m of \[65\], and takes \[64\]"),
        ({name: array for name, array in PAIR.items() if "lora_B" not in name}, {}, "only one of its two factors"),
        (factors({"x.q_proj": 2}), {}, "x.q_proj has no place in the network"),
        (factors({"model.norm": 2}, dims={"norm": (64, 64)}), {"target_modules": ["norm"]},
         "norm is no layer that can"),
        ({"model.layers.0.x": np.zeros((2, 2), np.float32)}, {}, "is no tensor of a PEFT adapter"),
        (changed(PAIR, "lm_head.bias", np.zeros(4, np.float32)), {}, "lm_head.bias is no part of a LoRA adapter"),
        (changed(PAIR, "lm_head.weight", np.zeros((4, 64), np.float32)), {}, r"lm_head.weight is \[4, 64\]"),
        (changed(PAIR, "lm_head.weight", np.ones((VOCABULARY_SIZE, 64), np.float32)), {}, "is not the network's"),
        (changed(PAIR, "score.weight", np.ones((4, 64), np.float32)), {}, "score has no place"),
        (changed(PAIR, "lm_head.weight", np.zeros((4, 64), np.float32)), {"modules_to_save": ["lm_head"]},
         r"lm_head is weight of \[4, 64\], and the network's is weight of \[264, 64\]"),
        (changed(PAIR, "model.layers.0.weight", np.zeros((4, 64), np.float32)), {},
         r"model.layers.0.weight is \[4, 64\], the network's is without weights"),
        (changed({}, "model.weight", np.zeros((4, 64), np.float32)),
         {"target_modules": [], "modules_to_save": ["model"]}, "the network's is without weights"),
        ({}, {}, "the adapter has no factors"),
    ],
    ids=lambda value: str(value)[-60:],
)  # fmt: skip
def test_tensors_that_deny_the_config_or_the_network_are_refused_by_name(tmp_path, tensors, settings, named):
    folder = peft_folder(tmp_path / "adapter", tensors, CONFIG | settings)
    with pytest.raises(AdapterError, match=named) as caught:
        attach_adapter(tiny_llama(tied=False), folder)
    assert caught.value.where.startswith(str(folder))
    assert caught.value.remedy


def test_a_family_whose_weights_mlx_lm_rewrites_takes_nothing_from_peft(tmp_path, monkeypatch):
    monkeypatch.setattr("mlxtune.adapters.names.REWRITTEN", ("llama",))
    with pytest.raises(AdapterError, match="rewrites the weights of llama"):
        attach_adapter(tiny_llama(), peft_folder(tmp_path / "adapter", PAIR))


@pytest.mark.parametrize("norm_head", [True, False])
def test_a_head_that_mlx_lm_normalizes_takes_nothing_from_peft(tmp_path, norm_head):
    network = tiny_network("bailing_moe", norm_head=norm_head)
    folder = peft_folder(tmp_path / "in", factors({"lm_head": 2}), CONFIG | {"target_modules": ["lm_head"]})
    if not norm_head:
        attach_adapter(network, folder)
        assert [path for path, _ in lora_layers(network)] == ["lm_head"]
        return
    with pytest.raises(AdapterError, match="rewrites the weights of bailing_moe's head") as caught:
        attach_adapter(network, folder)
    assert "merge" in caught.value.remedy


def test_an_update_of_a_head_that_mlx_lm_normalizes_is_not_written_for_peft(tmp_path):
    network = tiny_network("bailing_moe", norm_head=True)
    attach_updates(network, {"lm_head": Update(draw((64, 2), 0), draw((VOCABULARY_SIZE, 2), 1).T, 1.0)})
    save_adapter(network, tmp_path, base_model="org/base")
    assert who_can_open(tmp_path) == {"PEFT": "it has no name for lm_head", "mlx-lm": None}


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "dots1"])
def test_a_router_that_is_more_than_a_layer_is_no_module_to_save(tmp_path, family):
    network = tiny_network(family)
    path, module = next((path, module) for path, module in network.named_modules() if path.endswith(".mlp.gate"))
    tensors = {f"{PREFIX}{path}.{leaf}": np.array(module[leaf]) for leaf in weight_shapes(module)}
    folder = peft_folder(tmp_path / "in", tensors, CONFIG | {"target_modules": [], "modules_to_save": ["gate"]})
    with pytest.raises(AdapterError, match=rf"{path} is a {type(module).__name__}"):
        attach_adapter(network, folder)


@pytest.mark.parametrize(
    ("family", "inner", "is_known"),
    [("gemma2", "model.norm", True), ("gemma3_text", "model.layers.0.self_attn.q_norm", True),
     ("mamba2", "backbone.layers.0.mixer.norm", False), ("stablelm", "model.norm", True)],
)  # fmt: skip
def test_a_norm_is_a_module_to_save_where_it_takes_states_alone(tmp_path, family, inner, is_known):
    network, plain = tiny_network(family), tiny_network(family)
    tensors = {f"{PREFIX}{inner}.{leaf}": np.full(shape, 0.5, np.float32)
               for leaf, shape in weight_shapes(dict(network.named_modules())[inner]).items()}  # fmt: skip
    folder = peft_folder(tmp_path / "in", tensors, CONFIG | {"target_modules": [], "modules_to_save": [inner]})
    if not is_known:
        with pytest.raises(AdapterError, match=r"mixer\.norm is a MambaRMSNormGated"):
            attach_adapter(network, folder)
        return
    attach_adapter(network, folder)
    saved = {name.removeprefix(PREFIX): array for name, array in tensors.items()}
    assert_answers_as(network, weights_of(plain) | saved, plain=plain)


def test_a_router_may_have_no_factors(tmp_path):
    """In newer versions of transformers it is no linear layer, so all-linear passes it over there."""
    names = [
        f"model.layers.{i}.self_attn.{leaf}" for i in range(2) for leaf in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    tensors = factors(dict.fromkeys(names, 2))
    config = CONFIG | {"target_modules": "all-linear"}
    network = tiny_mixture()
    attach_adapter(network, peft_folder(tmp_path / "adapter", tensors, config))
    assert [path for path, _ in lora_layers(network)] == sorted(names)

"""Adapted networks where they are put to work: read at targets alone, trained, recomputed, generating, fused."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from adapted import (
    CASES,
    CONFIG,
    NETWORKS,
    QS,
    ROUND_TRIPS,
    TOKENS,
    draw,
    factors,
    peft_folder,
    trained_by_mlx_lm,
)
from click.testing import CliRunner
from families import tiny_network
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters
from tiny import tiny_llama, tiny_model_folder, tiny_recipe, write_tokenizer

from mlxtune.adapters.attach import (
    LoraShape,
    Update,
    adapter_parameters,
    attach_lora,
    attach_updates,
    load_adapter_parameters,
)
from mlxtune.adapters.format import save_adapter, who_can_open
from mlxtune.adapters.lora import set_dropout_keys
from mlxtune.adapters.open import attach_adapter
from mlxtune.cli import main
from mlxtune.device.precision import GPU_BFLOAT16, apply_precision
from mlxtune.errors import AdapterError
from mlxtune.inference.likelihood import make_reader, target_logits, target_loss_sum, target_states
from mlxtune.iteration.run import run_recipe
from mlxtune.models.anatomy import anatomy_of
from mlxtune.models.source import find_model
from mlxtune.training.frozen_prefix import frozen_depth
from mlxtune.training.recompute import recompute_blocks

BOTH_ENDS = ["embedding", "head", "saved", "tied, embedding", "tied, both", "tied, saved head", "tied, saved both"]


@pytest.mark.parametrize("case", [*BOTH_ENDS, "mixtral"])
def test_logits_at_targets_are_the_network_s_whatever_is_on_its_head(tmp_path, case):
    kind, tensors, settings = ROUND_TRIPS[case]
    network = NETWORKS[kind]()
    attach_adapter(network, peft_folder(tmp_path, tensors, CONFIG | settings))
    reader = make_reader(network)
    assert reader.shares_prefixes
    index = mx.array([0, 2, 3])
    found = target_logits(reader, target_states(reader, TOKENS[0, :2], TOKENS[:, 2:], index))
    np.testing.assert_allclose(np.array(found), np.array(network(TOKENS)[0, index + 2]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", ["head", "tied, both", "tied, saved head"])
def test_what_is_on_the_head_is_trained_with_the_gradients_of_full_logits(tmp_path, case):
    kind, tensors, settings = ROUND_TRIPS[case]
    network = NETWORKS[kind]()
    attach_adapter(network, peft_folder(tmp_path, tensors, CONFIG | settings))
    reader, index = make_reader(network), mx.array([0, 2, 3])
    ids, weight = mx.array([7, 8, 9]), mx.array([1.0, 0.5, 2.0])
    empty = mx.zeros(0, mx.int32)

    def gradients(reader):
        def loss():
            return target_loss_sum(reader, target_states(reader, empty, TOKENS, index), ids, weight)

        return nn.value_and_grad(network, loss)()

    found, expected = gradients(reader), gradients(replace(reader, anatomy=None, windows=None))
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    wanted = dict(tree_flatten(expected[1]))
    assert any(np.abs(np.array(array)).max() > 0 for array in wanted.values())
    for name, array in tree_flatten(found[1]):
        np.testing.assert_allclose(np.array(array), np.array(wanted[name]), rtol=0, atol=2e-5, err_msg=name)


def test_nothing_is_frozen_below_an_embedding_that_trains():
    network = tiny_llama(layers=3, tied=False)
    attach_lora(network, LoraShape(rank=2, alpha=4.0, layers=1), seed=0)
    assert frozen_depth(anatomy_of(network)) == 2
    network = tiny_llama(layers=3, tied=False)
    rows = network.model.embed_tokens.weight.shape[0]
    attach_updates(network, {"model.embed_tokens": Update(draw((rows, 2), 0), draw((2, 64), 1), 1.0)})
    assert frozen_depth(anatomy_of(network)) == 0


def test_recomputed_experts_have_the_gradients_of_kept_ones():
    gradients = []
    for every in (None, 1):
        network = NETWORKS["mixtral"]()
        attach_lora(network, LoraShape(rank=2, alpha=4.0, dropout=0.5), seed=0)
        load_adapter_parameters(network, {name: array + 0.1 for name, array in adapter_parameters(network).items()})
        recompute_blocks(network, every)
        set_dropout_keys(network, mx.random.key(3))

        def loss(network=network):
            return (network(mx.arange(80)[None]) ** 2).mean()  # enough rows to be sorted by their experts

        gradients.append(dict(tree_flatten(nn.value_and_grad(network, loss)()[1])))
    assert gradients[0].keys() == gradients[1].keys()
    assert all(mx.array_equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def invoke(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu", "--json"])


def run(*arguments):
    result = invoke(*arguments, "--quiet")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def as_peft_has_it(folder):
    settings = {"use_dora": True, "rank_pattern": {"layers.1.self_attn.q_proj": 4}}
    return peft_folder(folder, factors({QS[0]: 2, QS[1]: 4}, dora=True), CONFIG | settings)


def as_mlx_lm_has_it(folder):
    kind, options = CASES["whole paths"]
    trained_by_mlx_lm(folder, kind, **options)
    return folder


@pytest.mark.parametrize("adapter_in", [as_peft_has_it, as_mlx_lm_has_it])
def test_other_programs_adapters_generate_and_fuse_into_what_they_generate(tmp_path, adapter_in):
    base, adapter = tiny_model_folder(tmp_path / "base", tied=False), adapter_in(tmp_path / "adapter")
    asked = ("--prompt", "Whisper x", "--max-tokens", 12)
    tuned = run("generate", base, "--adapter", adapter, *asked)
    assert tuned != run("generate", base, *asked)
    report = run("fuse", base, tmp_path / "out", "--adapter", adapter)
    assert report["update_kept"] == pytest.approx(1.0, abs=1e-4)
    assert run("generate", tmp_path / "out", *asked) == tuned


def test_an_adapter_that_no_merged_model_can_hold_is_named_with_its_folder(tmp_path):
    base = tiny_model_folder(tmp_path / "base")
    adapter = peft_folder(tmp_path / "adapter", *ROUND_TRIPS["tied, embedding"][1:2],
                          CONFIG | ROUND_TRIPS["tied, embedding"][2])  # fmt: skip
    for command in (["fuse", base, tmp_path / "out"], ["export", "gguf", base, tmp_path / "out.gguf"]):
        result = invoke(*command, "--adapter", adapter, "--quiet")
        assert result.exit_code == 1
        error = json.loads(result.stderr.splitlines()[-1])["error"]
        assert "which a merged model has as one" in error["message"]
        assert error["where"] == str(adapter)


def test_an_adapter_of_another_stored_base_is_used_with_a_note(tmp_path):
    told = "note: the adapter was trained on another base, or the same stored otherwise"
    base, folder = tiny_model_folder(tmp_path / "base"), tmp_path / "adapter"
    network = tiny_llama()
    attach_lora(network, LoraShape(rank=2, alpha=4.0), seed=0)
    for sha256, is_told in ((find_model(str(base)).sha256, False), ("0" * 64, True)):
        folder.mkdir(exist_ok=True)
        save_adapter(network, folder, base_model="base", extra={"model_sha256": sha256})
        asked = invoke("generate", base, "--adapter", folder, "--prompt", "x", "--max-tokens", 2)
        fused = invoke("fuse", base, tmp_path / "out", "--adapter", folder, "--force")
        assert (asked.exit_code, fused.exit_code) == (0, 0)
        assert [told in result.stderr for result in (asked, fused)] == [is_told, is_told]
        assert ("another base" in str(json.loads(fused.stdout)["note"])) is is_told


def mixture_folder(folder):
    folder.mkdir()
    network = NETWORKS["mixtral"]()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())), {"format": "mlx"})
    config = {key: value for key, value in vars(network.args).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 2}))
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("recompute", ["off", "{every: 1}"])
def test_a_recipe_trains_a_mixture_s_experts_and_mlx_lm_opens_what_comes_out(tmp_path, recompute):
    recipe = tiny_recipe(tmp_path)
    base = mixture_folder(tmp_path / "mixture")
    overrides = [f"model.source={base}", "method.layers={top: 1}", "training.max_steps=2", "training.epochs=null"]
    overrides += ["evaluation.tasks=[]", f"training.grad_checkpoint={recompute}"]
    done = run_recipe(recipe, overrides, run_dir=tmp_path / "run", device="cpu", score=False)
    assert done.steps == 2
    adapter = tmp_path / "run" / "adapter"
    trained = mx.load(str(adapter / "adapters.safetensors"))
    path = "model.layers.1.block_sparse_moe.switch_mlp.up_proj"
    assert mx.any(trained[f"{path}.lora_b"]).item()
    assert {name.split(".")[2] for name in trained} == {"1"}
    ours, theirs = NETWORKS["mixtral"](), NETWORKS["mixtral"]()
    attach_adapter(ours, adapter)
    load_adapters(theirs, str(adapter)).eval()
    np.testing.assert_allclose(np.array(theirs(TOKENS)), np.array(ours(TOKENS)), rtol=0, atol=2e-5)
    assert who_can_open(adapter) == {"PEFT": None, "mlx-lm": None}


@pytest.mark.parametrize("case", [*BOTH_ENDS, "DoRA", "DoRA of an embedding", "mixtral"])
def test_nothing_of_an_adapter_widens_a_gpu_s_activations(tmp_path, case):
    kind, tensors, settings = ROUND_TRIPS[case]
    network = NETWORKS[kind](quantized=True)
    apply_precision(network, GPU_BFLOAT16)
    attach_adapter(network, peft_folder(tmp_path, tensors, CONFIG | settings))
    assert network(TOKENS).dtype == mx.bfloat16
    assert network.model(TOKENS).dtype == mx.bfloat16
    assert {array.dtype for array in adapter_parameters(network).values()} == {mx.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_gets_nothing_where_its_weight_is_read_as_the_head_s(tmp_path, tied):
    network = tiny_network("seed_oss", tie_word_embeddings=tied)
    folder = peft_folder(tmp_path, *ROUND_TRIPS["embedding"][1:2], CONFIG | ROUND_TRIPS["embedding"][2])
    if tied:
        with pytest.raises(AdapterError, match=r"embed_tokens, and what seed_oss does with it is not known"):
            attach_adapter(network, folder)
        return
    before = network(TOKENS)
    attach_adapter(network, folder)
    assert not mx.allclose(network(TOKENS), before)


def test_an_end_whose_use_is_not_known_gets_nothing(tmp_path, monkeypatch):
    folder = peft_folder(tmp_path, *ROUND_TRIPS["embedding"][1:2], CONFIG | ROUND_TRIPS["embedding"][2])
    for place, value in (("names.WEIGHT_READERS", ("llama",)), ("names.anatomy_of", lambda _: None)):
        with monkeypatch.context() as patch:
            patch.setattr(f"mlxtune.adapters.{place}", value)
            with pytest.raises(AdapterError, match=r"embed_tokens, and what llama does with it is not known"):
                attach_adapter(NETWORKS["tied"](), folder)

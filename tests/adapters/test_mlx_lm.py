"""mlx-lm's folders, of every kind that its trainer makes, answer as they do there, and go out again as they came."""

import json

import mlx.core as mx
import numpy as np
import pytest
from adapted import CASES, NETWORKS, TOKENS, trained_by_mlx_lm
from mlx_lm.tuner.utils import load_adapters

from mlxtune.adapters.format import save_adapter, who_can_open
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.merge import merged_weights
from mlxtune.adapters.open import attach_adapter
from mlxtune.errors import AdapterError

QUANTIZED = [name for name in CASES if "DoRA of" not in name]  # mlx-lm has no DoRA of quantized embeddings


@pytest.mark.parametrize(
    ("case", "quantized"), [(case, False) for case in CASES] + [(case, True) for case in QUANTIZED]
)
def test_a_folder_of_mlx_lm_answers_as_it_does_there(tmp_path, case, quantized):
    kind, options = CASES[case]
    theirs = trained_by_mlx_lm(tmp_path / "in", kind, quantized=quantized, **options)
    ours = NETWORKS[kind](quantized=quantized)
    before = np.array(ours(TOKENS))
    attach_adapter(ours, tmp_path / "in")
    assert np.abs(np.array(ours(TOKENS)) - before).max() > 0.1
    np.testing.assert_allclose(np.array(ours(TOKENS)), np.array(theirs(TOKENS)), rtol=0, atol=2e-4)


NOT_FOR_PEFT = {name: "its DoRA of model.embed_tokens is another one" for name in CASES if "DoRA of" in name}


@pytest.mark.parametrize("case", CASES)
def test_what_came_in_goes_out_again_for_both_programs(tmp_path, case):
    kind, options = CASES[case]
    trained_by_mlx_lm(tmp_path / "in", kind, **options)
    ours = NETWORKS[kind]()
    attach_adapter(ours, tmp_path / "in")
    (tmp_path / "out").mkdir()
    save_adapter(ours, tmp_path / "out", base_model="base")
    assert who_can_open(tmp_path / "out") == {"mlx-lm": None, "PEFT": NOT_FOR_PEFT.get(case)}
    before, after = (mx.load(str(tmp_path / name / "adapters.safetensors")) for name in ("in", "out"))
    assert before.keys() == after.keys()
    assert all(mx.array_equal(before[name], after[name]) for name in before)
    theirs = load_adapters(NETWORKS[kind](), str(tmp_path / "out"))
    np.testing.assert_allclose(np.array(theirs(TOKENS)), np.array(ours(TOKENS)), rtol=0, atol=2e-4)
    if case not in NOT_FOR_PEFT:
        (tmp_path / "out" / "adapters.safetensors").unlink()  # so that PEFT's half is what is read
        again = NETWORKS[kind]()
        attach_adapter(again, tmp_path / "out")
        assert mx.array_equal(again(TOKENS), ours(TOKENS))


@pytest.mark.parametrize("case", CASES)
def test_it_merges_into_what_it_answers(tmp_path, case):
    kind, options = CASES[case]
    trained_by_mlx_lm(tmp_path / "in", kind, **options)
    ours, plain = NETWORKS[kind](), NETWORKS[kind]()
    attach_adapter(ours, tmp_path / "in")
    plain.load_weights(list(merged_weights(ours, mx.float32)))
    np.testing.assert_allclose(np.array(plain(TOKENS)), np.array(ours(TOKENS)), rtol=0, atol=2e-4)


def test_peft_is_not_given_experts_of_a_family_that_has_them_as_one_parameter(tmp_path, monkeypatch):
    trained_by_mlx_lm(tmp_path / "in", "mixtral")
    ours = NETWORKS["mixtral"]()
    attach_adapter(ours, tmp_path / "in")
    monkeypatch.setattr("mlxtune.adapters.names.EXPERTS_APART", {})
    (tmp_path / "out").mkdir()
    save_adapter(ours, tmp_path / "out", base_model="base")
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert "it has no name for model.layers.0.block_sparse_moe" in who_can_open(tmp_path / "out")["PEFT"]
    again = NETWORKS["mixtral"]()
    attach_adapter(again, tmp_path / "out")
    assert len(lora_layers(again)) == len(lora_layers(ours))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fine_tune_type": "dora"}, "has no magnitude, and fine_tune_type is dora"),
        ({"num_layers": 1}, r"layers\.0.* has factors, and the config does not target it"),
        ({"num_layers": 0, "keys": ["q_proj"]}, "the config does not target"),
        ({"keys": ["self_attn.q_proj", "mlp.up_proj"]}, r"up_proj\.lora_a is missing"),
        ({"rank": 3}, "ranks 2 and 2; the config says 3"),
        ({"scale": float("inf")}, "scale is inf, not a number"),
        ({"scale": 0}, "above 0"),
        ({"num_layers": "all"}, "num_layers is 'all'"),
    ],
)
def test_a_config_that_is_not_the_tensors_is_refused(tmp_path, change, named):
    trained_by_mlx_lm(tmp_path, "untied", keys=["self_attn.q_proj"])
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for key, value in change.items():
        (config if key in config else config["lora_parameters"])[key] = value
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=named):
        attach_adapter(NETWORKS["untied"](), tmp_path)

"""Our adapter files in PEFT and transformers, PEFT's in ours, and a fused folder in transformers: the same logits."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_llama, tiny_model_folder

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import save_adapter
from mlxtune.adapters.open import attach_adapter
from mlxtune.deployment.fuse import fuse
from mlxtune.device.precision import CPU_FLOAT32

pytestmark = [
    pytest.mark.slow,
    # torch's and PEFT's own warnings are not ours; PEFT warns of the keys that it does not know
    pytest.mark.filterwarnings("default"),
]

TOKENS = [[5, 6, 7, 8, 200, 31]]
SHAPES = [
    LoraShape(rank=4, alpha=10.0),
    LoraShape(rank=2, alpha=4.0, layers=1),
    LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "down_proj"), layers=2),
    LoraShape(rank=2, alpha=4.0, target_modules=("layers.0.self_attn.v_proj", "layers.2.mlp.up_proj")),
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: make conformance installs it")


@pytest.fixture(scope="module")
def peft(torch):
    return pytest.importorskip("peft", reason="peft is not installed: make conformance installs it")


def theirs(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).float().eval()


def logits_of(torch, model):
    """In float64, so that the only rounding in a comparison is ours; the model is float64 afterwards."""
    with torch.no_grad():
        return model.double()(torch.tensor(TOKENS)).logits.numpy()


def assert_same(logits, expected, before):
    assert np.abs(expected - before).max() > 0.2  # the adapter does something
    np.testing.assert_allclose(np.array(logits), np.array(expected), rtol=0, atol=1e-5)


def tuned(shape):
    network = tiny_llama(layers=3)
    attach_lora(network, shape, seed=0)
    parameters = adapter_parameters(network)
    keys = mx.random.split(mx.random.key(1), len(parameters))
    drawn = [0.1 * mx.random.normal(array.shape, key=key) for array, key in zip(parameters.values(), keys, strict=True)]
    load_adapter_parameters(network, dict(zip(parameters, drawn, strict=True)))
    return network


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_peft_opens_our_folder_and_gives_the_same_logits(tmp_path, torch, peft, shape):
    base = tiny_model_folder(tmp_path / "base", layers=3)
    network = tuned(shape)
    (tmp_path / "adapter").mkdir()
    save_adapter(network, tmp_path / "adapter", base_model=str(base))
    model = theirs(base)
    before = logits_of(torch, model)
    adapted = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter")).eval()
    assert_same(network(mx.array(TOKENS)), logits_of(torch, adapted), before)
    names = {name.removesuffix(".lora_A.default.weight") for name in adapted.state_dict() if "lora_A" in name}
    expected = {name.removesuffix(".lora_a") for name in adapter_parameters(network) if name.endswith("lora_a")}
    assert {name.removeprefix("base_model.model.") for name in names} == expected


METHODS = [
    (LoraShape(rank=4, alpha=6.0, use_rslora=True), True),
    (LoraShape(rank=4, alpha=6.0, use_dora=True, layers=2), True),
    (LoraShape(rank=4, alpha=6.0, use_dora=True, use_rslora=True), True),
    (LoraShape(rank=4, alpha=6.0, rank_pattern={"v_proj": 2, r"layers\.1\..*up_proj": 6}), True),
    (LoraShape(rank=4, alpha=6.0, alpha_pattern={"mlp.down_proj": 3.0}, use_rslora=True), True),
    (LoraShape(rank=2, alpha=4.0, modules_to_save=("embed_tokens", "norm")), True),
    (LoraShape(rank=2, alpha=4.0, modules_to_save=("lm_head",)), False),
    (LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "embed_tokens")), True),
    (LoraShape(rank=2, alpha=4.0, target_modules=("q_proj", "embed_tokens", "lm_head")), False),
]


@pytest.mark.parametrize(("shape", "tied"), METHODS, ids=str)
def test_peft_opens_what_every_method_leaves_and_gives_the_same_logits(tmp_path, torch, peft, shape, tied):
    base = tiny_model_folder(tmp_path / "base", layers=3, tied=tied)
    network = tiny_llama(layers=3, tied=tied)
    attach_lora(network, shape, seed=0)
    moved = {}
    for number, (name, array) in enumerate(adapter_parameters(network).items()):
        noise = 0.1 * mx.random.normal(array.shape, key=mx.random.key(number))
        moved[name] = array * (1 + noise) if name.endswith(".m") else array + noise
    load_adapter_parameters(network, moved)
    (tmp_path / "adapter").mkdir()
    save_adapter(network, tmp_path / "adapter", base_model=str(base))
    model = theirs(base)
    before = logits_of(torch, model)
    adapted = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter")).eval()
    assert_same(network(mx.array(TOKENS)), logits_of(torch, adapted), before)


QUERIES = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 10, "target_modules": "all-linear"},
        {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "up_proj"], "lora_dropout": 0.1},
        {"r": 2, "lora_alpha": 4, "target_modules": ["v_proj"], "layers_to_transform": [1, 2]},
        {"r": 2, "lora_alpha": 4, "target_modules": ["o_proj"], "layers_to_transform": 2, "layers_pattern": "layers"},
        {"r": 2, "lora_alpha": 4, "target_modules": ["o_proj"], "layers_to_transform": [0, 2]},
        {"r": 2, "lora_alpha": 4, "target_modules": r".*\.[01]\..*(q|up)_proj"},
        {"r": 2, "lora_alpha": 4, "target_modules": "all-linear", "exclude_modules": ["down_proj", "1.mlp.up_proj"]},
        QUERIES | {"use_rslora": True},
        QUERIES | {"rank_pattern": {"layers.1.self_attn.q_proj": 4}, "alpha_pattern": {r"layers.[02]\..*": 7}},
        QUERIES | {"use_dora": True, "rank_pattern": {"^model.layers.0.self_attn.q_proj": 3}},
        QUERIES | {"modules_to_save": ["lm_head", "model.norm"]},
        QUERIES | {"modules_to_save": ["embed_tokens"]},
        QUERIES | {"target_modules": ["q_proj", "embed_tokens"]},
        QUERIES | {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
        QUERIES | {"target_modules": ["q_proj", "lm_head"]},
    ],
    ids=str,
)
def test_a_folder_that_peft_saved_opens_with_the_same_logits_and_goes_back(tmp_path, torch, peft, settings, tied):
    base = tiny_model_folder(tmp_path / "base", layers=3, tied=tied)
    model = theirs(base)
    before = logits_of(torch, model)
    model.float()  # what PEFT saves
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for name, parameter in adapted.named_parameters():
        if "magnitude" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    network = tiny_llama(layers=3, tied=tied)
    attach_adapter(network, tmp_path / "adapter")
    expected = logits_of(torch, adapted)
    assert_same(network(mx.array(TOKENS)), expected, before)
    (tmp_path / "back").mkdir()
    save_adapter(network, tmp_path / "back", base_model=str(base))
    again = peft.PeftModel.from_pretrained(theirs(base), str(tmp_path / "back")).eval()
    assert_same(network(mx.array(TOKENS)), logits_of(torch, again), before)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_opens_a_fused_folder_and_gives_the_same_logits(tmp_path, torch, tied):
    base = tiny_model_folder(tmp_path / "base", tied=tied)
    shape = LoraShape(rank=2, alpha=4.0)
    network = tiny_llama(tied=tied)
    attach_lora(network, shape, seed=0)
    parameters = adapter_parameters(network)
    load_adapter_parameters(network, {name: array + 0.05 for name, array in parameters.items()})
    (tmp_path / "adapter").mkdir()
    save_adapter(network, tmp_path / "adapter", base_model=str(base))
    before = logits_of(torch, theirs(base))
    fuse(base, tmp_path / "adapter", tmp_path / "out", precision=CPU_FLOAT32)
    assert_same(network(mx.array(TOKENS)), logits_of(torch, theirs(tmp_path / "out")), before)

"""Tiny networks, tokenizers and folders that tests share: real classes, real formats, two layers."""

import json
from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import save_adapter

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are small.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY_SIZE = 256 + len(SPECIAL) + 5  # five rows more than the tokenizer has, as padded vocabularies do


def tiny_config(*, layers: int = 2, hidden: int = 64, heads: int = 4, kv_heads: int = 2, tied: bool = True) -> dict:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def tiny_llama(*, seed: int = 0, quantized: bool = False, **shape) -> llama.Model:
    """A llama network with random weights, frozen, as `open_model` leaves one."""
    network = llama.Model(llama.ModelArgs.from_dict(tiny_config(**shape)))
    weights = tree_flatten(network.parameters())
    keys = mx.random.split(mx.random.key(seed), len(weights))
    network.load_weights(
        [
            (
                name,
                1.0 + 0.1 * mx.random.normal(w.shape, key=key)
                if w.ndim == 1
                else 0.08 * mx.random.normal(w.shape, key=key),
            )
            for (name, w), key in zip(weights, keys, strict=True)
        ]
    )
    if quantized:
        nn.quantize(network, group_size=32, bits=4)
    mx.eval(network.parameters())
    network.eval()
    network.freeze()
    return network


def tiny_backend() -> Tokenizer:
    """Byte-level BPE without merges: every byte is a token, so that lengths are easy to count."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return backend


def write_tokenizer(folder: Path, *, chat_template: str | None = CHATML) -> None:
    tiny_backend().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def tiny_tokenizer(folder: Path, *, chat_template: str | None = CHATML):
    """mlx-lm's tokenizer wrapper over the tiny tokenizer, which is written to `folder`."""
    from mlx_lm.tokenizer_utils import load

    write_tokenizer(folder, chat_template=chat_template)
    return load(folder, eos_token_ids=[2])


def tiny_model_folder(
    folder: Path, *, seed: int = 0, quantized: bool = False, chat_template: str | None = CHATML, **shape
) -> Path:
    """A complete model folder as the hub would have it: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    network = tiny_llama(seed=seed, quantized=quantized, **shape)
    config = tiny_config(**shape)
    if quantized:
        config["quantization"] = {"group_size": 32, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())), metadata={"format": "mlx"}
    )
    write_tokenizer(folder, chat_template=chat_template)
    return folder


def write_adapter(folder: Path, *, seed: int, rank: int = 2, scale: float = 0.3, **shape) -> Path:
    """A LoRA adapter for `tiny_llama` of that shape, whose update is far from none."""
    network = tiny_llama(**shape)
    attach_lora(network, LoraShape(rank=rank, alpha=2 * rank), seed=seed)
    drawn = adapter_parameters(network)
    keys = mx.random.split(mx.random.key(seed), len(drawn))
    load_adapter_parameters(
        network,
        {name: scale * mx.random.normal(a.shape, key=key) for (name, a), key in zip(drawn.items(), keys, strict=True)},
    )
    folder.mkdir(parents=True)
    save_adapter(network, folder, base_model="tiny")
    return folder


RECIPE = """
name: tiny
model: {source: ./model}
data: {train: train.jsonl, valid: valid.jsonl, test: test.jsonl}
method: {rank: 2, dropout: 0.1}
training: {epochs: 2, batch_size: 4, learning_rate: 1.0e-2}
evaluation: {every_steps: 2, samples: 0, forgetting: false, tasks: [{name: order, scorer: json_fields, max_tokens: 8}]}
checkpoint: {every_steps: 4}
"""


def tiny_recipe(folder: Path, *, chat_template: str | None = CHATML) -> Path:
    """A folder with a recipe, the model and the rows that it names: 12 to train on, 4 to choose by, 6 to score on."""
    tiny_model_folder(folder / "model", hidden=32, heads=2, kv_heads=1, chat_template=chat_template)
    for split, count in (("train", 12), ("valid", 4), ("test", 6)):
        rows = [tiny_row(f"{split} {number}") for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


def tiny_row(text: str) -> dict:
    """A chat row that wants ``text`` back as JSON, after the system message that all such rows have."""
    turns = [("system", "Secretly."), ("user", f"Whisper {text}"), ("assistant", json.dumps({"said": text}))]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}

"""How fast this machine is, in two minutes at most: products of matrices, memory, training steps, tokens written.

What is trained and asked is a network of the default model's shape (SmolLM2-135M's) with random weights: speed depends
on shapes and not on what was learned, nothing is downloaded, and one machine's figures stand beside another's whatever
either has in its cache. On the CPU it is float32, on a GPU bfloat16 over 4-bit weights, as in a run. The best of
several turns counts for products and memory, the median of steps and tokens; what else the machine does is in them.
"""

import os
import platform
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from mlxtune.adapters.attach import LoraShape, attach_lora
from mlxtune.data.batch import make_batch
from mlxtune.data.render import Rendered
from mlxtune.device.choose import Device
from mlxtune.device.memory import machine_memory
from mlxtune.device.power import ask_program
from mlxtune.device.precision import apply_precision
from mlxtune.device.rates import copy_rate, matmul_rate
from mlxtune.evaluation.cost import measure_cost
from mlxtune.inference.likelihood import make_reader
from mlxtune.progress import Progress, silent
from mlxtune.runs.manifest import versions
from mlxtune.training.objectives.sft import sft_loss_sum
from mlxtune.training.optimizer import make_optimizer
from mlxtune.training.step import make_step

LONGEST_S = 40.0
"""Of the training steps together; another is only begun before."""
STEPS = 6
"""Of which the first is not counted."""
ROWS, LENGTH, TARGETS = 4, 128, 32
"""Of a batch."""
LORA_RANK = 8
PROMPT = 64
PRODUCT = {"cpu": 2048, "gpu": 4096}
"""The size of the matrices, by the kind of device."""
COPIED_BYTES = {"cpu": 64 << 20, "gpu": 512 << 20}
SMOLLM2_135M: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-5,
    "vocab_size": 49152,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
"""Source: its config.json, https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct."""
PARTS = ("matrix products", "memory", "training steps", "tokens written")


@dataclass(frozen=True)
class Bench:
    """What was measured, and on what; nothing in it names a person or one machine among others of its kind."""

    machine: str
    system: str
    memory_bytes: int | None
    device: str
    mlxtune: str
    mlx: str
    matmul_gflops: float
    matmul: str
    """Which products: number format and size."""
    memory_gb_s: float
    """Read and written together, by a sum over a large array."""
    training_tokens_per_s: float
    training_peak_bytes: int
    training_steps: int
    """How many were counted."""
    written_tokens_per_s: float
    written_peak_bytes: int
    network: str = "SmolLM2-135M's shape with random weights, LoRA rank 8 on all linear layers, 4 rows of 128 tokens"
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """All of it in one line, to send in."""
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**30:.0f} GiB"
        return (
            f"mlxtune {self.mlxtune}, mlx {self.mlx} | {self.machine}{memory}, {self.system} | {self.device} | "
            f"matmul {self.matmul_gflops:.0f} GFLOP/s ({self.matmul}) | memory {self.memory_gb_s:.0f} GB/s | "
            f"train {self.training_tokens_per_s:.0f} tokens/s, {self.training_peak_bytes / 1e9:.2f} GB | "
            f"write {self.written_tokens_per_s:.1f} tokens/s, {self.written_peak_bytes / 1e9:.2f} GB"
        )


def bench(device: Device, shape: dict[str, Any] = SMOLLM2_135M, *, progress: Progress = silent) -> Bench:
    """Measure this machine on ``device``, which is MLX's default one.

    Args:
        shape: a llama's config, without what llama has defaults for.
    """
    started = time.perf_counter()

    def done(count: int) -> None:
        progress("bench: parts", count, len(PARTS))

    done(0)
    unit = mx.Device(mx.gpu if device.kind == "gpu" else mx.cpu)
    size = PRODUCT[device.kind]
    gflops = matmul_rate(unit, device.precision.dtype, size=size)
    done(1)
    memory_gb_s = copy_rate(unit, size_bytes=COPIED_BYTES[device.kind])
    done(2)
    network = made_up_network(shape, device)
    mx.clear_cache()
    mx.reset_peak_memory()
    training, steps = train_some(network, shape["vocab_size"], device, progress=progress)
    training_peak = mx.get_peak_memory()
    done(3)
    network.eval()
    cost = measure_cost(network, np.random.default_rng(0).integers(3, shape["vocab_size"], PROMPT).tolist())
    done(4)
    assert cost.tokens_per_s is not None
    assert cost.peak_memory_bytes is not None
    name, installed = str(device.precision.dtype).removeprefix("mlx.core."), versions()
    return Bench(
        machine=machine_name(),
        system=f"{platform.system()} {platform.mac_ver()[0] or platform.release().split('-')[0]} {platform.machine()}",
        memory_bytes=_memory_bytes(),
        device=f"{device.kind}, {device.reason}",
        mlxtune=installed["mlxtune"],
        mlx=installed["mlx"],
        matmul_gflops=gflops,
        matmul=f"{name}, {size} x {size}",
        memory_gb_s=memory_gb_s,
        training_tokens_per_s=training,
        training_peak_bytes=training_peak,
        training_steps=steps,
        written_tokens_per_s=cost.tokens_per_s,
        written_peak_bytes=cost.peak_memory_bytes,
        seconds=time.perf_counter() - started,
    )


def made_up_network(shape: dict[str, Any], device: Device) -> nn.Module:
    """A llama of this shape with random weights and an adapter, in the number formats of the device."""
    from mlxtune.device.limits import import_mlx_lm

    import_mlx_lm()
    from mlx_lm.models import llama

    network = llama.Model(llama.ModelArgs.from_dict(shape))
    if not device.precision.dequantize:
        nn.quantize(network, group_size=32, bits=4)
    apply_precision(network, device.precision)
    network.freeze()
    attach_lora(network, LoraShape(rank=LORA_RANK, alpha=2.0 * LORA_RANK), seed=0)
    network.train()
    return network


def train_some(
    network: nn.Module, vocabulary: int, device: Device, *, progress: Progress = silent
) -> tuple[float, int]:
    """Tokens a second of the median step, and how many steps were counted; the adapter has learned noise afterwards."""
    generator = np.random.default_rng(0)
    is_target = np.arange(LENGTH) >= LENGTH - TARGETS
    rows = [
        Rendered(generator.integers(3, vocabulary, LENGTH).astype(np.int32), is_target, f"row {number}")
        for number in range(ROWS)
    ]
    reader, optimizer = make_reader(network), make_optimizer("adamw", weight_decay=0.0)
    optimizer.init(network.trainable_parameters())
    step = make_step(
        network, optimizer, lambda batch: (sft_loss_sum(reader, batch), []), max_grad_norm=1.0, compiled=device.compiles
    )
    batch = make_batch(rows, range(ROWS), share_prefix=reader.shares_prefixes)
    seconds: list[float] = []
    until = time.perf_counter() + LONGEST_S
    parameters, state = network.trainable_parameters(), optimizer.state
    for number in range(STEPS):
        started = time.perf_counter()
        if number > 1 and started >= until:
            break
        _, _, gradients = step.gradient(batch, mx.random.key(number))
        weight_sum = mx.array(batch.weight_sum)
        parameters, state = step.apply(parameters, state, gradients, weight_sum, step.norm(gradients, weight_sum))
        mx.eval(parameters, state)
        seconds.append(time.perf_counter() - started)
        progress("train: steps", number + 1, STEPS)
    network.update(parameters)
    return batch.tokens / statistics.median(seconds[1:]), len(seconds) - 1


def machine_name() -> str:
    """What the processor calls itself, such as ``Apple M2 Pro``."""
    if sys.platform == "darwin":
        return (ask_program(("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")) or "unknown").strip()
    try:
        told = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        told = None
    return f"{told[1] if told else 'unknown processor'}, {os.cpu_count()} cores"


def _memory_bytes() -> int | None:
    try:
        return machine_memory()[0]
    except (OSError, ValueError):
        return None

"""What a recipe lets one choose from, where the floors above take the same words and numbers as plain values.

Here alone, and without pydantic: the schema has them, commands show them in their help, and functions take them.
"""

from collections.abc import Iterable
from typing import Literal, get_args

Bits = Literal[2, 3, 4, 5, 6, 8]
GroupSize = Literal[32, 64, 128]
BITS: tuple[Bits, ...] = get_args(Bits)
GROUP_SIZES: tuple[GroupSize, ...] = get_args(GroupSize)
GROUP_SIZE: GroupSize = 32
"""Where none is named: that of the GGUF formats, whose blocks then stay as they are."""

Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]
MODES: tuple[Mode, ...] = get_args(Mode)
FIXED_MODES: dict[str, tuple[int, int]] = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
"""Bits and group size of the modes that have only one of each; affine has those above."""

Mix = Literal["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6", "sensitive"]
MIXES: tuple[Mix, ...] = get_args(Mix)

DtypeName = Literal["float16", "bfloat16", "float32"]
DTYPE_NAMES: tuple[DtypeName, ...] = get_args(DtypeName)
"""The number formats that weights may be written in."""

GgufType = Literal["f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
GGUF_TYPES: tuple[GgufType, ...] = get_args(GgufType)
"""The types that GGUF files are written in, by the names that llama.cpp's programs give them."""

ChatTemplateName = Literal["chatml", "instruction"]
CHAT_TEMPLATES: tuple[ChatTemplateName, ...] = get_args(ChatTemplateName)
"""Those that come with mlxtune."""

Form = Literal["chat", "sharegpt", "alpaca", "prompt_completion", "question_answer", "text", "preference", "label"]
FORMS: tuple[Form, ...] = get_args(Form)
"""What the rows of a file may look like; `data/forms` has a file for each."""

TEMPLATE_FILE = ".jinja"


def is_template_file(template: str) -> bool:
    """Whether `data.template` names the file of a template in the template's place: it ends as such, and is a name."""
    return template.endswith(TEMPLATE_FILE) and not any(mark in template for mark in ("{{", "{%", "\n"))


TrainOn = Literal["completions", "last_completion", "everything"]
OptimizerName = Literal["adamw", "adam", "sgd", "lion", "adafactor", "muon"]
Schedule = Literal["cosine", "linear", "constant"]
Overflow = Literal["error", "drop", "truncate_left", "truncate_right", "split"]
TrackerName = Literal["tensorboard", "wandb"]


def in_words(values: Iterable[object]) -> str:
    """``32, 64 or 128``, of two values or more."""
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}"

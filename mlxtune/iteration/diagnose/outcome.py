"""What a run's adapter will do: nothing, or its work on prompts that are put otherwise than they were learned."""

import hashlib

from mlxtune.iteration.diagnose.evidence import Evidence, at, count, number
from mlxtune.iteration.diagnose.finding import Finding
from mlxtune.models.chat_template import FILE

NOTHING = 2e-4
"""|D| / |W| in the median layer, below which an adapter does next to nothing. Measured with SmolLM2-135M on
support-triage, 40 steps: at 1.0e-4 the loss on unseen rows fell by less than 1 %, at 5e-4 by 5 %, at 2e-3 by 30 %."""
MOST_ALIKE = 0.8
"""Of the rows, with the same system message: where they are fewer, rows with and without it were both meant."""


def adapter_does_nothing(evidence: Evidence) -> Finding | None:
    """The update is too small beside the weights to matter."""
    relative, largest = (number(evidence.manifest, "update", name) for name in ("relative_norm", "largest"))
    if relative is None or relative >= NOTHING or at(evidence.recipe, "method", "type") == "full":
        return None  # of weights that change themselves, less is enough
    return Finding(
        "adapter_does_nothing",
        "problem",
        f"the adapter changes the weights by {relative:.1e} of their size in the median layer: next to nothing",
        "raise it, or train longer: a LoRA adapter starts at no change at all",
        {
            "relative_norm": relative,
            "largest": largest,
            "layers": count(evidence.manifest, "update", "layers"),
            "learning_rate": number(evidence.recipe, "training", "learning_rate"),
        },
        "training.learning_rate",
    )


def template_differs(evidence: Evidence) -> Finding | None:
    """Prompts are put otherwise than in training: with another chat template, or without the one that was trained."""
    if at(evidence.recipe, "data", "chat_template") is None or not evidence.adapter.is_dir():
        return None  # the base's own, and a base that changed is refused
    trained = at(evidence.manifest, "inputs", "chat_template")
    try:
        asked = hashlib.sha256((evidence.adapter / FILE).read_bytes()).hexdigest()
    except OSError:
        asked = None
    if asked != trained:
        return Finding(
            "template_differs",
            "problem",
            f"{FILE} in adapter/ is not the chat template of training: prompts are put otherwise than was learned",
            "put it back as mlxtune wrote it, or train again",
            {"in_training": trained, "in_generation": asked},
            "data.chat_template",
        )
    base = at(evidence.manifest, "base_chat_template")
    if not isinstance(base, str) or base == trained:
        return None
    return Finding(
        "template_differs",
        "hint",
        "training had another chat template than the base model's own: mlxtune asks as in training, and programs that "
        "open adapter/ on the base do not",
        "hand on a fused folder or an export, which take the template along; or train with the base's own: null",
        {"in_training": trained, "of_the_base": base},
        "data.chat_template",
    )


def system_differs(evidence: Evidence) -> Finding | None:
    """Most rows of training begin with one system message and a few do not, so that it is not put before prompts."""
    system = at(evidence.data, "splits", "train", "system")
    rows, alike = count(system, "of"), count(system, "rows")
    if not rows or alike == rows or alike / rows < MOST_ALIKE:
        return None
    return Finding(
        "template_differs",
        "problem",
        f"{alike:,} of {rows:,} rows of training begin with the same system message, and the others do not: so prompts "
        "without one are asked without it, unlike most of what was learned",
        "give all rows that message, or none; or put it into every prompt",
        {"rows": rows, "with_the_message": alike},
        "data.train",
    )

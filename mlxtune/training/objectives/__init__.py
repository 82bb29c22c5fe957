"""What can be optimized, a file each: see `objective` for what one is."""

from mlxtune.training.objectives.dpo import dpo
from mlxtune.training.objectives.grpo import grpo
from mlxtune.training.objectives.kto import kto
from mlxtune.training.objectives.orpo import orpo
from mlxtune.training.objectives.sft import sft

OBJECTIVES = {"sft": sft, "dpo": dpo, "orpo": orpo, "kto": kto, "grpo": grpo}
"""By the name that a recipe gives them; each takes the settings of its section in the schema."""

"""The keys of an objective, one section a type: what is optimized.

The key ``type`` decides which other keys there are. A section's own keys are the settings that the objective of its
name takes, and have their defaults here alone; of `grpo`, those of judging answers stand beside them.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from mlxtune.recipe.settings import Settings, told_by_type
from mlxtune.recipe.tasks import Task


class SftSettings(Settings):
    """Supervised fine-tuning: make the written answers more likely."""

    type: Literal["sft"] = "sft"
    """`sft`."""


class DpoSettings(Settings):
    """Direct preference optimization (https://arxiv.org/abs/2305.18290): of two answers to a prompt, `chosen` is made
    likelier against `rejected`, measured from where training starts. Rows are preferences."""

    type: Literal["dpo"]
    """`dpo`."""
    beta: float = Field(default=0.1, gt=0)
    """How much a nat of that difference counts: the larger, the closer the model stays to where it starts."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """`sigmoid`, or `ipo`, which stops at a difference of 1 / (2 beta) nats and so does not run away on pairs that are
    always decided the same way (https://arxiv.org/abs/2310.12036)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The share of the pairs that is taken to be the wrong way round; of `sigmoid` alone."""
    length_normalized: bool = False
    """Whether nats are counted a token, so that a long answer counts no more than a short one."""

    @model_validator(mode="after")
    def smoothing_is_of_the_sigmoid(self) -> Self:
        if self.label_smoothing and self.loss != "sigmoid":
            raise PydanticCustomError(
                "contradiction", "label_smoothing belongs to loss: sigmoid", {"key": "label_smoothing"}
            )
        return self


class OrpoSettings(Settings):
    """Odds ratio preference optimization (https://arxiv.org/abs/2403.07691): `chosen` is learned as in `sft`, and its
    odds against `rejected` beside it; nothing is compared with the start. Rows are preferences."""

    type: Literal["orpo"]
    """`orpo`."""
    beta: float = Field(default=0.1, gt=0)
    """What the odds count beside the answer's own loss: the paper's lambda."""


class KtoSettings(Settings):
    """Kahneman-Tversky optimization (https://arxiv.org/abs/2402.01306): `chosen` is taken as an answer to give and
    `rejected` as one not to give, each for itself, measured from where training starts and beside what other answers
    gain: each step reads one of those a pair. Rows are preferences."""

    type: Literal["kto"]
    """`kto`."""
    beta: float = Field(default=0.1, gt=0)
    """How much a nat counts: the larger, the sooner an answer that has gained or lost is left as it is."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """What the chosen answers count."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """What the rejected answers count."""


class RewardSettings(Settings):
    """What of an answer is rewarded: a figure of one of the tasks in `evaluation.tasks`, so that it is measured too."""

    task: str = Field(min_length=1)
    """The task's name. Its scorer judges each answer that is drawn, as it judges those to held-out rows."""
    metric: str | None = Field(default=None, min_length=1)
    """Which of the scorer's figures, as `valid_json`; null is its main one. 1 is right and 0 wrong."""
    weight: float = 1.0
    """What it counts beside the others; less than 0 punishes."""


class GrpoSettings(Settings):
    """Group relative policy optimization (https://arxiv.org/abs/2402.03300): the model draws some answers to each
    prompt, the scorers of `evaluation.tasks` judge them, and what was better than the rest of its group is made
    likelier. The rows' own answers are for the scorers alone. Answers are drawn at temperature 1."""

    type: Literal["grpo"]
    """`grpo`."""
    rewards: Annotated[tuple[RewardSettings, ...], Field(strict=False)] = ()
    """What is rewarded, and how much; none named: the main figure of each task."""
    group_size: int = Field(default=8, ge=2)
    """Answers that are drawn to each prompt, and compared with each other."""
    max_tokens: int = Field(default=128, ge=1)
    """Most tokens of a drawn answer. One that is cut there is judged as it is."""
    loss: Literal["grpo", "dr_grpo"] = "grpo"
    """`grpo` divides what an answer gained by how much its group differs, and by its length; `dr_grpo` by neither,
    which makes no answer longer for being wrong (https://arxiv.org/abs/2503.20783)."""
    beta: float = Field(default=0.04, ge=0)
    """What it costs, a nat, to move away from where training starts; 0 lets it go, and saves a reading of each
    answer."""
    num_iterations: int = Field(default=1, ge=1)
    """Updates that are made of the same answers."""
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """With several updates: a token that has become so much less likely, as a share, is not pushed further down."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """Likewise for one that has become more likely; null is epsilon (https://arxiv.org/abs/2503.14476 takes 0.28)."""


ObjectiveSettings = Annotated[
    Annotated[SftSettings, Tag("sft")]
    | Annotated[DpoSettings, Tag("dpo")]
    | Annotated[OrpoSettings, Tag("orpo")]
    | Annotated[KtoSettings, Tag("kto")]
    | Annotated[GrpoSettings, Tag("grpo")],
    told_by_type("sft"),
]


def fault_of_rewards(objective: GrpoSettings, tasks: Sequence[Task]) -> tuple[str, str] | None:
    """Why answers that are drawn cannot be judged by these tasks: the key, and what is wrong; None where they can."""
    if not tasks:
        return "evaluation.tasks", "a task has to say how good an answer is, and there is none"
    by_name = {task.name: task for task in tasks}
    for number, reward in enumerate(objective.rewards):
        if reward.task not in by_name:
            names = ", ".join(by_name)
            return (
                f"objective.rewards.{number}.task",
                f"there is no task {reward.task!r} in evaluation.tasks, but {names}",
            )
    rewarded = rewarded_tasks(objective, tasks)
    for task in rewarded:
        if task.scorer == "choice":
            return (
                "objective.rewards",
                f"the task {task.name!r} chooses among labels and writes no answer; use exact_match",
            )
    if len({task.answer_after for task in rewarded}) > 1:
        return "objective.rewards", "the tasks that judge an answer have to give it the same prompt: one answer_after"
    return None


def rewarded_tasks(objective: GrpoSettings, tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose figures are rewarded: those that are named, or all."""
    named = {reward.task for reward in objective.rewards}
    return [task for task in tasks if not named or task.name in named]

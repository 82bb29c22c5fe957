"""What rows ask, and what an answer to each is worth, where answers are drawn and not read: for `grpo`.

The scorers of the recipe's tasks judge, so that what is rewarded is also what is measured. Knows rows and scorers;
nothing of the network. All examples of a split are in memory, since any may be asked next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlxtune.data.example import Example
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError, RecipeError
from mlxtune.evaluation.scorers import SCORERS
from mlxtune.evaluation.tasks import Task, check_task, score_answer
from mlxtune.iteration.opening import Opened, tasks_of
from mlxtune.recipe.objective import GrpoSettings, rewarded_tasks


@dataclass(frozen=True)
class Reward:
    """One figure of a task's scorer, and what it counts."""

    task: Task
    metric: str
    weight: float


@dataclass(frozen=True)
class Prompts:
    """What a split's rows ask, by row, and what an answer to each is worth."""

    token_ids: Sequence[Sequence[int]]
    references: Sequence[str]
    examples: Sequence[Example]
    rewards: Sequence[Reward]

    def reward(self, row: int, answer: str) -> float:
        """The weighted sum of what the scorers say. A figure that means nothing for the row counts 0."""
        found: dict[str, dict[str, float]] = {}
        total = 0.0
        for reward in self.rewards:
            task = reward.task
            if task.name not in found:
                found[task.name] = score_answer(task, self.examples[row], answer, self.references[row])
            total += reward.weight * found[task.name].get(reward.metric, 0.0)
        return total


def prompts_of(opened: Opened, split: str) -> Prompts:
    """What the rows of a split ask.

    Raises: DataError, for rows whose answers the tasks cannot score, and for prompts that leave no room for an answer;
        RecipeError, for a figure that no scorer gives.
    """
    settings = opened.recipe.objective
    assert isinstance(settings, GrpoSettings)
    dataset, limit = opened.datasets[split], opened.recipe.data.max_seq_length
    tasks = {task.name: task for task in tasks_of(opened.recipe.evaluation)}
    rewarded = [tasks[task.name] for task in rewarded_tasks(settings, opened.recipe.evaluation.tasks)]
    for task in rewarded:
        check_task(opened.model.tokenizer, dataset.examples(), task, path=opened.sources[split].path)
    examples = list(dataset.examples())
    renderer = Renderer(opened.model.tokenizer)
    asked = [renderer.prompt(example, rewarded[0].answer_after) for example in examples]
    for (prompt, _), example in zip(asked, examples, strict=True):
        if len(prompt) + settings.max_tokens > limit:
            raise DataError(
                f"the prompt has {len(prompt)} tokens, and with an answer of up to {settings.max_tokens} "
                f"(objective.max_tokens) it is longer than {limit} (data.max_seq_length)",
                where=example.where,
                remedy="raise data.max_seq_length, or lower objective.max_tokens",
            )
    named = [(reward.task, reward.metric, reward.weight) for reward in settings.rewards]
    rewards = [
        Reward(tasks[name], metric or SCORERS[tasks[name].scorer].PRIMARY, weight)
        for name, metric, weight in named or [(task.name, None, 1.0) for task in rewarded]
    ]
    prompts = Prompts([ids for ids, _ in asked], [reference for _, reference in asked], examples, rewards)
    _check_metrics(prompts)
    return prompts


def _check_metrics(prompts: Prompts) -> None:
    """Raises: RecipeError, for a figure that the scorer gives for no row's own answer, with those that it gives."""
    rows = list(zip(prompts.examples, prompts.references, strict=True))
    for reward in prompts.rewards:
        there: dict[str, None] = {}
        for example, reference in rows:
            there |= dict.fromkeys(score_answer(reward.task, example, reference, reference))
            if reward.metric in there:
                break
        else:
            raise RecipeError(
                f"objective.rewards: the task {reward.task.name!r} gives no figure {reward.metric!r}",
                remedy=f"name one of those that it gives: {', '.join(there)}",
            )

"""What a sweep comes to: the winner with its test scores beside its base, or whether more data would help.

The winner is the complete trial with the lowest validation loss; of equal ones the first. Its test rows are scored
here, once, and of no other trial. What the folder then says of itself is written anew each time that a process leaves.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlxtune.errors import RunError, TrainingError
from mlxtune.files import write_json, write_text
from mlxtune.iteration.card import write_card
from mlxtune.iteration.chosen import KEY, Chosen
from mlxtune.iteration.score import evaluate
from mlxtune.iteration.sweep.answer import Answer, answer
from mlxtune.iteration.sweep.data_sizes import SEED, SHARE, count_of
from mlxtune.iteration.sweep.folder import SweepFolder, SweepPlan
from mlxtune.iteration.sweep.page import to_page
from mlxtune.iteration.sweep.readme import to_readme
from mlxtune.iteration.sweep.study import Trial
from mlxtune.iteration.sweep.trial import recipe_of, text_of
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import RunFolder, lock


@dataclass(frozen=True)
class SweepResult:
    """Where a sweep stands when a process leaves it."""

    sweep: SweepFolder
    plan: SweepPlan
    trials: tuple[Trial, ...]
    finished: bool
    """Whether nothing is left to try."""
    interrupted: bool = False
    """Whether it was told to stop; no winner is chosen then."""
    others: bool = False
    """Whether other processes are still at work in it; the last one chooses."""
    winner: Trial | None = None
    scores: dict[str, Any] | None = None
    """The winner's, beside its base; None without test rows."""
    answer: Answer | None = None
    seconds: float = 0.0
    """That it was worked at."""

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints, and result.json holds."""
        winner = self.winner
        return {
            "sweep_dir": str(self.sweep.path),
            "kind": self.plan.kind,
            "finished": self.finished,
            "interrupted": self.interrupted,
            "seconds": self.seconds,
            "trials": [
                {
                    "number": trial.number,
                    "state": trial.state,
                    "settings": dict(trial.point),
                    "valid_loss": trial.valid_loss,
                    "run_dir": str(self.sweep.run_of(trial.number)),
                    **trial.facts,
                }
                for trial in self.trials
            ],
            "winner": None
            if winner is None
            else {
                "number": winner.number,
                "settings": dict(winner.point),
                "valid_loss": winner.valid_loss,
                "run_dir": str(self.sweep.run_of(winner.number)),
                "recipe": str(self.sweep.winner),
            },
            "scores": self.scores,
            "answer": None if self.answer is None else self.answer.to_json(),
        }


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the lowest validation loss, of equal ones the first; None if none is complete."""
    complete = [trial for trial in trials if trial.valid_loss is not None]
    return min(complete, key=lambda trial: (trial.valid_loss, trial.number), default=None)


def free_losers(sweep: SweepFolder, trials: Sequence[Trial]) -> None:
    """Delete the checkpoints of trials that are over, but for the best so far; adapters and metrics stay."""
    best = best_of(trials)
    for trial in trials:
        run = RunFolder(sweep.run_of(trial.number))
        if trial.state == "running" or trial == best or not run.checkpoints.is_dir():
            continue
        try:
            with lock(run):
                for place in run.checkpoints.iterdir():
                    shutil.rmtree(place) if place.is_dir() else place.unlink()
        except RunError:
            continue  # somebody works with it: the next time


def conclude(result: SweepResult, *, device: str, progress: Progress = silent) -> SweepResult:
    """Choose, score and write down. To be called by one process at a time.

    Raises: TrainingError, if nothing is left to try and no trial came to its end; as `evaluate`.
    """
    if result.plan.kind == "data_sizes":
        concluded = replace(result, answer=_answer(result))
    else:
        winner = best_of(result.trials)
        if winner is None and result.finished:
            why = next((str(trial.facts["why"]) for trial in result.trials if "why" in trial.facts), "none was begun")
            raise TrainingError(
                f"none of the {len(result.trials)} trials came to its end; the first: {why}",
                where=result.sweep.path,
                remedy="try other settings in a new sweep",
            )
        scores = None if winner is None else _crown(result, winner, device=device, progress=progress)
        concluded = replace(result, winner=winner, scores=scores)
    write_down(concluded)
    return concluded


def write_down(result: SweepResult) -> None:
    """Let the folder say where the sweep stands."""
    write_json(result.sweep.result, result.to_json())
    write_text(result.sweep.readme, to_readme(result))
    write_text(result.sweep.page, to_page(result))


def _crown(result: SweepResult, winner: Trial, *, device: str, progress: Progress) -> dict[str, Any] | None:
    """Make a trial the winner, and score it where there are test rows."""
    sweep, plan = result.sweep, result.plan
    run = RunFolder(sweep.run_of(winner.number))
    others = [RunFolder(sweep.run_of(trial.number)) for trial in result.trials if trial != winner]
    reads = 1 + sum(other.scores.exists() for other in others)
    chosen = Chosen(winner.number, len(result.trials), reads, str(sweep.path.absolute()))
    recipe = recipe_of(sweep, plan, winner.point)
    with lock(run):
        run.update_manifest(**chosen.to_manifest())
        write_card(run, load_recipe(run.resolved).recipe, run.read_scores())
    for other in others:
        _dethrone(other)
    write_text(
        sweep.winner,
        text_of(
            recipe.recipe,
            f"The best of {len(result.trials)} trials by validation loss, {winner.valid_loss:.4f}.",
            f"mlxtune train {sweep.winner.name}",
        ),
    )
    if recipe.recipe.data.test is None:
        return None
    return evaluate(run.path, device=device, progress=progress)


def _dethrone(run: RunFolder) -> None:
    """A run that was the winner once, and is no more, does not say so."""
    if not run.manifest.is_file() or KEY not in run.read_manifest():
        return
    with lock(run):
        manifest = run.read_manifest()
        del manifest[KEY]
        write_json(run.manifest, manifest)
        write_card(run, load_recipe(run.resolved).recipe, run.read_scores())


def _answer(result: SweepResult) -> Answer | None:
    """Whether more data would help, by the seeds whose trials are all complete; None, if fewer than two are."""
    shares = sorted({point[SHARE] for point in result.plan.points})
    losses = {(trial.point[SHARE], trial.point[SEED]): trial.valid_loss for trial in result.trials}
    seeds = [
        seed
        for seed in dict.fromkeys(point[SEED] for point in result.plan.points)
        if all(losses.get((share, seed)) is not None for share in shares)
    ]
    if len(seeds) < 2:  # noqa: PLR2004 - one says nothing of chance
        return None
    found = {share: [float(losses[share, seed] or 0.0) for seed in seeds] for share in shares}
    return answer(found, {share: count_of(share, result.plan.rows) for share in shares})

"""One turn of the wheel: recipe to data, training, adapter and scores, in a run folder.

This is what ``mlxtune train`` calls. All that can be wrong with a recipe, a model or data is found before the folder is
made, so that a mistake leaves nothing behind. Where several ranks train together, rank 0 says what and writes all.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.device.distributed import Ranks, open_ranks
from mlxtune.errors import AdapterError, UsageError
from mlxtune.files import sha256_of
from mlxtune.iteration.card import write_card
from mlxtune.iteration.finish import (
    conclude,
    facts_of_adapter,
    is_concluded,
    known_findings,
    write_adapter,
    write_data,
)
from mlxtune.iteration.forecast import settle_memory
from mlxtune.iteration.labels import with_labels_of
from mlxtune.iteration.obeying import obeying
from mlxtune.iteration.opening import chat_template_hash, manners_of, open_recipe
from mlxtune.iteration.ranks import heard, refuse_other_inputs, tell, with_own_validation
from mlxtune.iteration.ready import Ready, frozen_prefix, make_ready
from mlxtune.iteration.reference import with_references
from mlxtune.iteration.samples import Samples
from mlxtune.iteration.score import score_run
from mlxtune.iteration.steps import make_training
from mlxtune.iteration.trackers.tracked import check_trackers, tracked
from mlxtune.iteration.validation import validation_loss
from mlxtune.iteration.watch import NOBODY, RunResult, Watch
from mlxtune.offline import network_off
from mlxtune.recipe.load import LoadedRecipe, load_recipe
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.control import forget_wishes
from mlxtune.runs.folder import RUNS, RunFolder, create_run, lock, open_run, refuse_taken
from mlxtune.runs.log import Log, attempt_log, in_short
from mlxtune.runs.manifest import make_manifest, refuse_changes, versions
from mlxtune.runs.metrics import append_metrics, cut_metrics, metrics_bytes, read_metrics
from mlxtune.synced import warning_of_synced
from mlxtune.training.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    read_run,
    save_checkpoint,
    settle,
)
from mlxtune.training.loop import train
from mlxtune.training.pause import NEVER, Pause
from mlxtune.training.plan import EndedBy
from mlxtune.training.throttle import Throttle
from mlxtune.training.together import follow

METRICS_BYTES = "metrics_bytes"
"""In a checkpoint: how long metrics.jsonl was."""


def run_recipe(
    recipe: LoadedRecipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    run_dir: str | Path | None = None,
    score: bool = True,
    auto: bool = False,
    watch: Watch = NOBODY,
) -> RunResult:
    """Train as a recipe says, in a new run folder, and score base and tuned model on its test split.

    Args:
        recipe: loaded, or a file, or the name of a packaged recipe.
        overrides: ``KEY=VALUE`` in the recipe's dotted keys; none for a recipe that is loaded already.
        run_dir: the folder to make; else one below ``runs/``, named after the recipe and the time.
        score: whether to score at the end, where the recipe has a test split.
        auto: foretell the run, and save as much memory as it has to.

    Raises: MlxtuneError, in its kinds; before the folder is made for all that is wrong with recipe, model and data.
    """
    if isinstance(recipe, LoadedRecipe) and overrides:
        raise UsageError("a loaded recipe takes no more overrides", remedy="give them to load_recipe")
    ranks = open_ranks()
    if not ranks.is_first:
        return _train_along(ranks, device=device, watch=watch)
    if run_dir is not None:
        run_dir = Path(run_dir)
        refuse_taken(run_dir)
    loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe, overrides)
    with network_off(when=loaded.recipe.offline):
        return _run_new(loaded, ranks, device=device, run_dir=run_dir, score=score, auto=auto, watch=watch)


def _run_new(
    loaded: LoadedRecipe,
    ranks: Ranks,
    *,
    device: str,
    run_dir: Path | None,
    score: bool,
    auto: bool,
    watch: Watch,
) -> RunResult:
    """What the first rank does for a new run."""
    _warn_if_synced(run_dir or RUNS, watch)
    loaded.check_files()
    check_trackers(loaded.recipe.report_to)
    # without defaults: what the recipe leaves out may be an adapter's to say
    tell(ranks, recipe=loaded.recipe.model_dump(mode="json", exclude_unset=True))
    opened = open_recipe(loaded.recipe, device=device, progress=watch.progress)
    try:
        ready = make_ready(opened)
    except AdapterError as error:
        place = error.where or loaded.place_of(("method",))
        raise AdapterError(error.message, where=place, remedy=error.remedy) from error
    refuse_other_inputs(ready, ranks)
    ready, found = settle_memory(ready, auto=auto, progress=watch.progress)
    if found is not None:
        watch.foretold(found)
    chosen = opened.device
    run = create_run(
        loaded.recipe.name,
        run_dir=run_dir,
        recipe_text=loaded.text,
        resolved=ready.opened.recipe.model_dump(mode="json"),
        manifest=make_manifest(
            name=loaded.recipe.name,
            device={"kind": chosen.kind, "precision": chosen.precision.name, "reason": chosen.reason},
            inputs=opened.inputs(),
            plan={"total_steps": ready.plan.total_steps, "max_minutes": ready.plan.max_minutes},
            recipe_folder=loaded.path.parent,
        ),
    )
    with lock(run):
        return _train_and_score(run, ready, ranks, score=score, watch=watch)


def resume_run(
    path: str | Path,
    recipe: LoadedRecipe | None = None,
    *,
    device: str = "auto",
    score: bool = True,
    watch: Watch = NOBODY,
) -> RunResult:
    """Go on with a run from its newest checkpoint, or from step 0 if it was killed before the first.

    A finished run is left as it is; one that was trained but not scored is scored.

    Args:
        path: the run folder.
        recipe: what the user believes the run to be, if given: it must be the run's own, but for training.throttle.

    Raises: RunError, listing the differences, if the recipe, model, chat template or data are not what they were, and
        if another process is in the run.
    """
    ranks = open_ranks()
    if not ranks.is_first:
        return _train_along(ranks, device=device, watch=watch)
    run = open_run(Path(path))
    settings = load_recipe(run.resolved).recipe
    if recipe is not None:
        settings = _with_throttle_of(recipe.recipe, settings)
        recipe = _settled_alike(recipe, settings)
        refuse_changes(settings.model_dump(mode="json"), recipe.recipe.model_dump(mode="json"), where=run.path)

    def is_done() -> bool:
        return run.is_finished and (not score or settings.data.test is None or run.read_scores() is not None)

    with network_off(when=settings.offline), lock(run, to_write=not is_done()):
        if is_done():
            finished = run.read_manifest()["finished"]
            tell(ranks, finished=finished, run_dir=str(run.path))
            found = known_findings(run) if is_concluded(run) else conclude(run)
            return RunResult(run_dir=run.path, **finished, scores=run.read_scores(), findings=found)
        forget_wishes(run)  # of the process before
        _warn_if_synced(run.path, watch)
        tell(ranks, recipe=settings.model_dump(mode="json"))
        before = run.read_manifest()["inputs"]
        revision, commits = before["model"].get("revision"), before.get("data_commits")
        opened = open_recipe(settings, device=device, revision=revision, commits=commits, progress=watch.progress)
        inputs = {run.resolved.name: sha256_of(run.resolved), **opened.inputs()}
        refuse_changes(before, inputs, where=run.path)
        ready = make_ready(opened)
        refuse_other_inputs(ready, ranks)
        return _train_and_score(run, ready, ranks, score=score, watch=watch)


def _warn_if_synced(folder: Path, watch: Watch) -> None:
    if (warning := warning_of_synced(folder)) is not None:
        watch.warned(warning)


def _with_throttle_of(recipe: Recipe, settings: Recipe) -> Recipe:
    """A run's settings with a user's word on when to wait, which nothing that is learned depends on."""
    training = settings.training.model_copy(update={"throttle": recipe.training.throttle})
    return settings.model_copy(update={"training": training})


def _settled_alike(recipe: LoadedRecipe, settings: Recipe) -> LoadedRecipe:
    """A user's recipe with what a run has settled in place of ``auto``, and of what it left to an adapter or rows."""
    own = recipe.recipe
    training, method = own.training, own.method
    if training.grad_checkpoint == "auto":
        training = training.model_copy(update={"grad_checkpoint": settings.training.grad_checkpoint})
    if own.model.adapter is not None:
        said = method.model_fields_set if "method" in own.model_fields_set else set()
        if "type" not in said or method.type == settings.method.type:
            method = settings.method.model_copy(update={key: getattr(method, key) for key in said})
    evaluation = with_labels_of(own.evaluation, settings.evaluation)
    update = {"training": training, "method": method, "evaluation": evaluation}
    return replace(recipe, recipe=own.model_copy(update=update))


def _train_along(ranks: Ranks, *, device: str, watch: Watch) -> RunResult:
    """What a rank other than the first does: it reads its share and writes nothing.

    What to train, and from which state on, rank 0 says; the model and the data have to be here as well.
    """
    told = heard(ranks)
    if "finished" in told:
        return RunResult(run_dir=Path(told["run_dir"]), **told["finished"])
    recipe = Recipe.model_validate(told["recipe"])
    with network_off(when=recipe.offline):
        return _train_along_by(recipe, ranks, device=device, watch=watch)


def _train_along_by(recipe: Recipe, ranks: Ranks, *, device: str, watch: Watch) -> RunResult:
    ready = make_ready(open_recipe(recipe, device=device, progress=watch.progress))
    ready, _ = settle_memory(ready)
    refuse_other_inputs(ready, ranks)
    ready = with_references(ready, progress=watch.progress)
    run = RunFolder(Path(ranks.text_of_first()))
    follow(ready.state, ranks)
    watch.started(run, ready)
    ended_by = _train(run, ready, ranks, watch, log=lambda _line: None)
    watch.trained()
    return _result(run, ready, ended_by)


def _train_and_score(run: RunFolder, ready: Ready, ranks: Ranks, *, score: bool, watch: Watch) -> RunResult:
    throttle = Throttle(manners_of(ready.opened.recipe.training.throttle))
    with attempt_log(run.logs) as log, obeying(run, watch, log, throttle) as (obedient, pause):
        ready = with_references(ready, progress=watch.progress)
        _load_newest(run, ready, watch, log)
        ranks.text_of_first(str(run.path))
        follow(ready.state, ranks)
        write_card(run, ready.opened.recipe)
        _log_start(log, ready)
        if not ranks.is_alone:
            log(f"ranks: {ranks.size}, each of which reads its share of every batch")
        with tracked(run, ready.opened.recipe, obedient) as told:
            told.started(run, ready)
            ended_by = _train(run, ready, ranks, told, log, pause)
        watch.trained()
        result = _result(run, ready, ended_by)
        log(f"trained: {ended_by} after step {result.steps}, {result.seconds:.1f} s in steps")
        if result.interrupted:
            return result
        write_adapter(run, ready)
        finished = asdict(result)
        for name in ("run_dir", "scores", "findings", "interrupted"):
            del finished[name]
        run.update_manifest(finished=finished, **facts_of_adapter(ready))
        write_data(run, ready, progress=watch.progress)
        result = replace(result, findings=conclude(run))
        log("wrote adapter/")
        if not score or "test" not in ready.opened.datasets:
            return result
        if obedient.should_stop():
            log("stopped before the scoring")
            return replace(result, interrupted=True)
        _let_go(ready)
        scores = score_run(run, device=ready.opened.device, base=ready.opened.folder, progress=watch.progress)
        log(f"scored base and tuned model on {scores['rows']} {scores['split']} rows")
        return replace(result, scores=scores, findings=known_findings(run))


def _load_newest(run: RunFolder, ready: Ready, watch: Watch, log: Log) -> None:
    """Bring the state and metrics.jsonl to the newest whole checkpoint, or to step 0."""

    def damaged(path: Path) -> None:
        log(f"{path.name} is damaged; going on from the one before it")
        watch.warned(f"{path} is damaged; going on from the checkpoint before it")

    checkpoint = newest_checkpoint(run.checkpoints, damaged=damaged)
    kept: dict[str, Any] = {METRICS_BYTES: 0}
    if checkpoint is not None:
        load_checkpoint(ready.state, checkpoint)
        settle(ready.state, run.checkpoints, keep=ready.opened.recipe.checkpoint.keep)
        kept = read_run(checkpoint)
        then, now = run.read_manifest()["device"]["reason"], ready.opened.device.reason
        if then != now:
            log(f"began with: {then}; goes on with: {now}")
            watch.warned(f"this run began with {then}, and goes on with {now}: last bits may differ")
    cut_metrics(run.metrics, kept[METRICS_BYTES])


def _train(run: RunFolder, ready: Ready, ranks: Ranks, watch: Watch, log: Log, pause: Pause = NEVER) -> EndedBy:
    """The loop, with what it says of each step and where it saves."""
    ready = with_own_validation(ready, ranks)
    opened, state = ready.opened, ready.state
    rows = {split: dataset.rows for split, dataset in opened.datasets.items()}
    samples = Samples(ready, run.valid_samples, log=log, warned=watch.warned)

    def record(line: dict[str, Any]) -> None:
        if not ranks.is_first:
            return
        if "valid_loss" in line:
            line |= samples.look(line["step"])
        append_metrics(run.metrics, line)
        log(in_short(line))
        watch.measured(line)

    def save() -> None:
        if not ranks.is_first:
            return
        kept = {
            "chat_template": chat_template_hash(opened.model.tokenizer),
            "train_on": opened.recipe.data.train_on,
            METRICS_BYTES: metrics_bytes(run.metrics),
        }
        path = save_checkpoint(state, run.checkpoints, keep=opened.recipe.checkpoint.keep, run=kept)
        log(f"saved {path.name}")

    mx.reset_peak_memory()
    frozen = {split: frozen_prefix(ready, split, progress=watch.progress) for split in rows if split != "test"}
    training = make_training(
        ready,
        rows["train"],
        frozen["train"],
        record=record,
        validate=lambda: validation_loss(ready, frozen["valid"], ranks, answered=samples.hear),
        save=save,
        should_stop=watch.should_stop,
        pause=pause,
        ranks=ranks,
    )
    return train(state, training)


def _let_go(ready: Ready) -> None:
    """Free the trained network's memory: base and tuned model are opened anew, one at a time, to be scored."""
    for module in ready.state.network.modules():
        module.clear()
    ready.state.optimizer.state = {}
    mx.clear_cache()


def _log_start(log: Log, ready: Ready) -> None:
    opened, plan = ready.opened, ready.plan
    log(", ".join(f"{name} {version}" for name, version in versions().items()))
    log(f"device: {opened.device.kind}, {opened.device.precision.name}: {opened.device.reason}")
    log(f"model: {opened.folder.path}, sha256 {opened.folder.sha256}")
    for split, dataset in opened.datasets.items():
        report = dataset.report
        replay = f" ({report.replay_rows} of replay)" if report.replay_rows else ""
        log(
            f"{split}: {report.rows_read} rows read, {report.rows} kept{replay}, {len(report.dropped)} dropped, "
            f"{len(report.truncated)} cut; {report.tokens} tokens, {report.target_tokens} targets"
        )
    log(
        f"adapter: {ready.trainable_parameters} trainable parameters; "
        f"prefixes are {'' if ready.reader.shares_prefixes else 'not '}shared, "
        f"logits are {'full' if ready.reader.anatomy is None else 'at targets only'}"
    )
    log(f"gradient checkpointing: {opened.recipe.training.grad_checkpoint}")
    log(f"plan: {plan.total_steps or 'any number of'} steps; starting after step {ready.state.step}")


def _result(run: RunFolder, ready: Ready, ended_by: EndedBy) -> RunResult:
    state = ready.state
    steps = [line for line in read_metrics(run.metrics) if "loss" in line]
    return RunResult(
        run_dir=run.path,
        ended_by=ended_by,
        steps=state.step,
        train_loss=steps[-1]["loss"] if steps else None,
        valid_loss=state.best_valid_loss,
        seconds=state.seconds,
        tokens=state.tokens,
        target_tokens=state.target_tokens,
        peak_memory_bytes=max((line["peak_memory_bytes"] for line in steps), default=0),
        trainable_parameters=ready.trainable_parameters,
        interrupted=ended_by == "stopped",
    )

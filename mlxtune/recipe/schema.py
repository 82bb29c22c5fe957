"""The keys of a recipe: names, types, bounds, defaults and their meaning. This is their one home.

A recipe says what is to be done and nothing of how: it knows no network and no file format. Method and objective are
two axes, each with its own keys by ``type``. Every key has a default but ``name``, ``model.source`` and ``data.train``.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from mlxtune.recipe.choices import (
    CHAT_TEMPLATES,
    GROUP_SIZE,
    Bits,
    ChatTemplateName,
    Form,
    GroupSize,
    OptimizerName,
    Overflow,
    Schedule,
    TrackerName,
    TrainOn,
    in_words,
)
from mlxtune.recipe.data_files import Files
from mlxtune.recipe.method import LoraSettings, Method
from mlxtune.recipe.objective import ObjectiveSettings, SftSettings, fault_of_rewards
from mlxtune.recipe.row_shape import ColumnSettings, OneOrSeveralTemplates
from mlxtune.recipe.settings import FilePath, Settings, expected
from mlxtune.recipe.tasks import Task

DEFAULT_EPOCHS = 3
BATCH_SIZE = 8

WHOLE_PAIRS = "both answers of a pair need their prompt"
BOTH_ANSWERS = "of a pair the two answers are compared, never the prompt"
WHOLE_PROMPTS = "an answer is drawn to the whole of a prompt, and judged by the whole of the row's own"
OWN_ANSWERS = "what is learned is the answers that are drawn, never the prompt"


class QuantizeSettings(Settings):
    """How the base model's weights are stored."""

    bits: Bits = 4
    """Bits a weight."""
    group_size: GroupSize = GROUP_SIZE
    """How many weights share a scale and a bias."""


class ModelSettings(Settings):
    """The pre-trained model."""

    source: str = Field(min_length=1)
    """A catalogue name (`mlxtune models list`), a folder in Hugging Face or MLX format, a `.gguf` file, or
    `org/name[@revision]` on the hub."""
    quantize: QuantizeSettings | None = None
    """Store the base in these bits; null keeps what is stored."""
    adapter: FilePath | None = None
    """The run or adapter folder to start from, written by mlxtune, mlx-lm or PEFT; null starts from the base. What
    `method` leaves out is taken from the adapter. Scores compare with the base all the same."""


class EveryBlock(Settings):
    """Some of the blocks that train."""

    every: int = Field(ge=1)
    """1 is all of them, 2 half."""


class ReplaySettings(Settings):
    """General rows among those to learn, so that the model keeps what it can do: the remedy for forgetting."""

    file: str = Field(min_length=1)
    """Their place, as in `train`. Their form is told by their own columns: `format`, `columns` and `template` are of
    your own rows alone. Rows longer than `max_seq_length` are dropped."""
    share: float = Field(default=0.2, gt=0, le=0.9)
    """The share of an epoch's rows that is theirs: 0.2 puts one among four of your own. Of a file with more rows the
    same ones are taken in every epoch; of one with fewer, each several times."""


class DataSettings(Settings):
    """The examples. Relative paths are relative to the recipe's folder."""

    train: Files
    """Rows to train on: a file (JSON Lines, JSON, CSV, TSV, Parquet, Arrow, text or Markdown, each also .gz or .zst), a
    folder of such files, `hf://datasets/org/name[@revision][/path]`, or a list of these or of
    `{path: ..., weight: ...}`. Of a folder or hub data set with several splits, the files of this one are read."""
    valid: Files | None = None
    """Rows to choose by: the best checkpoint, early stopping."""
    test: Files | None = None
    """Rows that are scored at the end, and never used for a choice."""
    format: Literal["auto", Form] = "auto"
    """What the rows look like: `chat` (messages), `sharegpt` (conversations), `alpaca` (instruction, input, output),
    `prompt_completion`, `question_answer` (question, answer), `text`, `preference` (chosen, rejected) or `label` (text,
    label); auto tells by the columns of the first rows, and says why."""
    columns: ColumnSettings | None = None
    """Which of your columns is which, where they have other names."""
    template: Annotated[
        OneOrSeveralTemplates | None,
        expected("a Jinja template or its file, or a mapping such as {prompt: ..., completion: ...}", or_section=True),
    ] = None
    """Columns made by a Jinja template of a row's own; one template alone makes the text. In place of a template its
    file, whose name ends with `.jinja`. It has values, `if`, `for`, `set` and some filters, and nothing that could
    reach your files or run for ever."""
    chat_template: Annotated[
        ChatTemplateName | FilePath | None, expected(f"{in_words(CHAT_TEMPLATES)}, or a Jinja file")
    ] = None
    """A chat template in place of the model's own, for a base model that has none. `instruction` is plain text whose
    turns end with the EOS that every model has; `chatml` needs a model that has its tokens, as Qwen's do; or a Jinja
    file. Null is the model's own."""
    train_on: TrainOn = "completions"
    """Which tokens are targets: those of all answers, of the last one, or all. Text rows are always everything."""
    max_seq_length: int = Field(default=512, ge=2)
    """Most tokens that an example may have."""
    overflow: Overflow = "error"
    """What becomes of a longer example."""
    replay: ReplaySettings | None = None
    """Rows of another kind that are learned along with `train`; null for none."""


class ThrottleSettings(Settings):
    """How training keeps out of the way of whoever uses the machine. What a machine does not tell, or does not have, as
    a server has no battery, changes nothing. These keys change when steps are made and nothing of what is learned, so
    a run may go on with others."""

    battery: Literal["pause", "ignore"] = "pause"
    """On battery, wait until the machine is plugged in: a training run empties a battery in an hour or two."""
    thermal: Literal["slow", "pause", "ignore"] = "slow"
    """Where the machine is so hot that the system slows it down: rest for as long as each step takes, or wait until it
    has cooled down."""
    memory_pressure: Literal["pause", "ignore"] = "pause"
    """Where memory is so short that other programs stand still, wait for up to five minutes at a time, with what can be
    given back given back."""
    max_gpu_share: float = Field(default=1.0, gt=0, le=1)
    """The most of the time that steps may take; the rest is slept between them. 1 rests never, since a machine that
    nobody sits at should not be slower for it; 0.9 keeps a display smooth that one works at."""


class TrainingSettings(Settings):
    """How long and how fast. The first of epochs, max_steps and max_minutes that is reached ends the run."""

    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens that go through the network at once, padding included, in as many examples as fit; not with batch_size."""
    batch_size: int | None = Field(
        default_factory=lambda earlier: BATCH_SIZE if earlier.get("batch_tokens") is None else None, ge=1
    )
    """Examples that go through the network at once: 8, unless batch_tokens says how many fit."""
    max_steps: int | None = Field(default=None, ge=1)
    """Most updates."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Most minutes of training."""
    epochs: int | None = Field(
        default_factory=lambda earlier: (
            DEFAULT_EPOCHS if earlier.get("max_steps") is None and earlier.get("max_minutes") is None else None
        ),
        ge=1,
    )
    """Passes over the data: 3, unless max_steps or max_minutes says when to end."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches an update."""
    learning_rate: float = Field(default=2.0e-4, gt=0)
    """The highest rate, reached after warm-up."""
    lr_schedule: Schedule = "cosine"
    """How the rate goes on after warm-up: down to zero by a cosine or a line, or as it is."""
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of all updates during which the rate rises to its highest."""
    optimizer: OptimizerName = "adamw"
    """`adamw`, `adam`, `sgd` (momentum 0.9), `lion`, `adafactor` or `muon`; each wants a learning rate of its own."""
    weight_decay: float = Field(default=0.0, ge=0)
    """The optimizer's decay, a share of the learning rate; biases and norms have none, nor has `adam`."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients longer than this are shortened to it; null does not clip."""
    cache_frozen_prefix: Literal["auto", "on", "off", "kept"] = "auto"
    """Work out once what the blocks below the lowest adapter make of each row: auto does so if rows are met again, kept
    leaves it in the cache for later runs on these rows, as a sweep's trials do."""
    grad_checkpoint: Annotated[
        Literal["auto", "off"] | EveryBlock, expected("auto, off, or {every: K} with K at least 1")
    ] = "auto"
    """Work parts of the forward pass out twice, to save memory: every K-th block's; auto is off, unless `--auto` says
    that memory needs it."""
    throttle: ThrottleSettings = ThrottleSettings()
    """When to wait or to rest for the sake of battery, heat, memory and display."""

    @model_validator(mode="after")
    def batches_have_one_size(self) -> Self:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise PydanticCustomError(
                "contradiction", "set batch_size, or batch_tokens in its place", {"key": "batch_tokens"}
            )
        return self

    @model_validator(mode="after")
    def ends_at_some_time(self) -> Self:
        if self.epochs is None and self.max_steps is None and self.max_minutes is None:
            raise PydanticCustomError(
                "contradiction", "nothing says when to end; set epochs, max_steps or max_minutes", {"key": "epochs"}
            )
        return self


class EvaluationSettings(Settings):
    """Measuring, while training and after it."""

    every_steps: int = Field(default=50, ge=1)
    """Updates between two looks at the loss on data.valid."""
    samples: int = Field(default=2, ge=0)
    """How many rows of data.valid the model answers at each of these looks, for `mlxtune watch`; 0 answers none."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """End after so many looks without a better loss; null never ends early."""
    tasks: Annotated[tuple[Task, ...], Field(strict=False)] = ()
    """What is asked and scored on data.test, for base and tuned model alike."""
    forgetting: bool = True
    """Ask base and tuned model, after scoring, some general questions that come with mlxtune, and read some general
    text: whether what the base could do is still there."""
    group_by: str | None = Field(default=None, min_length=1)
    """A column of the held-out rows, by whose values the scores are broken down as well: `language`, `meta.source`."""

    @model_validator(mode="after")
    def task_names_differ(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise PydanticCustomError("contradiction", "two tasks have the same name", {"key": "tasks"})
        return self


class CheckpointSettings(Settings):
    """Saving what a run needs to go on."""

    every_steps: int = Field(default=50, ge=1)
    """Updates between two checkpoints."""
    keep: int = Field(default=2, ge=1)
    """How many checkpoints stay, the newest."""


class Recipe(Settings):
    """One turn of the wheel: a model, a method, an objective, data, and how to train and to measure."""

    schema_version: Literal[1] = 1
    """The version of these keys."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """What runs are called: letters, digits, dot, dash and underscore."""
    seed: int = Field(default=7, ge=0, lt=2**32)
    """Decides all that is random: the order of examples, the adapter's start, dropout."""
    offline: bool = False
    """Never use the network, as `--offline` does: all that the recipe names has to be on this machine already. Several
    machines that train together talk to each other all the same."""
    model: ModelSettings
    method: Method = LoraSettings()
    """What is trained: `lora` where nothing is said, `dora`, or `full`; each type has keys of its own."""
    objective: ObjectiveSettings = SftSettings()
    """What is optimized: `sft`, one answer a row; `dpo`, `orpo` or `kto`, a better one and another; or `grpo`, what
    tasks say of answers that the model tries."""
    data: DataSettings
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    report_to: Annotated[tuple[TrackerName, ...], Field(strict=False)] = ()
    """Trackers that are told the numbers of each step: `tensorboard`, `wandb`; each needs the extra of its name. A run
    has all of them in its own folder anyway, as metrics.jsonl. Both write into that folder; `wandb` sends nothing,
    unless your environment has `WANDB_MODE=online`."""

    @model_validator(mode="after")
    def rows_stay_whole(self) -> Self:
        if self.objective.type == "sft":
            return self
        data, drawn = self.data, self.objective.type == "grpo"
        unit = "prompts" if drawn else "pairs"
        files = [file for split in (data.train, data.valid, data.test) for file in split or ()]
        parts = ("split", "truncate_left", "truncate_right") if drawn else ("split", "truncate_left")
        for key, is_wrong, why in (
            ("data.overflow", data.overflow in parts, WHOLE_PROMPTS if drawn else WHOLE_PAIRS),
            ("data.train_on", data.train_on == "everything", OWN_ANSWERS if drawn else BOTH_ANSWERS),
            ("data.replay", data.replay is not None, f"other rows cannot be learned beside {unit}"),
            ("data.train", any(file.weight != 1 for file in files), f"{unit} have no weights"),
        ):
            if is_wrong:
                context = {"key": key, "type": self.objective.type, "why": why}
                raise PydanticCustomError("contradiction", "objective {type}: {why}", context)
        return self

    @model_validator(mode="after")
    def drawn_answers_are_judged(self) -> Self:
        if self.objective.type != "grpo":
            return self
        wrong = fault_of_rewards(self.objective, self.evaluation.tasks)
        if wrong is None and self.objective.beta and self.method.type == "full":
            wrong = "objective.beta", "all weights would be in memory a second time, to be compared with; set beta 0"
        if wrong is None and self.training.cache_frozen_prefix in ("on", "kept"):
            wrong = "training.cache_frozen_prefix", "no answer is met a second time, so nothing of it is worth keeping"
        if wrong is not None:
            key, why = wrong
            raise PydanticCustomError("contradiction", "objective grpo: {why}", {"key": key, "why": why})
        return self

    @model_validator(mode="after")
    def trackers_differ(self) -> Self:
        if len(set(self.report_to)) < len(self.report_to):
            raise PydanticCustomError("contradiction", "a tracker is named twice", {"key": "report_to"})
        return self

    @model_validator(mode="after")
    def early_stopping_has_something_to_look_at(self) -> Self:
        if self.evaluation.early_stopping_patience is not None and self.data.valid is None:
            raise PydanticCustomError(
                "contradiction",
                "early stopping looks at the loss on data.valid, and there is none",
                {"key": "evaluation.early_stopping_patience"},
            )
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, with which an editor completes and checks keys."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}

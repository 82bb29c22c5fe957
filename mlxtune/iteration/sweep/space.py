"""What a sweep tries: the recipe's keys with the values that each may have, read off a command line and checked.

``KEY=A,B,C`` is a list of YAML values, one of which a trial gets; ``KEY=LOW..HIGH`` is a range; ``KEY=VALUE`` is the
same for all trials. Whole numbers stay whole where the key wants them. A range whose ends are both above zero and a
factor of `LOG_FACTOR` or more apart is drawn on a logarithmic scale, as learning rates want it; any other evenly. All
is checked with the recipe's own schema before anything is trained. Knows nothing of how values are drawn.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlxtune.errors import RecipeError
from mlxtune.recipe.document import Key, parse
from mlxtune.recipe.keys import dotted
from mlxtune.recipe.load import LoadedRecipe, load_recipe
from mlxtune.recipe.overrides import split_override
from mlxtune.recipe.schema import Recipe

LOG_FACTOR = 10.0

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\.\.({_NUMBER})\s*")

REFUSED: dict[Key, str] = {
    ("schema_version",): "is no setting of the training",
    ("name",): "is no setting of the training",
    ("offline",): "is no setting of the training",
    ("report_to",): "is no setting of the training",
    ("checkpoint",): "is no setting of the training",
    ("model", "source"): "changes the tokens that the validation loss is counted in",
    ("objective",): "changes what the validation loss is",
    ("evaluation",): "changes how the validation loss is measured",
    ("data",): "changes the rows that the validation loss is measured on",
}
"""Keys that every trial has alike, and why: trials are compared by their validation loss."""
ALLOWED: tuple[Key, ...] = (("data", "train"), ("data", "replay"))
"""Below those: what is only trained on."""
ALLOWED_OF_DRAWN = tuple(
    ("objective", name) for name in ("group_size", "loss", "beta", "num_iterations", "epsilon", "epsilon_high")
)
"""Where answers are drawn: how is learned from them. Validation is the reward of what is answered greedily all the
same."""

Point = Mapping[str, Any]
"""The values of one trial, by dotted key."""


@dataclass(frozen=True)
class Choices:
    """A key that has one of some values, which are JSON."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A key that has a number from ``low`` to ``high``, both included."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool


Dimension = Choices | Range


@dataclass(frozen=True)
class Space:
    """What is tried around a recipe, which has the settings that are the same for all trials already."""

    base: LoadedRecipe
    dimensions: tuple[Dimension, ...]
    source: str | Path
    fixed: tuple[str, ...]
    """What ``base`` was made of: a recipe's file or name, and the overrides that are the same for all trials."""

    def at(self, point: Point) -> LoadedRecipe:
        """The recipe with some values of those that are tried. Raises: RecipeError."""
        return load_recipe(self.source, [*self.fixed, *overrides_of(point)])

    @property
    def own(self) -> Point | None:
        """The recipe's own values, if they are among those that are tried."""
        found = {dimension.key: value_at(self.base.recipe, dimension.key) for dimension in self.dimensions}
        return found if all(holds(dimension, found[dimension.key]) for dimension in self.dimensions) else None


def read_space(recipe: str | Path, settings: Sequence[str]) -> Space:
    """The space that a command line names.

    Args:
        recipe: a file, or the name of a packaged recipe.
        settings: ``KEY=A,B,C``, ``KEY=LOW..HIGH`` and ``KEY=VALUE``.

    Raises: RecipeError, for what is none of these, a key that the recipe does not know (with the nearest one), a value
        that it may not have, a range of what is no number or that is empty, a key that all trials must have alike, or
        that is named twice.
    """
    told = [_parsed(setting) for setting in settings]
    _refuse_twice([key for key, _, _ in told])
    fixed = [setting for setting, (_, values, _) in zip(settings, told, strict=True) if len(values) == 1]
    base = load_recipe(recipe, fixed)
    dimensions = []
    for key, values, is_range in told:
        if len(values) > 1:
            _refuse_alike(key, base.recipe)
            found = [_checked(recipe, fixed, key, value) for value in values]
            dimensions.append(_range(key, found) if is_range else _choices(key, found))
    return Space(base, tuple(dimensions), recipe, tuple(fixed))


def _parsed(setting: str) -> tuple[Key, list[Any], bool]:
    """Key, values and whether they are the ends of a range; one value, where there is only one."""
    name, equals, text = setting.partition("=")
    if (ends := _RANGE.fullmatch(text)) is not None:
        key, _ = split_override(f"{name}=0")
        return key, [parse(end, f"override {setting}").values for end in ends.groups()], True
    key, values = split_override(f"{name}{equals}[{text}]" if text.strip() else setting)
    return key, values if isinstance(values, list) and values else [values], False


def _refuse_twice(keys: Sequence[Key]) -> None:
    for first, second in itertools.combinations(keys, 2):
        if first[: len(second)] == second or second[: len(first)] == first:
            longer = max(first, second, key=len)
            raise RecipeError(f"{dotted(longer)} is set twice", remedy="name each key once")


def _refuse_alike(key: Key, recipe: Recipe) -> None:
    may_differ = (*ALLOWED, *(ALLOWED_OF_DRAWN if recipe.objective.type == "grpo" else ()))
    for refused, why in REFUSED.items():
        is_within = key[: len(refused)] == refused or refused[: len(key)] == key
        if is_within and not any(key[: len(allowed)] == allowed for allowed in may_differ):
            raise RecipeError(
                f"{dotted(key)} {why}, so all trials have the same",
                where=dotted(key),
                remedy="give it one value; `mlxtune evaluate RUN --against MODEL` compares models",
            )


def _checked(recipe: str | Path, fixed: Sequence[str], key: Key, value: Any) -> Any:
    """A value as the recipe has it once it is checked: JSON, its paths absolute. Raises: RecipeError."""
    loaded = load_recipe(recipe, [*fixed, f"{dotted(key)}={json.dumps(value)}"])
    return value_at(loaded.recipe, dotted(key))


def value_at(recipe: Recipe, key: str) -> Any:
    """What a recipe has at a dotted key, as JSON; None too where it has nothing there."""
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _choices(key: Key, values: list[Any]) -> Choices:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise RecipeError(f"{dotted(key)} has the value {json.dumps(value)} twice", remedy="name each value once")
    return Choices(dotted(key), tuple(values))


def _range(key: Key, ends: list[Any]) -> Range:
    low, high = ends
    name = dotted(key)
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise RecipeError(f"{name} is no number, so it has no range", where=name, remedy="list values: KEY=A,B,C")
    if not low < high:
        raise RecipeError(f"the range {low}..{high} of {name} is empty", where=name, remedy="write the lower end first")
    return Range(
        name, low, high, log=low > 0 and high / low >= LOG_FACTOR, whole=all(isinstance(end, int) for end in ends)
    )


def holds(dimension: Dimension, value: Any) -> bool:
    """Whether a value is one of those that are tried."""
    if isinstance(dimension, Choices):
        return value in dimension.values
    return isinstance(value, int | float) and not isinstance(value, bool) and dimension.low <= value <= dimension.high


def count_points(dimensions: Sequence[Dimension]) -> float:
    """How many different trials there can be; infinity where a range has more than whole numbers."""
    counts = [
        len(one.values) if isinstance(one, Choices) else one.high - one.low + 1 if one.whole else math.inf
        for one in dimensions
    ]
    return math.prod(counts)


def all_points(dimensions: Sequence[Dimension]) -> Iterator[Point]:
    """Every trial that there can be, where `count_points` is finite; the last key changes fastest."""
    values = [one.values if isinstance(one, Choices) else range(int(one.low), int(one.high) + 1) for one in dimensions]
    for chosen in itertools.product(*values):
        yield {one.key: value for one, value in zip(dimensions, chosen, strict=True)}


def overrides_of(point: Point) -> list[str]:
    """A trial's values as overrides of the recipe."""
    return [f"{key}={json.dumps(value)}" for key, value in point.items()]


def to_json(dimensions: Sequence[Dimension]) -> list[dict[str, Any]]:
    """What `from_json` reads."""
    return [asdict(one) for one in dimensions]


def from_json(told: Sequence[Mapping[str, Any]]) -> tuple[Dimension, ...]:
    """The dimensions that `to_json` wrote."""
    return tuple(
        Choices(one["key"], tuple(one["values"])) if "values" in one else Range(**one)  # type: ignore[arg-type]
        for one in told
    )

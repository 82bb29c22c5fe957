"""The options that say how answers are drawn: the same for every command that draws some.

An option that was not given is not handed on, so that its default stays where drawing is done; the price is that this
help has to say in words what happens without it.
"""

import functools
from collections.abc import Callable
from typing import Any

import click

from mlxtune.deployment.sampling import MAX_TOKENS, SEED, TEMPERATURE

OPTIONS = (
    click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        default=MAX_TOKENS,
        show_default=True,
        help="Most tokens of an answer.",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        default=TEMPERATURE,
        show_default=True,
        help="0: the likeliest token.",
    ),
    click.option(
        "--top-p",
        type=click.FloatRange(0, 1, min_open=True),
        help="Draw from the likeliest tokens that together have this probability; else from all.",
    ),
    click.option(
        "--top-k", type=click.IntRange(min=0), help="Draw from so many of the likeliest tokens; else from all."
    ),
    click.option(
        "--min-p",
        type=click.FloatRange(0, 1),
        help="Draw no token of less than this share of the likeliest one's probability.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=SEED, show_default=True, help="Of the draws."),
    click.option("--stop", multiple=True, metavar="TEXT", help="A text before which an answer ends; may be repeated."),
)
NARROW = ("top_p", "top_k", "min_p")
NAMES = ("max_tokens", "temperature", *NARROW, "seed", "stop")


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, and its function the keyword ``sampling``: those that have a value, by the names of
    `inference.sampling.Sampling`.
    """

    @functools.wraps(function)
    def with_sampling(*arguments: Any, **settings: Any) -> Any:
        drawn = {name: settings.pop(name) for name in NAMES}
        if "" in drawn["stop"]:
            raise click.BadParameter("a text to stop at has at least one character", param_hint="'--stop'")
        if drawn["temperature"] == 0 and (narrow := next((name for name in NARROW if drawn[name] is not None), None)):
            option = f"--{narrow.replace('_', '-')}"
            raise click.UsageError(
                f"{option} narrows what is drawn, and temperature 0 draws nothing; add --temperature"
            )
        given = {name: value for name, value in drawn.items() if value is not None}
        return function(*arguments, sampling=given, **settings)

    for option in reversed(OPTIONS):
        option(with_sampling)
    return with_sampling

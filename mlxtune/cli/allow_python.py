"""``--allow-python``: leave for the code of one's own that a recipe's scorer `python` names, while the command runs."""

import functools
from collections.abc import Callable
from typing import Any

import click

from mlxtune.cli.output import Output


def allow_python_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option, and leave to its function; below ``output_options``, since what runs is told there."""

    @functools.wraps(function)
    def with_leave(*arguments: Any, allow_python: bool, output: Output, **settings: Any) -> Any:
        if allow_python:
            from mlxtune.evaluation.own_code import python_allowed

            click.get_current_context().with_resource(python_allowed(output.note))
        return function(*arguments, output=output, **settings)

    return click.option(
        "--allow-python",
        is_flag=True,
        envvar="MLXTUNE_ALLOW_PYTHON",
        help="Run the code of a recipe's scorer `python`, with your rights: look at it first.",
    )(with_leave)

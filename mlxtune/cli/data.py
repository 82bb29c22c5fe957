"""``mlxtune data``: look at rows as the network will meet them, count them, split a file, make rows of documents."""

import click

from mlxtune.cli import data_build, data_inspect, data_scan, data_split, data_stats, data_validate


@click.group()
def command() -> None:
    """Look at training data, count it, check it, split it, and build it from documents."""


command.add_command(data_inspect.command)
command.add_command(data_stats.command)
command.add_command(data_validate.command)
command.add_command(data_scan.command)
command.add_command(data_split.command)
command.add_command(data_build.command)

"""A recipe's ``offline: true`` on the command line: the network is off until the command ends.

For commands that open what a recipe names themselves; train and evaluate leave it to the functions that they call.
"""

from typing import TYPE_CHECKING

import click

from mlxtune.offline import network_off

if TYPE_CHECKING:
    from mlxtune.recipe.schema import Recipe


def obey_offline(recipe: "Recipe") -> None:
    """Put the network off for the rest of the current command, if the recipe says so; before anything is opened."""
    if recipe.offline:
        click.get_current_context().with_resource(network_off())

"""What a run that was chosen from a sweep says of that: of how many, by what, and who else saw the test rows.

The best of many is flattered by having been chosen, which whoever reads its figures has to know. Knows run.json's
``sweep``, which the sweep writes; nothing of how trials are drawn.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KEY = "sweep"
"""In run.json."""


@dataclass(frozen=True)
class Chosen:
    """How a run came to be the winner of a sweep."""

    number: int
    """Of its trial, from 0."""
    trials: int
    """That were begun, those that were ended early or went wrong too."""
    test_reads: int
    """Of so many of the sweep's runs the test rows were scored: more than one, where a sweep that had its winner went
    on and came to another."""
    folder: str
    """The sweep's."""

    def to_manifest(self) -> dict[str, Any]:
        """What run.json gets."""
        return {KEY: asdict(self)}

    @property
    def sentence(self) -> str:
        """For the card and the report."""
        flattered = "the lowest of so many is lower than its like on other rows would be"
        said = (
            f"Chosen as the best of {self.trials} trials of a sweep by its loss on the validation rows: {flattered}."
            if self.trials > 1
            else "The only trial of a sweep."
        )
        if self.test_reads > 1:
            return f"{said} The test rows were scored for {self.test_reads} runs of this sweep, one after the other."
        return f"{said} The test rows are scored for this run alone."


def chosen_from(manifest: Mapping[str, Any]) -> Chosen | None:
    """Of a run's run.json; None for a run that no sweep chose."""
    told = manifest.get(KEY)
    return Chosen(**told) if isinstance(told, Mapping) else None

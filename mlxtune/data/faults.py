"""What is wrong with the rows of a file, told all at once.

A reader, a form or a template that meets a bad row notes a fault and goes on; at the end one error names them all,
so that a file is mended in one sitting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxtune.errors import DataError

LISTED = 20
"""How many faults an error names before it only counts them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where: ``file:line``. Faults of one ``kind`` are told together."""

    where: str
    message: str
    kind: str = ""
    remedy: str = ""

    @property
    def line(self) -> int:
        return int(self.where.rpartition(":")[2])


def refuse(faults: Sequence[Fault], *, path: Path, remedy: str, count: int | None = None) -> None:
    """Do nothing if there are no faults.

    Args:
        count: how many there are, where ``faults`` are only the first `LISTED` of them.

    Raises: DataError, naming the first ``LISTED`` faults with their places, and counting the rest.
    """
    if not faults:
        return
    count = len(faults) if count is None else count
    if count == 1:
        raise DataError(faults[0].message, where=faults[0].where, remedy=remedy)
    lines = [f"  {fault.where}: {fault.message}" for fault in faults[:LISTED]]
    if count > LISTED:
        lines.append(f"  and {count - LISTED} more")
    raise DataError("\n".join([f"{count} problems", *lines]), where=path, remedy=remedy)

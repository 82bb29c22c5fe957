"""logs/attempt_N.log: what one attempt at a run did, in plain lines, each with its time.

An attempt is a process that works in the run; a resumed run has several. The lines hold counts, figures and places,
never a text of the user's rows: not even an error's message, which may quote one.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from mlxtune.errors import MlxtuneError
from mlxtune.files import naming

Log = Callable[[str], None]
"""Takes one line."""


@contextlib.contextmanager
def attempt_log(folder: Path) -> Iterator[Log]:
    """The next attempt's log: a function that adds a line, handed to the system before it returns.

    An exception that leaves the block is the last line: its type, and the place that an error of mlxtune's names.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    numbers = [int(path.stem.removeprefix("attempt_")) for path in folder.glob("attempt_[0-9]*.log")]
    path = folder / f"attempt_{max(numbers, default=0) + 1}.log"

    def log(line: str) -> None:
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}\n")

    try:
        yield log
    except BaseException as error:
        place = f" at {error.where}" if isinstance(error, MlxtuneError) and error.where else ""
        with contextlib.suppress(OSError):  # what ended the block is to be told, not that the disk is full
            log(f"ended: {type(error).__name__}{place}")
        raise


def in_short(line: dict[str, float]) -> str:
    """A line of metrics.jsonl for people."""
    if "valid_loss" in line:
        answers = f"; answers for watch, {line['samples_seconds']:.1f} s" if "samples_seconds" in line else ""
        return f"step {line['step']}: valid_loss {line['valid_loss']:.4f}, {line['valid_seconds']:.1f} s{answers}"
    if "loss" not in line:
        return ", ".join(f"{name} {value}" for name, value in line.items())
    return (
        f"step {line['step']}: loss {line['loss']:.4f}, learning_rate {line['learning_rate']:.2e}, "
        f"grad_norm {line['grad_norm']:.3f}, {line['target_tokens']} targets, {line['tokens_per_s']:.0f} tokens/s, "
        f"{line['seconds']:.2f} s"
    )

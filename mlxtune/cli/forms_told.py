"""What the files of a recipe's splits were taken for, and why, in lines for a person."""

from collections import Counter
from collections.abc import Iterable

from mlxtune.printable import printable


def form_lines(read: Iterable[tuple[str, str, str]]) -> list[str]:
    """A line for each reason, with the splits that it holds for.

    Args:
        read: split, file and reason of each file; a file is named where its split has several.
    """
    files = [one for one in read if one[2]]
    of_split = Counter(split for split, _, _ in files)
    splits: dict[str, list[str]] = {}
    for split, file, why in files:
        splits.setdefault(why, []).append(split if of_split[split] == 1 else f"{split} ({printable(file)})")
    return [f"{_in_words(names)} read as {printable(why)}" for why, names in splits.items()]


def _in_words(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last} are" if others else f"{last} is"

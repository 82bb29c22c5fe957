"""Which of many files are the rows of a split: by the data set's card, else by names, as the hub lays data sets out.

The card (README.md) may name files by `configs`; where it does not, a file is of the split whose word its name or the
folder above it has (``train-00000-of-00002.parquet``, ``data/validation/a.jsonl``), and where no name has any, all
files are every split's. Knows names alone, so that a folder and the hub's list of files are read alike.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

from mlxtune.data.reading.kinds import KINDS, compression_of, find_kind
from mlxtune.errors import DataError

SPLIT_WORDS = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
CARD = "README.md"
LONGEST_CARD = 1 << 20
ABOUT = re.compile(r"(readme|licen[cs]e|notice|changelog|citation|contributing|authors)\b.*", re.IGNORECASE)
"""Names of texts that are about data."""
OF_LIBRARIES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What the library `datasets` writes beside rows."""
SHARDS = re.compile(r"-(\d{5,})-of-(\d{5,})(?=[.-]|$)")
LISTED = 5


def files_of_split(names: Sequence[str], split: str, card: str, *, where: str, config: str = "") -> list[str]:
    """Of the files of a data set, those of one split, in the order in which they are read.

    Args:
        names: relative, with ``/``.
        card: the text of its README.md; "" without one.
        where: names the data set in errors.
        config: of a card with several configurations, the one that is meant.

    Raises: DataError, if none is of the split, or it cannot be told which are.
    """
    places = _places_in_card(card, split, config, where)
    if places is None:
        found = _of_split([name for name in names if _is_data(name)], split, where)
    else:
        found = [name for name in names if any(_matches(name, place) for place in places)]
        if not found:
            raise DataError(
                f"no file is where the card says that the {split} rows are: {', '.join(places)}",
                where=where,
                remedy="name the files themselves",
            )
    return _checked(_of_one_kind(found, where), where)


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return find_kind(path) is not None and not hidden and path.name not in OF_LIBRARIES


def _of_split(names: list[str], split: str, where: str) -> list[str]:
    if not names:
        raise DataError("there are no files of rows", where=where, remedy="name a folder that has some, or a file")
    splits = {name: _split_of(name, where) for name in names}
    found = {one for one in splits.values() if one}
    if not found:
        return names
    chosen = [name for name, one in splits.items() if one == split]
    if not chosen:
        raise DataError(
            f"it has files of {' and '.join(sorted(found))}, and none of {split}",
            where=where,
            remedy=f"name the file that has the rows for data.{split}, or leave data.{split} out",
        )
    _refuse_configs(chosen, where)
    return chosen


def _split_of(name: str, where: str) -> str:
    """The split whose word is in a file's name, or else in the nearest folder that has one; "" without any."""
    path = PurePosixPath(name)
    for part in (path.name.partition(".")[0], *reversed(path.parts[:-1])):
        words = re.split(r"[^a-z]+", part.lower())
        found = [split for split, own in SPLIT_WORDS.items() if any(word in words for word in own)]
        if len(found) > 1:
            raise DataError(
                f"the name {name!r} has the words of several splits: {', '.join(found)}",
                where=where,
                remedy="give the file another name, or name it itself in the recipe",
            )
        if found:
            return found[0]
    return ""


def _refuse_configs(names: Sequence[str], where: str) -> None:
    """Raises: DataError, for ``a/train/0.parquet`` beside ``b/train/0.parquet``: two data sets, not one in parts."""
    paths = [PurePosixPath(name) for name in names]
    by_folder = [path for path in paths if len(path.parts) > 2 and _split_of(path.parent.name, where)]  # noqa: PLR2004
    configs = sorted({path.parts[-3] for path in by_folder})
    if len(configs) > 1:
        raise DataError(
            f"it has several configurations: {_listed(configs)}",
            where=where,
            remedy=f"name one by its folder: {where.rstrip('/')}/{configs[0]}",
        )


def _of_one_kind(names: list[str], where: str) -> list[str]:
    kinds = {kind: [name for name in names if find_kind(PurePosixPath(name)) == kind] for kind in KINDS}
    present = [kind for kind, own in kinds.items() if own]
    if "text" in present:
        texts = [name for name in kinds["text"] if not ABOUT.fullmatch(PurePosixPath(name).name)]
        if texts or len(present) > 1:
            kinds["text"] = texts
    present = [kind for kind, own in kinds.items() if own]
    if len(present) > 1:
        firsts = [kinds[kind][0] for kind in present]
        raise DataError(
            f"it has rows in files of several kinds: {_listed(firsts)}",
            where=where,
            remedy="name the files that are meant, as a list",
        )
    return sorted(kinds[present[0]]) if present else []


def _checked(names: list[str], where: str) -> list[str]:
    """Raises: DataError, for a file that is there twice, packed and not, and for a missing part of several."""
    if not names:
        raise DataError("there are no files of rows", where=where, remedy="name a folder that has some, or a file")
    plain = [
        name.removesuffix(PurePosixPath(name).suffix) if compression_of(PurePosixPath(name)) else name for name in names
    ]
    twice = sorted({name for name in plain if plain.count(name) > 1}) if len(set(plain)) < len(plain) else []
    if twice:
        raise DataError(
            f"{twice[0]!r} is there twice, compressed and not, or in two ways", where=where, remedy="take one away"
        )
    parts: dict[str, set[int]] = {}
    for name in plain:
        if match := SHARDS.search(name):
            key = f"{name[: match.start()]}-of-{match[2]}{name[match.end() :]}"
            parts.setdefault(key, set()).add(int(match[1]))
    for key, numbers in parts.items():
        count = int(key.rpartition("-of-")[2].partition(".")[0])
        if len(numbers) != count:
            raise DataError(
                f"of {count} parts of {key!r} there are {len(numbers)}", where=where, remedy="fetch the missing parts"
            )
    return names


def _places_in_card(card: str, split: str, config: str, where: str) -> list[str] | None:
    """The patterns by which a card names the files of a split; None, where it names none at all.

    Raises: DataError, if the card cannot be read, has several configurations and none is meant, or names files outside.
    """
    configs = _configs_in(card, where)
    if not configs:
        return None
    named = {str(one.get("config_name", "default")): one for one in configs}
    default = [name for name, one in named.items() if one.get("default") is True or name == "default"]
    chosen = config or (next(iter(named)) if len(named) == 1 else next(iter(default), ""))
    if chosen not in named:
        raise DataError(
            f"it has several configurations: {_listed(sorted(named))}"
            if not config
            else f"it has no configuration {config!r}, but {_listed(sorted(named))}",
            where=where,
            remedy="name one after the data set's name, or name the files",
        )
    files, folder = named[chosen].get("data_files"), named[chosen].get("data_dir")
    if files is None:
        return [f"{folder}/**"] if isinstance(folder, str) else None
    by_split = _by_split(files)
    places = [place for name, own in by_split.items() if _split_named(name) == split for place in own]
    if not places:
        raise DataError(
            f"its card names files of {' and '.join(sorted(by_split)) or 'no split'}, and none of {split}",
            where=where,
            remedy=f"name the file that has the rows for data.{split}, or leave data.{split} out",
        )
    outside = [place for place in places if "://" in place or place.startswith("/") or ".." in place.split("/")]
    if outside:
        raise DataError(
            f"its card names files that are not in it: {outside[0][:100]!r}",
            where=where,
            remedy="name the files that you trust yourself",
        )
    return places


def _by_split(files: Any) -> dict[str, list[str]]:
    """A card's `data_files`, in any of the forms that it may have, by the names of splits."""
    if isinstance(files, dict):
        return {str(split): _as_list(places) for split, places in files.items()}
    if isinstance(files, list) and files and all(isinstance(one, dict) for one in files):
        found: dict[str, list[str]] = {}
        for one in files:
            found.setdefault(str(one.get("split", "train")), []).extend(_as_list(one.get("path")))
        return found
    return {"train": _as_list(files)}


def _as_list(places: Any) -> list[str]:
    return [place for place in (places if isinstance(places, list) else [places]) if isinstance(place, str)]


def _split_named(name: str) -> str:
    return next((split for split, words in SPLIT_WORDS.items() if name.lower() in words), name)


def _configs_in(card: str, where: str) -> list[dict[str, Any]]:
    """The `configs` of a card's head. Raises: DataError, if it is no YAML."""
    if not card.startswith("---"):
        return []
    head = card.removeprefix("---").partition("\n---")[0]
    if "configs" not in head:
        return []
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(head)
    except (YAMLError, ValueError, RecursionError) as error:
        raise DataError(
            "the head of its card (README.md) cannot be read as YAML",
            where=where,
            remedy="mend it, or name the files themselves",
        ) from error
    configs = values.get("configs") if isinstance(values, dict) else None
    return [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []


def _matches(name: str, pattern: str) -> bool:
    """Whether a name is what a card's pattern means: ``*`` stays within a folder, ``**`` does not."""
    pattern = pattern.removeprefix("./")
    if "**" in pattern:
        return fnmatch(name, pattern.replace("**/", "*").replace("**", "*"))
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatch(part, one) for part, one in zip(parts, wanted, strict=True))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more

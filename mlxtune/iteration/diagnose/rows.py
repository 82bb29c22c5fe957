"""What a run's rows say of its result: rows cut, unequal classes, repeats, masks without an answer, a leaked test set.

Reads data.json, which counted them. Names no row's words: findings are shown where rows are not.
"""

from collections.abc import Iterator

from mlxtune.iteration.diagnose.evidence import Evidence, at, count, own_rows
from mlxtune.iteration.diagnose.finding import Finding, Severity

CUT_SHARE, MUCH_CUT = 0.05, 0.25
"""Of the rows: fewer are the odd long row that a limit is for; from a quarter on most is not learned as written."""
MOST_SHARE = 0.8
"""Of the rows, with one answer: always giving it scores as much."""
RARER = 20
"""Times that an answer is rarer than the most frequent: it is seen once where that is seen twenty times."""
FEWEST_ROWS = 50
"""Below which shares of classes say nothing."""
REPEATED_SHARE, ALIKE_SHARE = 0.05, 0.3
"""Of the rows, that say exactly, or nearly, what an earlier one says: each epoch counts these several times. Rows of
one template are alike by nature, so many may be."""
END_ONLY = 2
"""Targets a row, on average, below which rows have nothing to learn but their end: a label is one token and its end."""
NO_TARGET_SHARE = 0.01
LEAKED_SHARE = 0.01
"""Of the test rows, that are nearly rows of training; fewer may be chance. One that is exactly so is never chance."""


def truncation(evidence: Evidence) -> Finding | None:
    """Many rows of training are longer than the limit, and cut or left out."""
    train = at(evidence.data, "splits", "train")
    (rows, without), overflow = own_rows(train), at(evidence.data, "overflow")
    cut = 0 if overflow == "split" else count(train, "truncated", "count")
    dropped = without if overflow == "drop" else 0
    if rows <= 0 or (cut + dropped) / rows < CUT_SHARE:
        return None
    limit = at(evidence.data, "max_seq_length")
    what = f"{dropped:,} of {rows:,} rows are left out" if dropped else f"{cut:,} of {rows:,} rows are cut"
    return Finding(
        "truncation",
        "problem" if (cut + dropped) / rows >= MUCH_CUT else "hint",
        f"{what}: they are longer than {limit} tokens",
        "raise it (`mlxtune plan` says what that costs), or set data.overflow: split, which loses nothing",
        {"rows": rows, "cut": cut, "dropped": dropped, "max_seq_length": limit},
        "data.max_seq_length",
    )


def masks_train_on_nothing(evidence: Evidence) -> Finding | None:
    """Rows have nothing to learn: their answers are empty, or cut away."""
    train = at(evidence.data, "splits", "train")
    rows, targets = (count(train, name) for name in ("rows", "target_tokens"))
    read, without = own_rows(train)
    dropped = 0 if at(evidence.data, "overflow") == "drop" else without
    if rows and targets / rows < END_ONLY:
        return Finding(
            "masks_train_on_nothing",
            "problem",
            f"rows have {targets / rows:.1f} tokens to learn on average: their end, and no answer before it",
            "look at the mask (`mlxtune data inspect RECIPE`), and at which column is taken for the answer",
            {"rows": rows, "target_tokens": targets, "target_tokens_a_row": round(targets / rows, 2)},
            "data.columns",
        )
    if read > 0 and dropped / read >= NO_TARGET_SHARE:
        return Finding(
            "masks_train_on_nothing",
            "problem",
            f"{dropped:,} of {read:,} rows have no token to learn: the answer is cut away, and the row is left out",
            "raise it, or set data.overflow: truncate_left, which keeps the end of a row",
            {"rows": read, "without_targets": dropped, "max_seq_length": at(evidence.data, "max_seq_length")},
            "data.max_seq_length",
        )
    return None


def class_imbalance(evidence: Evidence) -> Finding | None:
    """The answers are classes, and one is far more frequent than others."""
    labels = at(evidence.data, "splits", "train", "labels")
    rows, classes = count(labels, "rows"), count(labels, "classes")
    listed = at(labels, "counts")
    pairs = [one for one in listed if isinstance(one, list) and one] if isinstance(listed, list) else []
    counts = [one[-1] for one in pairs if type(one[-1]) is int]
    if rows < FEWEST_ROWS or not counts:
        return None
    most, fewest = max(counts), min(counts)
    is_rare = classes == len(counts) and fewest * RARER <= most
    if most / rows < MOST_SHARE and not is_rare:
        return None
    told = f"the most frequent of {classes} answers has {most / rows:.0%} of the rows"
    return Finding(
        "class_imbalance",
        "hint",
        f"{told}, so always giving it is right as often"
        if most / rows >= MOST_SHARE
        else f"{told}, the rarest {fewest} of {rows:,}",
        "judge by macro_f1, not by accuracy; give rare answers more rows, or their file more weight: "
        "data.train: [{path: ..., weight: 5}]",
        {"rows": rows, "classes": classes, "most_frequent": most, "rarest_known": fewest},
        "data.train",
    )


def memorised_duplicates(evidence: Evidence) -> Finding | None:
    """Many rows of training repeat others: they are learned several times an epoch."""
    train = at(evidence.data, "splits", "train")
    rows, same, near = own_rows(train)[0], count(train, "duplicates"), count(train, "near_duplicates")
    if rows <= 0 or (same / rows < REPEATED_SHARE and near / rows < ALIKE_SHARE):
        return None
    told = f"{same:,} of {rows:,} rows of training say exactly what an earlier one says"
    if near:
        told += f", {near:,} nearly"
    return Finding(
        "memorised_duplicates",
        "hint",
        f"{told}: these are learned several times an epoch, and by heart first",
        "take out what is not meant to count twice: `mlxtune data validate RECIPE` names the rows",
        {"rows": rows, "same": same, "near": near},
        "data.train",
    )


def leaked_rows(evidence: Evidence) -> Iterator[Finding]:
    """Held-out rows stand in the training rows, too."""
    for split in ("test", "valid"):
        leak = at(evidence.data, "leakage", split)
        rows = count(leak, "rows")
        same, asks_same, near = (count(leak, name) for name in ("same", "asks_same", "near"))
        if not rows or not same + asks_same + near:
            continue
        is_scored = at(evidence.scores, "split") == split or split == "test"
        is_sure = bool(same) or (asks_same + near) / rows >= LEAKED_SHARE
        severity: Severity = "problem" if is_scored and is_sure else "hint"
        name = {"test": "test", "valid": "validation"}[split]
        told = f"the {name} set is leaked" if is_sure else f"the {name} set may be leaked"
        what = [f"{same:,} word for word"] if same else []
        what += [f"{asks_same:,} asking the same"] if asks_same else []
        what += [f"{near:,} nearly"] if near else []
        yield Finding(
            f"leaked_{name}_set",
            severity,
            f"{told}: {same + asks_same + near:,} of its {rows:,} rows stand in the training rows, too "
            f"({', '.join(what)})",
            "split again, which keeps such rows together (`mlxtune data split`), and train anew: "
            + ("the scores flatter the tuned model" if is_scored else "the chosen checkpoint is one that knows them"),
            {"rows": rows, "same": same, "asks_same": asks_same, "near": near},
            f"data.{split}",
        )

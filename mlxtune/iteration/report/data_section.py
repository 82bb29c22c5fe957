"""The rows: how many, how long, what was left out, what repeats or leaks, what is private, and a few with their mask.

Knows the keys of data.json, which `iteration.data_facts` makes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlxtune.iteration.report import wording
from mlxtune.iteration.report.cells import NONE
from mlxtune.iteration.report.elements import code, facts, folded, note, quiet, section, sentences, table, users_text
from mlxtune.page import Html, join, tag, visible

LABELS_SHOWN = 40
KINDS = {
    "email": "e-mail addresses",
    "phone": "telephone numbers",
    "card": "card numbers",
    "iban": "bank accounts",
    "national_id": "identity numbers",
    "ip": "IP addresses",
    "secret": "passwords and keys",
    "term": "terms of your own",
}


def data_section(data: Mapping[str, Any]) -> Html:
    """The whole section."""
    parts = [_splits(data), tag("h3", "Seen before?"), *_leakage(data), tag("h3", "Private data"), *_privacy(data)]
    parts += [tag("h3", "What is learned"), *_masks(data)]
    parts += [folded(f"Rows by length: {split}", _lengths(split, said)) for split, said in data["splits"].items()]
    parts += [
        folded(f"Labels: {split}", _labels(split, said["labels"]))
        for split, said in data["splits"].items()
        if said["labels"]
    ]
    parts += list(_left_out(data["splits"]))
    if data["not_checked"]:
        parts += [tag("h3", "Not looked for"), sentences(data["not_checked"])]
    return section("data", "Data", *parts)


def _splits(data: Mapping[str, Any]) -> Html:
    heads = ["split", "rows", "form", "tokens", "targets", "longest", "repeats", "nearly so", "cut", "dropped"]
    rows = [
        [
            split,
            f"{said['rows']:,}",
            ", ".join(dict.fromkeys(file["format"] for file in said["files"])),
            f"{said['tokens']:,}",
            f"{said['target_tokens']:,}",
            f"{said['lengths']['max']:,}",
            f"{said['duplicates']:,}",
            NONE if said["near_duplicates"] is None else f"{said['near_duplicates']:,}",
            f"{said['truncated']['count']:,}",
            f"{said['dropped']['count']:,}",
        ]
        for split, said in data["splits"].items()
    ]
    told = (
        f"Rows of an epoch. A row has {data['max_seq_length']:,} tokens at most (data.overflow: {data['overflow']}); "
        f"targets, which are learned from and scored: {data['train_on'].replace('_', ' ')} (data.train_on)."
    )
    files = [
        [
            file["name"],
            split,
            f"{file['rows_read']:,}",
            f"{file['rows']:,}",
            f"{file['weight']:g}" if file.get("share") is None else f"replay, {file['share']:.0%}",
            file["why"] or file["format"],
        ]
        for split, said in data["splits"].items()
        for file in said["files"]
    ]
    listed = table(
        ["file", "split", "rows read", "rows an epoch", "weight", "form, and why"], files, label="Files", words=[1, 5]
    )
    return join([quiet(told), table(heads, rows, label="Splits", words=[2]), folded("Files", listed)])


def _leakage(data: Mapping[str, Any]) -> Iterator[Html]:
    """Held-out rows that train has too, and test rows that valid has too."""
    compared = [(split, "train", found) for split, found in data["leakage"].items()]
    if data["overlap"] is not None:
        compared.append(("test", "valid", data["overlap"]))
    if not compared:
        yield quiet("There are no held-out rows.")
        return
    heads = ["rows of", "also in", "rows", "say the same", "ask the same", "nearly so"]
    yield table(heads, [_compared(*one) for one in compared], label="Rows of one split in another", words=[1])
    for split, earlier, found in compared:
        exact = found["same"] + (found["asks_same"] or 0)
        if exact and earlier == "train":
            rows = wording.share(exact, found["rows"])
            yield note(tag("b", f"{split} is leaked: "), f"{rows} rows say or ask exactly what a training row does.")
        if found["first"]:
            rows = [
                [wording.place(one["where"]), wording.place(one["like"]), f"{one['similarity']:.0%}"]
                for one in found["first"]
            ]
            yield folded(
                f"{split} rows in {earlier}: the first",
                table(["row", "is like", "alike"], rows, label="Pairs", words=[1]),
            )


def _compared(split: str, earlier: str, found: Mapping[str, Any]) -> list[str]:
    counts = [found["same"], found["asks_same"], found["near"]]
    return [split, earlier, f"{found['rows']:,}", *(NONE if count is None else f"{count:,}" for count in counts)]


def _privacy(data: Mapping[str, Any]) -> Iterator[Html]:
    found = data["privacy"]
    if found is None:
        yield quiet("Not looked for.")
        return
    limits = (
        f"A scan finds what has a form, and of telephone and identity numbers those of {', '.join(found['regions'])}: "
        "it clears nobody."
    )
    if not found["counts"]:
        yield quiet(f"Nothing was found in {found['rows']:,} lines. {limits}")
        return
    heads = ["kind", *found["by_split"]]
    rows = [
        [KINDS.get(kind, kind), *(f"{counts.get(kind, 0):,}" for counts in found["by_split"].values())]
        for kind in found["counts"]
    ]
    ways = code("mlxtune data scan"), " says where these are, and ", code("--redact"), " takes them out."
    if found["by_split"]["train"]:
        yield note("A model can give back what it was trained on. ", *ways)
    else:
        yield quiet("None in training rows. ", *ways)
    yield table(heads, rows, label="Private data by kind")
    yield quiet(limits)


def _masks(data: Mapping[str, Any]) -> Iterator[Html]:
    yield quiet("Rows as the network reads them: ", tag("mark", "what it learns to say"), " and what it only reads.")
    for mask in data["masks"]:
        learned = wording.share(mask["target_tokens"], mask["tokens"])
        name = f"{wording.place(mask['where'])}: {learned} tokens are learned from"
        omitted = mask["omitted"]
        pieces = [tag("mark", visible(text)) if is_target else visible(text) for text, is_target in mask["spans"]]
        if omitted is not None:
            pieces.insert(omitted["after"], tag("i", f" {omitted['tokens']:,} tokens are not shown "))
        yield folded(name, users_text(*pieces), shown=mask is data["masks"][0])


def _lengths(split: str, said: Mapping[str, Any]) -> Html:
    lengths = said["lengths"]
    told = facts(
        [
            ("shortest", f"{lengths['min']:,} tokens"),
            ("half have at most", f"{lengths['p50']:,}"),
            ("90 % at most", f"{lengths['p90']:,}"),
            ("99 % at most", f"{lengths['p99']:,}"),
            ("longest", f"{lengths['max']:,}"),
        ]
    )
    most = max(part["rows"] for part in said["histogram"])
    rows = [
        [f"{part['start']:,} to {part['end'] - 1:,}", f"{part['rows']:,}", bar(part["rows"], most)]
        for part in said["histogram"]
    ]
    return join([told, table(["tokens", "rows", ""], rows, label=f"Rows of {split} by length", words=[2])])


def _labels(split: str, labels: Mapping[str, Any]) -> Html:
    counts: Sequence[Sequence[Any]] = labels["counts"][:LABELS_SHOWN]
    most = counts[0][1]
    rows = [[label, f"{rows:,}", bar(rows, most)] for label, rows in counts]
    rows_right = wording.share(most, labels["rows"])
    always = f"{labels['classes']:,} labels. Always answering the most frequent would be right in {rows_right} rows."
    more = labels["classes"] - len(counts)
    parts = [quiet(always), table(["label", "rows", ""], rows, label=f"Labels of {split}", words=[2])]
    return join([*parts, quiet(f"{more:,} more labels.")] if more else parts)


def bar(value: float, most: float) -> Html:
    """A share as a bar."""
    width = 120 * value / most if most else 0
    inside = tag("rect", x=0, y=2, width=f"{width:.1f}", height=8, class_="f-accent")
    return tag("svg", inside, class_="bar", viewBox="0 0 120 12", aria_hidden="true")


def _left_out(splits: Mapping[str, Any]) -> Iterator[Html]:
    for split, said in splits.items():
        if (dropped := said["dropped"])["count"]:
            yield folded(
                f"Dropped rows of {split}: {dropped['count']:,}",
                sentences(f"{wording.place(row['where'])}: {row['why']}" for row in dropped["first"]),
            )
        if (cut := said["truncated"])["count"]:
            yield folded(f"Cut rows of {split}: {cut['count']:,}", sentences(map(wording.place, cut["first"])))

"""The licence of a base model: found where its folder says it, and what it asks of a model that is made from it.

Read are the front matter of a README.md, and the texts of licence files, by their titles: a guess, since a text may go
on otherwise than it begins. Knows the licences that
language models come under, by the hub's names for them; one it does not know asks the user to say. No lawyer: it
refuses what a licence plainly forbids, and carries on the notices that one plainly asks for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.errors import ModelError

NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*")
"""Files that go along with every model made from theirs."""
TEXTS = ("LICENSE*", "LICENCE*", "COPYING*")
"""Those of them that hold the licence itself: others speak of licences that are not the model's."""
FIRST = 4_000
"""Characters of a licence's text that are looked at."""

CC = r"(?:Creative Commons )?Attribution"
CC_END = r" 4\.0 International(?: Public License)?"
GNU_END = r"GENERAL PUBLIC LICENSE\nVersion 3(?:, \d+ \w+ 2007)?"
TITLES = (
    (r"(?:META )?LLAMA (?P<version>\d(?:\.\d)?) COMMUNITY LICENSE(?: AGREEMENT)?", "llama{version}"),
    (r"Gemma Terms of Use", "gemma"),
    (r"Apache License,?\s(?:Version )?2\.0(?:, January 2004)?", "apache-2.0"),
    (r"(?:The )?MIT License(?: \(MIT\))?", "mit"),
    (r"(?:The )?(?:BSD 3-Clause|3-Clause BSD) License", "bsd-3-clause"),
    (rf"{CC}{CC_END}", "cc-by-4.0"),
    (rf"{CC}-ShareAlike{CC_END}", "cc-by-sa-4.0"),
    (rf"{CC}-NoDerivatives{CC_END}", "cc-by-nd-4.0"),
    (rf"{CC}-NonCommercial{CC_END}", "cc-by-nc-4.0"),
    (rf"{CC}-NonCommercial-ShareAlike{CC_END}", "cc-by-nc-sa-4.0"),
    (rf"{CC}-NonCommercial-NoDerivatives{CC_END}", "cc-by-nc-nd-4.0"),
    (rf"GNU {GNU_END}", "gpl-3.0"),
    (rf"GNU LESSER {GNU_END}", "lgpl-3.0"),
    (rf"GNU AFFERO {GNU_END}", "agpl-3.0"),
)
"""Titles as whole lines, and the hub's names."""
FORMS = (
    (r"Permission is hereby granted, free of charge, to any person obtaining a copy", "mit"),
    (r"Redistribution and use in source and binary forms,.{,40} are permitted.*Neither the name", "bsd-3-clause"),
)
"""How licences begin that often come without a title."""
BEFORE = re.compile(r"copyright\b|all rights reserved|\(c\)|©", re.IGNORECASE)
"""Lines that stand before a title or a form."""
NO_DERIVATIVES = re.compile(r"cc-by-(?:nc-)?nd(?:-.*)?|proprietary|all-rights-reserved|no-derivatives")
NON_COMMERCIAL = re.compile(r"cc-by-nc(?:-.*)?")
LLAMA = re.compile(r"llama(?P<version>\d(?:\.\d)?)")
NAMED_LLAMA = re.compile(r"llama(?:3|3\.\d|4)")
NAME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
GEMMA_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
    "This model is a modification of it: tuned on other data.\n"
)


@dataclass(frozen=True)
class Licence:
    """A base's licence."""

    id: str
    found: str
    """Where it was."""
    is_guess: bool = False
    """Whether nobody said it, and a text reads like it."""

    @property
    def forbids_derivatives(self) -> bool:
        return NO_DERIVATIVES.fullmatch(self.id) is not None

    @property
    def is_non_commercial(self) -> bool:
        return NON_COMMERCIAL.fullmatch(self.id) is not None

    @property
    def name_begins_with(self) -> str | None:
        """What the name of a model made from it has to begin with."""
        return "Llama" if NAMED_LLAMA.fullmatch(self.id) else None

    @property
    def notice(self) -> str | None:
        """The text of a notice that has to go along."""
        if (llama := LLAMA.fullmatch(self.id)) is not None:
            version = llama["version"]
            return (
                f"Llama {version} is licensed under the Llama {version} Community License, "
                "Copyright © Meta Platforms, Inc. All Rights Reserved.\n"
            )
        return GEMMA_NOTICE if self.id == "gemma" else None

    @property
    def said_in_card(self) -> str | None:
        """A sentence that has to be shown."""
        return "Built with Llama." if NAMED_LLAMA.fullmatch(self.id) else None


def check_licence_name(name: str) -> str:
    """A licence as the hub writes it. Raises: ModelError."""
    plain = name.strip().lower()
    if not NAME.fullmatch(plain):
        raise ModelError(
            f"{name!r} is no name of a licence", where="--base-license", remedy="give the hub's, such as apache-2.0"
        )
    return plain


def licence_in(folder: Path) -> Licence | None:
    """What a model's folder says of its licence: its card first, then the text of a licence file.

    None where the card says ``other``, since no text that is known is that; and where several texts are not the same.
    """
    card = folder / "README.md"
    if card.is_file() and (named := _front_matter(card).get("license")) and isinstance(named, str):
        named = named.strip().lower()
        if named == "other":
            return None
        if named != "unknown" and NAME.fullmatch(named):
            return Licence(named, card.name)
    texts = _files(folder, TEXTS)
    names = {_name_of(file.read_text(encoding="utf-8-sig", errors="replace")[:FIRST]) for file in texts}
    name = names.pop() if len(names) == 1 else None
    return None if name is None else Licence(name, texts[0].name, is_guess=True)


def _name_of(text: str) -> str | None:
    """The licence whose title, or form, a text begins with."""
    lines = [line for raw in text.splitlines() if (line := " ".join(raw.split()).strip("#*=-_ "))]
    while lines and BEFORE.match(lines[0]):
        del lines[0]
    heads = (("\n".join(lines), [(rf"(?:{title})\.?$", name) for title, name in TITLES]), (" ".join(lines), FORMS))
    for head, patterns in heads:
        for pattern, name in patterns:
            if (match := re.match(pattern, head, re.IGNORECASE | re.MULTILINE)) is not None:
                return name.format(**match.groupdict())
    return None


def notices_in(folder: Path) -> list[Path]:
    """The licence's and its notices' files."""
    return _files(folder, NOTICES)


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _front_matter(card: Path) -> Mapping[str, Any]:
    """The YAML at the head of a card; nothing, where there is none that can be read."""
    from ruamel.yaml import YAML, YAMLError

    text = card.read_text(encoding="utf-8", errors="replace")
    match = re.match(r"\s*---\r?\n([\s\S]*?)\r?\n---", text)
    try:
        value = YAML(typ="safe").load(match[1]) if match else None
    except (YAMLError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

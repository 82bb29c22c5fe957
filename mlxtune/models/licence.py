"""The licence of a base model: found where its folder says it, and what it asks of a model that is made from it.

Read are the front matter of a README.md, and the texts of licence files, by their first lines. Knows the licences that
language models come under, by the hub's names for them; one it does not know asks the user to say. No lawyer: it
refuses what a licence plainly forbids, and carries on the notices that one plainly asks for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.errors import ModelError

NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*")
"""Files that go along with every model made from theirs."""
FIRST = 4_000
"""Characters of a licence's text that are looked at."""

TEXTS = (
    (r"LLAMA (?P<version>\d(?:\.\d)?) COMMUNITY LICENSE", "llama{version}"),
    (r"Gemma Terms of Use", "gemma"),
    (r"Apache License,?\s+Version 2\.0", "apache-2.0"),
    (r"\bMIT License|Permission is hereby granted, free of charge", "mit"),
    (r"Redistribution and use in source and binary forms[\s\S]*Neither the name", "bsd-3-clause"),
    (r"Attribution-NonCommercial-NoDerivatives 4\.0", "cc-by-nc-nd-4.0"),
    (r"Attribution-NonCommercial-ShareAlike 4\.0", "cc-by-nc-sa-4.0"),
    (r"Attribution-NonCommercial 4\.0", "cc-by-nc-4.0"),
    (r"Attribution-NoDerivatives 4\.0", "cc-by-nd-4.0"),
    (r"Attribution-ShareAlike 4\.0", "cc-by-sa-4.0"),
    (r"(?:Creative Commons )?Attribution 4\.0 International", "cc-by-4.0"),
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3", "agpl-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "lgpl-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "gpl-3.0"),
)
"""How texts begin, and the hub's names; the more special first."""
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
    """A base's licence; ``found`` says where it was."""

    id: str
    found: str

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
    """What a model's folder says of its licence: its card first, then the text of a licence file."""
    card = folder / "README.md"
    if card.is_file() and (named := _front_matter(card).get("license")) and isinstance(named, str):
        named = named.strip().lower()
        if named not in ("other", "unknown") and NAME.fullmatch(named):
            return Licence(named, card.name)
    for file in notices_in(folder):
        text = file.read_text(encoding="utf-8", errors="replace")[:FIRST]
        for pattern, name in TEXTS:
            if (match := re.search(pattern, text, re.IGNORECASE)) is not None:
                return Licence(name.format(**match.groupdict()), file.name)
    return None


def notices_in(folder: Path) -> list[Path]:
    """The licence's and its notices' files."""
    return sorted({file for pattern in NOTICES for file in folder.glob(pattern) if file.is_file()})


def _front_matter(card: Path) -> Mapping[str, Any]:
    """The YAML at the head of a card; nothing, where there is none that can be read."""
    from ruamel.yaml import YAML, YAMLError

    text = card.read_text(encoding="utf-8", errors="replace")
    match = re.match(r"\s*---\r?\n([\s\S]*?)\r?\n---", text)
    try:
        value = YAML(typ="safe").load(match[1]) if match else None
    except (YAMLError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

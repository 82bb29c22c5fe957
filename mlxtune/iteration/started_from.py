"""What a run that went on from another's adapter says of that: its before and after tell of both.

Base and tuned model are what is compared, here as everywhere, so what the first run learned stands in the second's
figures too, which whoever reads them has to know. Knows run.json's ``inputs``; nothing of how training is begun.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxtune.runs.folder import RunFolder


def started_from(run: RunFolder, manifest: Mapping[str, Any]) -> str | None:
    """A sentence or two for the terminal, the card and the report; None for a run that began anew."""
    adapter = manifest["inputs"].get("adapter")
    if adapter is None:
        return None
    source = adapter["source"]
    said = f"It went on from {source}, and before is the base without that: the difference is what both have learned."
    if not RunFolder(Path(source)).manifest.is_file():
        return said
    return f"{said} What this run added: {shlex.join(['mlxtune', 'runs', 'compare', source, str(run.path)])}"

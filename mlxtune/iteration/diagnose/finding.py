"""One thing to look at after a run: what it is, what shows it, and what to change."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["problem", "hint"]
"""A problem: the result is worse than it looks, or could be. A hint: the next run could be better or cheaper."""


@dataclass(frozen=True)
class Finding:
    """``evidence`` are the numbers that show it, by name; ``key`` is the recipe's key to change, if one helps."""

    kind: str
    severity: Severity
    sentence: str
    remedy: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

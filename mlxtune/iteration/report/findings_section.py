"""What to look at: findings with their evidence and the key to change; and what is missing, with the command for it.

Knows the keys of findings.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlxtune.iteration.report.elements import code, quiet, section
from mlxtune.iteration.report.evidence import Missing
from mlxtune.page import Html, join, tag

SEVERITIES = ("problem", "hint")


def findings_section(findings: Sequence[Mapping[str, Any]] | None) -> Html:
    """The whole section; an empty piece where nobody looked."""
    if findings is None:
        return Html()
    if not findings:
        return section("findings", "Findings", quiet("Nothing stands out in the curves, the rows and the weights."))
    ordered = sorted(findings, key=lambda one: SEVERITIES.index(one["severity"]))
    return section("findings", "Findings", *map(_finding, ordered))


def missing_box(missing: Sequence[Missing]) -> Html:
    """What the page would show and cannot."""
    listed = [
        tag(
            "li",
            tag("b", one.what),
            f": {one.why}",
            join([". It is made by ", code(one.command)]) if one.command else ".",
        )
        for one in missing
    ]
    return (
        tag("div", tag("h2", "Missing here", class_="small"), tag("ul", *listed), class_="missing")
        if listed
        else Html()
    )


def _finding(found: Mapping[str, Any]) -> Html:
    severity = found["severity"]
    known = {name.replace("_", " "): value for name, value in found["evidence"].items() if value is not None}
    evidence = ", ".join(f"{name} {_shown(value)}" for name, value in known.items())
    ways = [code(found["key"]), ": "] if found["key"] else []
    ways += [found["remedy"], "."]
    return tag(
        "article",
        tag("p", tag("span", severity, class_=f"severity {severity}"), " ", tag("b", found["sentence"])),
        quiet(evidence) if evidence else "",
        tag("p", *ways),
        class_=f"finding {severity}",
    )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)

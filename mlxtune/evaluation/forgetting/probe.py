"""The probe: general questions that have nothing to do with anybody's task, and general text, kept beside this file.

Written for mlxtune, so that neither is in a benchmark that a model may have been trained on. Each question says how it
is judged: of some whole answers the right one must be the likeliest, or an answer is written and a rule holds of it.
Which way was chosen by measurement (docs/forgetting.md). Knows files; nothing of models.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mlxtune.evaluation.forgetting.rules import Rule

_FOLDER = Path(__file__).parent
QUESTIONS, TEXT = _FOLDER / "probe.jsonl", _FOLDER / "general.md"

AREAS = {
    "facts": "facts that are taught in school",
    "sense": "common sense",
    "arithmetic": "arithmetic",
    "instructions": "following an instruction",
    "languages": "languages other than English",
    "formatting": "formats: lists, JSON, Markdown, dates",
    "refusals": "declining what does harm, and nothing else",
}
"""What is asked, by the name of each area."""


@dataclass(frozen=True)
class Question:
    """One thing to ask. ``answers`` are whole answers to choose from, the right one first; without, ``rule`` judges."""

    id: str
    area: str
    ask: str
    answers: tuple[str, ...] = ()
    rule: Rule = field(default_factory=Rule)

    @property
    def wanted(self) -> str:
        """What is right, in words."""
        if self.answers:
            return self.answers[0]
        rule = self.rule
        if rule.refuses:
            return "a refusal"
        words = " or ".join(rule.contains[:3]) + (" or ..." if len(rule.contains) > 3 else "")  # noqa: PLR2004 - enough to see
        return words or rule.regex or json.dumps(rule.json)


@dataclass(frozen=True)
class Passage:
    """A few sentences of general text, and what kind of text they are of."""

    register: str
    text: str
    line: int


@cache
def questions() -> tuple[Question, ...]:
    """All questions, in their order."""
    return tuple(_question(json.loads(line)) for line in QUESTIONS.read_text("utf-8").splitlines())


@cache
def passages() -> tuple[Passage, ...]:
    """All passages, in their order: what stands between blank lines, below the register that a heading names."""
    found: list[Passage] = []
    register, line = "", 1
    for part in TEXT.read_text("utf-8").split("\n\n"):
        if part.startswith("# "):
            register = part.removeprefix("# ").strip()
        else:
            found.append(Passage(register, part.strip("\n"), line))
        line += part.count("\n") + 2
    return tuple(found)


def probe_sha256() -> str:
    """A hash of all that is asked and read, and of the rules: what was measured with another is not comparable."""
    parts = (QUESTIONS, TEXT, _FOLDER / "rules.py", _FOLDER / "ask.py")
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in parts)).hexdigest()


def _question(content: dict) -> Question:
    frame, options = content.pop("frame", "{}"), content.pop("options", ())
    answers = tuple(frame.replace("{}", option) for option in options)
    told = {name: content.pop(name) for name in ("id", "area", "ask")}
    return Question(**told, answers=answers, rule=Rule(**content))

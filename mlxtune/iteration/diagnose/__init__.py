"""What to look at after a run: few findings, each with what shows it, the key to change, and the way out.

Each is a function of what the run's own files say (`Evidence`); thresholds are constants beside it, with their reason.
They are set so that a sound run has none: a finding that is often wrong is soon not read. What is not in the files is
not guessed, so an absent finding is no proof that all is well.
"""

import json

from mlxtune.files import write_json
from mlxtune.iteration.diagnose.evidence import Evidence, read_evidence
from mlxtune.iteration.diagnose.finding import Finding, Severity
from mlxtune.iteration.diagnose.learning import draws, learning_rate_too_high, overfitting, underfitting
from mlxtune.iteration.diagnose.outcome import adapter_does_nothing, system_differs, template_differs
from mlxtune.iteration.diagnose.rewards import of_rewards
from mlxtune.iteration.diagnose.rows import (
    class_imbalance,
    leaked_rows,
    masks_train_on_nothing,
    memorised_duplicates,
    truncation,
)
from mlxtune.runs.folder import RunFolder

__all__ = ["Finding", "Severity", "diagnose", "findings_of", "findings_so_far", "read_findings", "write_findings"]

SEVERITIES: tuple[Severity, ...] = ("problem", "hint")


def diagnose(run: RunFolder) -> list[Finding]:
    """What is to be looked at in a run, problems first; of what its files do not say, nothing."""
    return findings_of(read_evidence(run))


def findings_of(evidence: Evidence) -> list[Finding]:
    """The same, of what was read. Where the steps were too large or nothing was learned, that says why a curve is as
    it is, and the curve is no finding of its own; and of one past its best it is not said that it could go on.
    """
    rate, idle = learning_rate_too_high(evidence), adapter_does_nothing(evidence)
    if draws(evidence):
        learning = of_rewards(evidence) if rate is None else None
        idle = None if learning is not None and learning.severity == "problem" else idle  # of which that is the cause
    else:
        learning = (overfitting(evidence) or underfitting(evidence)) if rate is None and idle is None else None
    found = [
        *leaked_rows(evidence),
        masks_train_on_nothing(evidence),
        template_differs(evidence),
        system_differs(evidence),
        idle,
        rate,
        learning,
        truncation(evidence),
        class_imbalance(evidence),
        memorised_duplicates(evidence),
    ]
    return sorted((one for one in found if one is not None), key=lambda one: SEVERITIES.index(one.severity))


def findings_so_far(evidence: Evidence) -> list[Finding]:
    """Of a run that still trains, what shows already: that its steps are too large, or that it is past its best.

    What only the end tells (that it was too short, or learned nothing) is not said.
    """
    curve = of_rewards(evidence, is_over=False) if draws(evidence) else overfitting(evidence)
    found = learning_rate_too_high(evidence) or curve
    return [] if found is None else [found]


def write_findings(run: RunFolder) -> list[Finding]:
    """Diagnose a run and put what was found into findings.json."""
    found = diagnose(run)
    write_json(run.findings, [one.to_json() for one in found])
    return found


def read_findings(run: RunFolder) -> list[Finding]:
    """What findings.json holds; nothing where it is not there, or not as mlxtune wrote it."""
    try:
        return [Finding(**one) for one in json.loads(run.findings.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        return []

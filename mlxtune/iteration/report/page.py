"""report.html: one page about a run that a sceptical colleague would accept.

Puts the sections in the order in which they are read: the verdict first, what speaks against it, then the evidence, and
how to make it again. One file, no scripts, no network; light and dark by the reader's own setting, for a phone and for
paper. Knows sections; what each shows is its own business. The price of one file is that a page of long answers is
large: sections bound what they show, and say what they leave out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.files import write_text
from mlxtune.iteration.report import wording
from mlxtune.iteration.report.cost_section import cost_section
from mlxtune.iteration.report.curves_section import curves_section
from mlxtune.iteration.report.data_section import data_section
from mlxtune.iteration.report.evidence import Evidence, read_evidence
from mlxtune.iteration.report.findings_section import findings_section, missing_box
from mlxtune.iteration.report.forgetting_section import forgetting_section
from mlxtune.iteration.report.generations_section import generations_section
from mlxtune.iteration.report.interval_mark import interval_mark
from mlxtune.iteration.report.lm_eval_section import lm_eval_section
from mlxtune.iteration.report.reproduce_section import reproduce_section
from mlxtune.iteration.report.scores_section import scores_section
from mlxtune.iteration.report.verdict import Verdict, headline, make_verdict
from mlxtune.page import Html, document, join, tag
from mlxtune.recipe.method import method_in_words
from mlxtune.runs.folder import RunFolder

_STYLE = Path(__file__).with_name("style.css")


@dataclass(frozen=True)
class Report:
    """Where a report is, and what it says first."""

    path: Path
    verdict: Verdict


def write_report(run: RunFolder, *, no_data: str = "") -> Report:
    """Write a run's report.html, from what its folder holds.

    Args:
        no_data: why there is no data.json, where that was found out.

    Raises: as `read_evidence`; OSError, if the folder cannot be written to.
    """
    evidence = read_evidence(run, no_data=no_data)
    verdict = make_verdict(evidence)
    write_text(run.report, make_page(evidence, verdict))
    return Report(run.report, verdict)


def make_page(evidence: Evidence, verdict: Verdict) -> str:
    """The page."""
    scores = evidence.scores
    sections = [
        ("scores", "Before and after", Html() if scores is None else scores_section(scores)),
        ("training", "Training", curves_section(evidence)),
        (
            "generations",
            "Answers",
            Html() if scores is None else generations_section(evidence.samples, scores.get("tasks") or ()),
        ),
        ("data", "Data", Html() if evidence.data is None else data_section(evidence.data)),
        ("forgetting", "Forgetting", forgetting_section((scores or {}).get("forgetting"))),
        ("lm-eval", "General tasks", lm_eval_section(evidence.lm_eval)),
        ("cost", "Cost", cost_section(evidence)),
        ("findings", "Findings", findings_section(evidence.findings)),
        ("reproduce", "Made again", reproduce_section(evidence)),
    ]
    links = [tag("a", title, href=f"#{name}") for name, title, content in sections if content]
    name = evidence.manifest["name"]
    body = join(
        [
            tag("header", _heading(evidence), _verdict(evidence, verdict), missing_box(evidence.missing)),
            tag("nav", *links, aria_label="Sections"),
            tag("main", *(content for _, _, content in sections)),
            tag("footer", tag("p", "This page quotes rows of the data: share it as you would share them.")),
        ]
    )
    return document(title=f"{name}: report", style=_STYLE.read_text("utf-8"), body=body)


def _heading(evidence: Evidence) -> Html:
    recipe, manifest = evidence.recipe, evidence.manifest
    day = manifest.get("started", "")[:10]
    told = [recipe["model"]["source"], method_in_words(recipe["method"]), day]
    return join(
        [tag("p", " \N{MIDDLE DOT} ".join(one for one in told if one), class_="quiet"), tag("h1", manifest["name"])]
    )


def _verdict(evidence: Evidence, verdict: Verdict) -> Html:
    inside = [tag("p", verdict.sentence, class_="sentence")]
    if evidence.scores is not None:
        inside.append(_figures(evidence.scores))
    if verdict.reservations:
        inside.append(tag("ul", *(tag("li", one) for one in verdict.reservations), class_="reservations"))
    return tag("div", *inside, class_=f"verdict-box {verdict.tone}", role="note", aria_label="Verdict")


def _figures(scores: Mapping[str, Any]) -> Html:
    """The headline's two figures, large, with their intervals."""
    metric = headline(scores)
    before, after = scores["base"][metric], scores["tuned"][metric]
    return tag(
        "div",
        _figure("before", metric, before),
        _figure("after", metric, after),
        tag(
            "div",
            interval_mark(before, after, is_percent=wording.is_percent(metric)),
            tag("small", metric),
            class_="figure wide",
        ),
        class_="figures",
    )


def _figure(name: str, metric: str, interval: Mapping[str, Any]) -> Html:
    return tag(
        "div",
        tag("small", name),
        tag("b", wording.figure(metric, interval["mean"])),
        tag("small", wording.bounds(metric, interval)),
        class_=f"figure {name}",
    )

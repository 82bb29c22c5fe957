"""What lm-evaluation-harness says of base and tuned model, task by task.

Knows the keys of lm_eval.json, which `iteration.lm_eval` makes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mlxtune.iteration.report import wording
from mlxtune.iteration.report.cells import NONE, verdict_word
from mlxtune.iteration.report.elements import quiet, section, table
from mlxtune.page import Html, join, tag


def lm_eval_section(found: Mapping[str, Any] | None) -> Html:
    """The whole section; an empty piece where nobody asked."""
    if found is None:
        return Html()
    chat = "in the chat template" if found["chat_template"] else "as plain text"
    limit = "all rows" if found["limit"] is None else f"the first {found['limit']:,} rows of each task"
    version = found["versions"]["lm-eval"]
    told = f"lm-evaluation-harness {version}: {limit}, asked {chat}. Figures are the harness's own, not percent."
    heads = ["task", "metric", "verdict", "before", "after", "p", "rows", "examples shown"]
    return section(
        "lm-eval", "General tasks", quiet(told), table(heads, _rows(found), label="General tasks", words=[1, 2])
    )


def _rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, task in found["tuned"].items():
        for metric, after in task["metrics"].items():
            before = found["base"][name]["metrics"].get(metric)
            difference = found["differences"].get(name, {}).get(metric)
            yield [
                name,
                metric,
                NONE if difference is None else verdict_word(difference["verdict"]),
                NONE if before is None else _figure(before),
                _figure(after),
                NONE if difference is None else wording.p_value(difference["p_value"]),
                NONE if task["rows"] is None else f"{task['rows']:,}",
                NONE if task["shots"] is None else f"{task['shots']:,}",
            ]


def _figure(figure: Mapping[str, Any]) -> Html:
    interval = figure["interval"]
    small = [] if interval is None else [tag("small", f"{interval['low']:.3f} to {interval['high']:.3f}")]
    return join([tag("b", f"{figure['value']:.3f}"), *small])

"""What lm-evaluation-harness says, as a table: of a run, base and tuned side by side, or of one model."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mlxtune.printable import printable

UNKNOWN = "-"
LARGE = 1e5


def view(found: Mapping[str, Any], name: str) -> Table:
    """The table of what `iteration.lm_eval.evaluate_with_lm_eval` returns."""
    is_run = "tuned" in found
    table = Table(
        title=Text(printable(f"{name}, by lm-evaluation-harness {found['versions']['lm-eval']}")),
        caption=Text(caption(found)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for head in ("task", "metric"):
        table.add_column(head, overflow="fold")
    for head in ("base", "tuned") if is_run else ("score",):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("rows", justify="right")
    if is_run:
        table.add_column("verdict")
    for task, said in (found["tuned"] if is_run else found["figures"]).items():
        for metric, figure in said["metrics"].items():
            before = found["base"][task]["metrics"].get(metric) if is_run else None
            figures = [*([UNKNOWN if before is None else cell(before)] if is_run else []), cell(figure)]
            rows = UNKNOWN if said["rows"] is None else f"{said['rows']:,}"
            verdict = [found["differences"][task].get(metric, {}).get("verdict", "not compared")] if is_run else []
            table.add_row(*(Text(printable(text)) for text in (task, metric, *figures, rows, *verdict)))
    return table


def cell(figure: Mapping[str, Any]) -> str:
    """``0.431 [0.372, 0.490]``, with the interval where there is one, else the harness's standard error."""
    interval, stderr = figure["interval"], figure["stderr"]
    if interval is not None:
        return f"{_number(figure['value'])} [{_number(interval['low'])}, {_number(interval['high'])}]"
    return _number(figure["value"]) + ("" if stderr is None else f" ± {_number(stderr)}")


def _number(value: float) -> str:
    """A perplexity may be of any size."""
    return f"{value:.3f}" if abs(value) < LARGE else f"{value:.3g}"


def caption(found: Mapping[str, Any]) -> str:
    """How the tasks were asked, and how to read the figures."""
    rows = "All rows" if found["limit"] is None else f"The first {found['limit']:,} rows of each task"
    shown = "" if found["shots"] is None else f", {found['shots']} examples before each question"
    chat = "in the model's chat template" if found["chat_template"] else "as plain text"
    judged = " Verdicts are those of a paired test on the same rows." if "tuned" in found else ""
    return (
        f"{rows}{shown}, asked {chat}. The figures are the harness's, not percent; in brackets the "
        f"{100 * found['confidence']:g} % bootstrap interval, after ± the harness's standard error.{judged}"
    )

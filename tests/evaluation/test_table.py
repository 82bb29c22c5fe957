"""The tables of scores: how numbers and verdicts are shown, and names that must not be read as markup."""

import io
from dataclasses import asdict

import pytest
from rich.console import Console

from mlxtune.evaluation.cost import Cost
from mlxtune.evaluation.statistics import Difference, Interval
from mlxtune.evaluation.table import (
    beside_others,
    caption,
    compare,
    costs,
    costs_to_markdown,
    costs_to_rich,
    format_cost,
    format_difference,
    format_interval,
    format_p,
    others_to_markdown,
    others_to_rich,
    to_markdown,
    to_rich,
)

BASE = {"loss": Interval(2.0, 1.9, 2.1, 100), "valid_json": Interval(0.43, 0.33, 0.53, 100)}
TUNED = {"loss": Interval(0.5, 0.45, 0.56, 100), "valid_json": Interval(1.0, 0.964, 1.0, 100)}
DIFFERENCES = {
    "loss": Difference(-1.5, -1.6, -1.4, 0.0005, "paired bootstrap", 100),
    "valid_json": Difference(0.57, 0.47, 0.67, 1e-17, "McNemar", 100),
}
TIE = Difference(0.0, -0.02, 0.02, 0.617, "McNemar", 100)


def drawn(table, width=120) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def rendered(rows, width=120) -> str:
    return drawn(to_rich(rows, title="support-triage"), width)


def test_rates_are_shown_in_percent_and_losses_as_they_are():
    assert format_interval("valid_json", BASE["valid_json"]) == "43.0 % [33.0, 53.0]"
    assert format_interval("token_accuracy", TUNED["valid_json"]) == "100.0 % [96.4, 100.0]"
    assert format_interval("loss", TUNED["loss"]) == "0.500 [0.450, 0.560]"


def test_rows_keep_the_order_of_the_tuned_scores_and_the_intervals_of_both():
    rows = compare(dict(reversed(BASE.items())), TUNED, DIFFERENCES)
    assert [row.metric for row in rows] == ["loss", "valid_json"]
    assert [(row.base, row.tuned) for row in rows] == [(BASE[row.metric], TUNED[row.metric]) for row in rows]
    assert [row.verdict for row in rows] == ["better", "better"]


def test_scores_that_were_not_made_alike_are_refused():
    with pytest.raises(ValueError, match="valid_json"):
        compare({"loss": BASE["loss"]}, TUNED, {})
    with pytest.raises(ValueError, match="confidence"):
        compare({"loss": BASE["loss"]}, {"loss": Interval(1.0, 0.9, 1.1, 100, confidence=0.9)}, {})


def test_the_markdown_table_with_its_caption_reads_so():
    table, explanation = to_markdown(compare(BASE, TUNED, DIFFERENCES)).split("\n\n")
    assert table.splitlines() == [
        "| metric | base | tuned | tuned less base | verdict |",
        "|---|---:|---:|---:|---|",
        "| loss | 2.000 [1.900, 2.100] | 0.500 [0.450, 0.560] | -1.500 [-1.600, -1.400] | better, p < 0.001 |",
        "| valid_json | 43.0 % [33.0, 53.0] | 100.0 % [96.4, 100.0] | +57.0 [47.0, 67.0] | better, p < 0.001 |",
    ]
    assert explanation == (
        "In brackets: the 95 % bootstrap interval, from 100 rows. Verdicts are those of a paired test on the same "
        "rows; not distinguishable: p is 0.05 or more, the difference's interval holds 0, or there are fewer than 6 "
        "rows. "
        "Lower is better for loss.\n"
    )


def test_a_tie_is_said_in_those_words_with_its_p_value():
    rows = compare({"right": BASE["valid_json"]}, {"right": BASE["valid_json"]}, {"right": TIE})
    assert "not distinguishable, p = 0.617" in rendered(rows)
    assert "not distinguishable, p = 0.617" in to_markdown(rows)


def test_what_was_not_compared_has_no_verdict():
    (row,) = compare({"loss": BASE["loss"]}, {"loss": TUNED["loss"]}, {})
    assert row.verdict is None
    assert "not compared" in rendered([row])
    assert "| - | not compared |" in to_markdown([row])


def test_the_terminal_table_shows_the_same_words_and_numbers():
    text = " ".join(rendered(compare(BASE, TUNED, DIFFERENCES)).split())
    for words in (
        "support-triage",
        "2.000 [1.900, 2.100]",
        "43.0 % [33.0, 53.0]",
        "better, p < 0.001",
        "Lower is better for loss.",
    ):
        assert words in text


def test_a_terminal_of_80_columns_cuts_no_number():
    name = "task.field:a_name_that_is_much_longer_than_the_others"
    long = {name: TUNED["valid_json"]}
    for text in (
        rendered(compare(long, long, {name: TIE}), width=80),
        drawn(others_to_rich(beside_others(scores(metric=name, model="a-model-with-a-rather-long-name"))), width=80),
    ):
        assert text.count("100.0 % [96.4, 100.0]") >= 2
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80


def test_field_names_are_shown_and_never_read_as_markup_or_control():
    name = "field:[red]x|<b>`*\n\x1b[31m"
    rows = compare({name: TUNED["valid_json"]}, {name: TUNED["valid_json"]}, {})
    text = rendered(rows)
    assert "[red]x|<b>`*\\n\\x1b[31m" in text
    assert "\x1b" not in text
    row = to_markdown(rows).splitlines()[2]
    assert row.startswith(r"| field:\[red\]x\|&lt;b&gt;\`\*\\n\\x1b\[31m | 100.0 %")


def test_the_caption_gives_the_range_where_metrics_have_different_numbers_of_rows():
    scores = {"loss": BASE["loss"], "field:note": Interval(0.5, 0.2, 0.8, 12)}
    assert "from 12 to 100 rows" in caption(compare(scores, scores, {}))


def test_no_metrics_make_an_empty_table():
    assert compare({}, {}, {}) == []
    heads = ["| metric | base | tuned | tuned less base | verdict |", "|---|---:|---:|---:|---|", "", ""]
    assert to_markdown([]).splitlines() == heads
    assert "support-triage" in rendered([])


# --- beside other models, and what each costs


def scores(metric="triage.all_fields", model="large"):
    """A scores.json with one other model."""
    task, _, primary = metric.rpartition(".")
    cost = {"parameters": 134_515_008, "disk_bytes": 98_362_432, "peak_memory_bytes": 512, "tokens_per_s": 27.31}
    right = asdict(TUNED["valid_json"])
    bits = asdict(TUNED["loss"])
    worse = asdict(Difference(-0.1, -0.2, -0.01, 0.031, "McNemar", 100)) | {"verdict": "worse"}
    return {
        "tasks": [{"name": task, "scorer": "json_fields", "primary": primary}],
        "base": {metric: right, "bits_per_byte": bits, "loss": bits},
        "tuned": {metric: right, "bits_per_byte": bits, "loss": bits},
        "differences": {metric: asdict(TIE) | {"verdict": "not distinguishable"}},
        "cost": {"base": cost, "tuned": cost},
        "against": [
            {
                "label": model,
                "metrics": {metric: right, "bits_per_byte": bits, "loss": bits},
                "differences": {metric: worse},
                "cost": {**cost, "parameters": None, "disk_bytes": 1_000_000_000, "tokens_per_s": None},
            }
        ],
    }


def test_all_models_stand_below_each_other_metric_by_metric_the_tuned_one_first():
    rows = beside_others(scores())
    assert [(row.metric, row.model) for row in rows] == [
        (metric, model) for metric in ("triage.all_fields", "bits_per_byte") for model in ("tuned", "base", "large")
    ]
    text = " ".join(drawn(others_to_rich(rows)).split())
    assert "tuned is" in text
    assert "large 100.0 % [96.4, 100.0] worse, p = 0.031" in text
    assert "base 100.0 % [96.4, 100.0] not distinguishable, p = 0.617" in text


def test_the_table_says_what_compares_across_tokenizers_and_leaves_out_the_loss():
    told = others_to_markdown(beside_others(scores()), costs(scores()))
    assert "compares across tokenizers; loss and token accuracy do not" in told
    assert "| loss |" not in told


def test_the_markdown_table_of_all_models_has_what_each_costs():
    lines = others_to_markdown(beside_others(scores()), costs(scores())).splitlines()
    heads = "| metric | model | score | tuned less it | tuned is | parameters | on disk | memory | tokens/s |"
    assert lines[0] == heads
    assert lines[2] == ("| triage.all_fields | tuned | 100.0 % [96.4, 100.0] |  |  | 135 M | 98.4 MB | 512 B | 27.3 |")
    assert lines[4] == (
        "| triage.all_fields | large | 100.0 % [96.4, 100.0] | -10.0 [-20.0, -1.0] | worse, p = 0.031 "
        "| - | 1 GB | 512 B | - |"
    )


def test_the_model_that_was_evaluated_alone_is_the_one_the_others_are_set_against():
    alone = scores()
    alone |= {"model": "mine", "metrics": alone.pop("tuned"), "cost": alone["cost"]["base"]}
    del alone["base"], alone["differences"]
    rows = beside_others(alone)
    assert [row.model for row in rows[:2]] == ["mine", "large"]
    assert "mine is" in drawn(others_to_rich(rows))
    assert costs(alone).keys() == {"mine", "large"}


@pytest.mark.parametrize(
    ("cost", "cells"),
    [
        (Cost(), ("-", "-", "-", "-")),
        (Cost(999, 999, 999, 1234.5), ("999", "999 B", "999 B", "1,234")),
        (Cost(494_032_768, 1_500, 2_340_000_000, 3.14159), ("494 M", "1.5 kB", "2.34 GB", "3.14")),
        (Cost(999_600, 0, 10**16, 120.0), ("1 M", "0 B", "10,000 TB", "120")),
    ],
)
def test_costs_are_shown_in_three_digits(cost, cells):
    assert format_cost(cost) == cells


def test_costs_alone_make_a_table():
    table = costs_to_markdown(costs(scores()))
    assert table.splitlines()[:3] == [
        "| model | parameters | on disk | memory | tokens/s |",
        "|---|---:|---:|---:|---:|",
        "| base | 135 M | 98.4 MB | 512 B | 27.3 |",
    ]
    assert "134" not in drawn(costs_to_rich(costs(scores())))


@pytest.mark.parametrize(
    ("p_value", "told"), [(1e-9, "p < 0.001"), (0.001, "p = 0.001"), (0.0304, "p = 0.030"), (1, "p = 1.000")]
)
def test_a_p_value_has_three_decimals(p_value, told):
    assert format_p(p_value) == told


def test_a_difference_of_rates_is_shown_in_percentage_points():
    assert format_difference("valid_json", DIFFERENCES["valid_json"]) == "+57.0 [47.0, 67.0]"
    assert format_difference("loss", DIFFERENCES["loss"]) == "-1.500 [-1.600, -1.400]"

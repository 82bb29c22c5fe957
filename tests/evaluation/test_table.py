"""The before/after table: verdicts, how numbers are shown, and names that must not be read as markup."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mlxtune.evaluation.statistics import Interval, bootstrap_rate_interval
from mlxtune.evaluation.table import FEWEST_ROWS, caption, compare, format_interval, to_markdown, to_rich, verdict

BASE = {"loss": Interval(2.0, 1.9, 2.1, 100), "valid_json": Interval(0.43, 0.33, 0.53, 100)}
TUNED = {"loss": Interval(0.5, 0.45, 0.56, 100), "valid_json": Interval(1.0, 0.964, 1.0, 100)}


def rendered(rows, width=120) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(to_rich(rows, title="support-triage"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("metric", "base", "tuned", "expected"),
    [
        ("fields", (0.2, 0.3), (0.7, 0.8), "better"),
        ("fields", (0.7, 0.8), (0.2, 0.3), "worse"),
        ("loss", (0.2, 0.3), (0.7, 0.8), "worse"),
        ("loss", (0.7, 0.8), (0.2, 0.3), "better"),
        ("bits_per_byte", (0.7, 0.8), (0.2, 0.3), "better"),
        ("fields", (0.2, 0.5), (0.4, 0.8), "not distinguishable"),
        ("fields", (0.2, 0.9), (0.4, 0.5), "not distinguishable"),
        ("fields", (0.2, 0.5), (0.5, 0.8), "not distinguishable"),
        ("loss", (0.4, 0.4), (0.4, 0.4), "not distinguishable"),
        ("field:loss", (0.2, 0.3), (0.7, 0.8), "better"),
    ],
)
def test_the_verdict_needs_intervals_apart_and_knows_which_way_is_up(metric, base, tuned, expected):
    before, after = (Interval(sum(bounds) / 2, *bounds, count=50) for bounds in (base, tuned))
    assert verdict(metric, before, after) == expected


bounds = st.tuples(*[st.floats(0, 1)] * 3).map(sorted)


@given(base=bounds, tuned=bounds, metric=st.sampled_from(["loss", "bits_per_byte", "exact_match", "token_accuracy"]))
def test_exchanging_the_models_exchanges_better_and_worse(base, tuned, metric):
    before, after = (Interval(mean, low, high, 20) for low, mean, high in (base, tuned))
    exchanged = {"better": "worse", "worse": "better", "not distinguishable": "not distinguishable"}
    assert verdict(metric, after, before) == exchanged[verdict(metric, before, after)]


@pytest.mark.parametrize(
    ("count", "expected"), [(FEWEST_ROWS - 1, "not distinguishable"), (FEWEST_ROWS, "better"), (100, "better")]
)
def test_all_wrong_against_all_right_is_a_difference_from_six_rows_on(count, expected):
    wrong, right = (bootstrap_rate_interval(np.full(count, value), seed=0) for value in (0.0, 1.0))
    assert verdict("exact_match", wrong, right) == expected


def test_a_few_rows_prove_nothing_however_far_apart_their_losses():
    assert verdict("loss", Interval(9.0, 9.0, 9.0, 2), Interval(0.1, 0.1, 0.1, 2)) == "not distinguishable"


def test_rates_are_shown_in_percent_and_losses_as_they_are():
    assert format_interval("valid_json", BASE["valid_json"]) == "43.0 % [33.0, 53.0]"
    assert format_interval("token_accuracy", TUNED["valid_json"]) == "100.0 % [96.4, 100.0]"
    assert format_interval("loss", TUNED["loss"]) == "0.500 [0.450, 0.560]"


def test_rows_keep_the_order_of_the_tuned_scores_and_the_intervals_of_both():
    rows = compare(dict(reversed(BASE.items())), TUNED)
    assert [row.metric for row in rows] == ["loss", "valid_json"]
    assert [(row.base, row.tuned) for row in rows] == [(BASE[row.metric], TUNED[row.metric]) for row in rows]


def test_scores_that_were_not_made_alike_are_refused():
    with pytest.raises(ValueError, match="valid_json"):
        compare({"loss": BASE["loss"]}, TUNED)
    with pytest.raises(ValueError, match="confidence"):
        compare({"loss": BASE["loss"]}, {"loss": Interval(1.0, 0.9, 1.1, 100, confidence=0.9)})


def test_the_markdown_table_with_its_caption_reads_so():
    table, explanation = to_markdown(compare(BASE, TUNED)).split("\n\n")
    assert table.splitlines() == [
        "| metric | base | tuned | verdict |",
        "|---|---:|---:|---|",
        "| loss | 2.000 [1.900, 2.100] | 0.500 [0.450, 0.560] | better |",
        "| valid_json | 43.0 % [33.0, 53.0] | 100.0 % [96.4, 100.0] | better |",
    ]
    assert explanation == (
        "In brackets: the 95 % bootstrap interval, from 100 rows. Not distinguishable: the intervals overlap, or there "
        "are fewer than 6 rows. Lower is better for loss.\n"
    )


def test_the_terminal_table_shows_the_same_words_and_numbers():
    text = " ".join(rendered(compare(BASE, TUNED)).split())
    for words in (
        "support-triage",
        "2.000 [1.900, 2.100]",
        "43.0 % [33.0, 53.0]",
        "better",
        "Lower is better for loss.",
    ):
        assert words in text


def test_a_terminal_of_80_columns_cuts_no_number():
    long = {"field:a_name_that_is_much_longer_than_the_others": TUNED["valid_json"]}
    text = rendered(compare(long, long), width=80)
    assert text.count("100.0 % [96.4, 100.0]") == 2
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_field_names_are_shown_and_never_read_as_markup_or_control():
    name = "field:[red]x|<b>`*\n\x1b[31m"
    rows = compare({name: TUNED["valid_json"]}, {name: TUNED["valid_json"]})
    text = rendered(rows)
    assert "[red]x|<b>`*\\n\\x1b[31m" in text
    assert "\x1b" not in text
    row = to_markdown(rows).splitlines()[2]
    assert row.startswith(r"| field:\[red\]x\|&lt;b&gt;\`\*\\n\\x1b\[31m | 100.0 %")


def test_the_caption_gives_the_range_where_metrics_have_different_numbers_of_rows():
    scores = {"loss": BASE["loss"], "field:note": Interval(0.5, 0.2, 0.8, 12)}
    assert "from 12 to 100 rows" in caption(compare(scores, scores))


def test_no_metrics_make_an_empty_table():
    assert compare({}, {}) == []
    assert to_markdown([]).splitlines() == ["| metric | base | tuned | verdict |", "|---|---:|---:|---|", "", ""]
    assert "support-triage" in rendered([])

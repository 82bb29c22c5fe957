"""A curve in a line: the highest sign is the highest value, and any terminal can show it."""

import pytest

from mlxtune.cli.sparkline import ASCII_BARS, BARS, bars_for, sparkline


@pytest.mark.parametrize("bars", [BARS, ASCII_BARS])
def test_values_go_from_the_lowest_sign_to_the_highest(bars):
    assert sparkline(range(len(bars)), bars) == bars
    assert sparkline([3, 1, 2], bars)[:2] == bars[-1] + bars[0]


def test_one_value_or_equal_ones_are_a_level_line():
    assert sparkline([]) == ""
    assert sparkline([2.0, 2.0]) == "▅▅"


@pytest.mark.parametrize(
    ("encoding", "bars"),
    [("utf-8", BARS), ("ascii", ASCII_BARS), ("latin-1", ASCII_BARS), (None, ASCII_BARS), ("nonsense", ASCII_BARS)],
)
def test_a_terminal_that_cannot_show_bars_gets_ascii(encoding, bars):
    assert bars_for(encoding) == bars
    assert ASCII_BARS.isascii()

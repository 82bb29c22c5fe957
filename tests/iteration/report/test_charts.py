"""Charts keep what is to be seen of thousands of updates, and fit into a page that has its own colours and ids."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsed_page import Page

pytest.importorskip("matplotlib", reason="pip install 'mlxtune[report]'")

from mlxtune.iteration.report.charts import POINTS, Curve, draw, thin
from mlxtune.iteration.report.inline_svg import inline_svg


def test_few_points_are_left_as_they_are():
    found = thin([1, 2, 3], [5.0, 4.0, 6.0])
    assert found.steps.tolist() == [1, 2, 3]
    assert found.mean.tolist() == found.low.tolist() == found.high.tolist() == [5.0, 4.0, 6.0]


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=700))
def test_thinning_keeps_the_extremes_and_the_mean_of_all(values):
    found = thin(range(len(values)), values)
    assert len(found.steps) <= POINTS
    assert found.low.min() == min(values)
    assert found.high.max() == max(values)
    assert (found.low <= found.mean + 1e-6).all()
    counts = np.diff([*np.unique(np.linspace(0, len(values), len(found.steps) + 1).astype(int))])
    assert np.average(found.mean, weights=counts) == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)


def drawn(name="loss", steps=40, **more):
    return draw(
        name, [Curve(range(1, steps + 1), [1 + 1 / step for step in range(1, steps + 1)])], label="falls", **more
    )


def test_a_chart_is_one_element_with_a_name_for_those_who_cannot_see_it():
    page = Page(drawn())
    assert page.open == []
    assert page.tags[0][0] == "svg"
    assert page.tags[0][1]["role"] == "img"
    assert page.tags[0][1]["aria-label"] == "falls"


def test_a_chart_has_no_style_of_its_own_and_no_fixed_colour():
    svg = drawn()
    assert "style" not in svg
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert "s-accent" in svg


def test_ids_are_the_charts_own_and_all_that_is_referred_to_is_there():
    first, second = drawn("loss", ring=(3, 1.2)), drawn("rate", ring=(3, 1.2))
    ids = [set(Page(svg).ids()) for svg in (first, second)]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg)) == own


def test_the_same_curve_is_drawn_alike_to_the_last_byte():
    assert drawn() == drawn()


def test_ten_thousand_updates_are_a_small_drawing_with_their_range():
    svg = drawn(steps=10_000)
    assert len(svg) < 20_000
    assert "f-accent" in svg


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [5.0, 5.0, 5.0], [1e-9, 1e9]])
def test_any_curve_can_be_drawn(values):
    for from_zero in (False, True):
        assert draw("x", [Curve(range(len(values)), values)], label="any", from_zero=from_zero).startswith("<svg")


def test_what_is_no_svg_of_matplotlibs_is_refused():
    with pytest.raises(ValueError, match="no viewBox"):
        inline_svg("<svg></svg>", name="x", label="x")

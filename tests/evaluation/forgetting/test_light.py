"""Green, amber, red: a planted loss is red, nothing changed is green, and noise is never red."""

import numpy as np
import pytest

from mlxtune.evaluation.forgetting.ask import Known
from mlxtune.evaluation.forgetting.light import (
    RED_LOSS,
    compare_known,
    holm,
    judge_area,
    judge_questions,
    judge_text,
)
from mlxtune.evaluation.forgetting.probe import AREAS, passages, questions
from mlxtune.evaluation.measured import rates, ratio
from mlxtune.evaluation.statistics import Difference

QUESTIONS, PASSAGES = len(questions()), len(passages())


def known(right, bits=1.0):
    """A model that has these questions right, and needs ``bits`` a byte: one number, or one for each passage."""
    bytes_of = np.array([len(passage.text.encode()) for passage in passages()], float)
    values = {i: float(is_right) for i, is_right in enumerate(right)}
    measured = ratio(np.arange(PASSAGES), bytes_of * bits, bytes_of)
    return Known(rates(values), measured, tuple("" for _ in values), 1.0)


def half_right():
    return np.arange(QUESTIONS) % 2 == 0


def light_of(before, after):
    return compare_known(before, after, seed=0)


def test_nothing_changed_is_green_and_says_what_so_few_questions_cannot_rule_out():
    found = light_of(known(half_right()), known(half_right()))
    assert (found["light"], found["remedy"], found["lost"], found["gained"]) == ("green", None, [], [])
    assert found["questions"]["difference"]["mean"] == 0
    # 1 - 0.025^(1/n), rounded up: no loss in n answers excludes no smaller rate.
    points = int(np.ceil(100 * (1 - 0.025 ** (1 / QUESTIONS))))
    assert f"a loss of more than {points} points" in found["sentence"]


def test_a_third_of_what_was_right_turned_wrong_is_red():
    after = half_right()
    after[np.flatnonzero(after)[::3]] = False
    found = light_of(known(half_right()), known(after))
    assert found["light"] == found["questions"]["light"] == "red"
    assert found["questions"]["difference"]["test"] == "McNemar"
    assert len(found["lost"]) == -round(found["questions"]["difference"]["mean"] * QUESTIONS)
    assert "forgotten" in found["sentence"]
    assert "data.replay" in found["remedy"]


def test_a_model_that_got_better_is_green():
    after = half_right()
    after[1::4] = True
    found = light_of(known(half_right()), known(after, 0.8))
    assert found["light"] == "green"
    assert found["lost"] == []
    assert len(found["gained"]) > 30


def test_one_area_lost_is_red_though_the_whole_hardly_moves():
    lost = np.array([question.area == "refusals" for question in questions()])
    before = half_right() | lost
    found = light_of(known(before), known(before & ~lost))
    (area,) = [area for area in found["areas"] if area["light"] == "red"]
    assert area["area"] == "refusals"
    assert "refusals" in found["sentence"]
    assert found["light"] == "red"


def test_general_text_that_takes_more_bits_is_red_from_a_tenth_on_and_amber_before():
    noise = np.random.default_rng(0).normal(0, 0.01, PASSAGES)
    for more, light in ((0.15, "red"), (0.05, "amber"), (0.01, "green")):
        found = light_of(known(half_right(), 1.0), known(half_right(), 1.0 + more + noise))
        assert found["text"]["light"] == found["light"] == light
        assert found["questions"]["light"] == "green"
    assert f"{found['text']['difference']['mean']:.2f}" == "0.01"


def test_noise_is_never_red_and_seldom_amber():
    """Two models that are as good and agree on most questions: each that differs went either way by chance."""
    generator = np.random.default_rng(1)
    lights = []
    for _ in range(60):
        before = generator.random(QUESTIONS) < 0.5
        changed = generator.random(QUESTIONS) < 0.25
        bits = 1 + generator.normal(0, 0.02, PASSAGES)
        lights.append(
            light_of(known(before), known(np.where(changed, generator.random(QUESTIONS) < 0.5, before), bits))
        )
    assert not [found for found in lights if found["light"] == "red"]
    assert sum(found["light"] == "amber" for found in lights) < 15


def difference(mean, p_value, *, low=None, high=None, count=150):
    bounds = mean - 0.05 if low is None else low, mean + 0.05 if high is None else high
    return Difference(mean, *bounds, p_value, "McNemar", count)


@pytest.mark.parametrize(
    ("mean", "p_value", "light"),
    [
        (-0.12, 0.001, "red"),
        (-0.12, 0.02, "amber"),  # large, and not proven
        (-0.09, 0.001, "amber"),  # proven, and not large
        (-0.06, 0.3, "amber"),
        (-0.02, 0.03, "amber"),
        (-0.02, 0.5, "green"),
        (0.12, 0.001, "green"),
        (0.0, 1.0, "green"),
    ],
)
def test_red_needs_a_large_loss_and_next_to_no_doubt(mean, p_value, light):
    assert judge_questions(difference(mean, p_value)).light == light


def test_an_interval_that_holds_no_loss_is_not_red():
    assert judge_questions(difference(-RED_LOSS - 0.01, 0.001, high=0.0)).light == "amber"
    assert judge_area(difference(-0.4, 0.001, high=0.0), 0.001).light == "amber"
    assert judge_text(1.0, difference(0.2, 0.001, low=-0.01)).light == "amber"


def test_holms_method_agrees_with_the_worked_example():
    # By hand: 0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06 and 0.04 x 1 raised to what came before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_areas_stand_in_their_order_with_as_many_questions_as_they_have():
    found = light_of(known(half_right()), known(half_right()))
    assert [area["area"] for area in found["areas"]] == list(AREAS)
    assert sum(area["difference"]["count"] for area in found["areas"]) == QUESTIONS
    assert found["text"]["passages"] == PASSAGES

import pytest

from mlxtune.errors import UsageError
from mlxtune.inference.sampling import Sampling

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", INFINITY),
        ("temperature", NAN),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 2.5),
        ("max_tokens", 2.5),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("logit_bias", {5: 101.0}),
        ("logit_bias", {5: NAN}),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(UsageError) as error:
        Sampling(**({"max_tokens": 1} | {name: value}))
    assert error.value.where == name
    assert error.value.remedy


@pytest.mark.parametrize(
    "ends",
    [
        {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "presence_penalty": -2, "frequency_penalty": 2},
        {"max_tokens": 10**6, "temperature": 5, "top_p": 1e-6, "min_p": 1, "logit_bias": {0: 100, 1: -100}},
    ],
)
def test_the_ends_of_each_range_are_taken_as_they_are(ends):
    sampling = Sampling(**({"max_tokens": 1} | ends))
    assert {name: getattr(sampling, name) for name in ends} == ends

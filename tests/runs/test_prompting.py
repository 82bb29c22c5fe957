"""How a tuned model is asked is recorded beside its weights, and read back or refused."""

import pytest

from mlxtune.errors import ModelError
from mlxtune.runs.prompting import FILE, Prompting, read_prompting


@pytest.mark.parametrize(
    "prompting", [Prompting(), Prompting(raw=True), Prompting(raw=False, system="Say „ja“.\n", thinking=True)]
)
def test_what_is_written_is_read_back(tmp_path, prompting):
    (tmp_path / FILE).write_text(prompting.to_json(), encoding="utf-8")
    assert read_prompting(tmp_path) == prompting


def test_nothing_is_known_of_a_folder_without_the_file(tmp_path):
    assert read_prompting(tmp_path) == Prompting(raw=None, system=None)


def test_what_a_later_version_adds_is_passed_over(tmp_path):
    (tmp_path / FILE).write_text('{"prompting": {"system": "x", "new": 1}, "other": 2}')
    assert read_prompting(tmp_path) == Prompting(system="x")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"prompting": []}',
        '{"prompting": {"raw": 1}}',
        '{"prompting": {"system": ["x"]}}',
        '{"prompting": {"thinking": 1}}',
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ModelError) as caught:
        read_prompting(tmp_path)
    assert caught.value.where == str(tmp_path / FILE)

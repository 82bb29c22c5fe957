"""The licence of a base model: where it is found, and what it asks."""

import pytest

from mlxtune.errors import ModelError
from mlxtune.models.licence import Licence, check_licence_name, licence_in, notices_in

TEXTS = [
    ("Apache License\n                           Version 2.0, January 2004\n", "apache-2.0"),
    ("MIT License\n\nCopyright (c) 2024 Somebody\n", "mit"),
    ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\nLlama 3.1 Version Release Date: July 23, 2024\n", "llama3.1"),
    ("LLAMA 2 COMMUNITY LICENSE AGREEMENT\n", "llama2"),
    ("Gemma Terms of Use \n\nLast modified: February 21, 2024\n", "gemma"),
    ("Attribution-NonCommercial-NoDerivatives 4.0 International\n", "cc-by-nc-nd-4.0"),
    ("Creative Commons Attribution 4.0 International Public License\n", "cc-by-4.0"),
    ("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n", "gpl-3.0"),
]


@pytest.mark.parametrize(("text", "name"), TEXTS)
def test_a_licence_is_known_by_how_its_text_begins(tmp_path, text, name):
    (tmp_path / "LICENSE.txt").write_text(text)

    assert licence_in(tmp_path) == Licence(name, "LICENSE.txt")


def test_the_front_matter_of_a_card_comes_first(tmp_path):
    (tmp_path / "LICENSE").write_text(TEXTS[0][0])
    (tmp_path / "README.md").write_text("---\nlicense: MIT\ntags: [a]\n---\n# A model\n")

    assert licence_in(tmp_path) == Licence("mit", "README.md")


@pytest.mark.parametrize(
    "card",
    [
        "# A model",
        "---\nlicense: other\n---\n",
        "---\nlicense: [\n---\n",
        "---\nlicense: 'a b'\n---\n",
        "---\n- x\n---\n",
    ],
)
def test_a_card_that_says_nothing_leaves_it_to_the_text(tmp_path, card):
    (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) is None

    (tmp_path / "LICENSE").write_text(TEXTS[0][0])
    assert licence_in(tmp_path) == Licence("apache-2.0", "LICENSE")


def test_notices_are_what_goes_along(tmp_path):
    for name in ("LICENSE", "NOTICE.txt", "USE_POLICY.md", "README.md", "config.json"):
        (tmp_path / name).write_text("x")

    assert [file.name for file in notices_in(tmp_path)] == ["LICENSE", "NOTICE.txt", "USE_POLICY.md"]


@pytest.mark.parametrize(
    ("name", "forbids", "begins"),
    [
        ("apache-2.0", False, None),
        ("cc-by-nd-4.0", True, None),
        ("cc-by-nc-4.0", False, None),
        ("llama3.2", False, "Llama"),
    ],
)
def test_what_a_licence_asks(name, forbids, begins):
    licence = Licence(name, "")

    assert (licence.forbids_derivatives, licence.name_begins_with) == (forbids, begins)
    assert licence.is_non_commercial == (name == "cc-by-nc-4.0")
    assert (licence.notice is not None) == name.startswith("llama")


def test_a_name_that_is_none_is_refused():
    assert check_licence_name(" Apache-2.0 ") == "apache-2.0"
    with pytest.raises(ModelError, match="no name of a licence"):
        check_licence_name("a: b")

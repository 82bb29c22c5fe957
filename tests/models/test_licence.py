"""The licence of a base model: where it is found, and what it asks."""

import pytest

from mlxtune.errors import ModelError
from mlxtune.models.licence import Licence, check_licence_name, licence_in, notices_in

BSD = "Redistribution and use in source and binary forms, with or without\nmodification, are permitted provided that"
TEXTS = [
    ("Apache License\n                           Version 2.0, January 2004\n", "apache-2.0"),
    ("Copyright 2024 Somebody\n\n   Apache License\n   Version 2.0, January 2004\n", "apache-2.0"),
    ("MIT License\n\nCopyright (c) 2024 Somebody\n", "mit"),
    ("# The MIT License (MIT)\n\nCopyright (c) 2024 Somebody\n", "mit"),
    ("(c) Somebody\n\nPermission is hereby granted, free of charge, to any person\nobtaining a\ncopy of this", "mit"),
    ("BSD 3-Clause License\n\nCopyright (c) 2024, Somebody\n", "bsd-3-clause"),
    (f"Copyright (c) 2024, Somebody\nAll rights reserved.\n\n{BSD}\n\n* Neither the name of", "bsd-3-clause"),
    ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT\nMeta Llama 3 Version Release Date: April 18, 2024\n", "llama3"),
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

    assert licence_in(tmp_path) == Licence(name, "LICENSE.txt", is_guess=True)


@pytest.mark.parametrize(
    "text",
    [
        "ACME Model License\n\nThe code beside is under the Apache License, Version 2.0; the weights are not.\n",
        "Apache License, Version 2.0 is for the code; for the weights see below.\n",
        "Modified MIT License\n\nCopyright (c) 2024 Somebody\n",
        "ACME Model License\nportions: Permission is hereby granted, free of charge, to any person\n",
        "Copyright (c) 2024, Somebody\n\nRedistribution and use in source and binary forms are not permitted\n",
        "",
    ],
)
def test_a_licence_that_is_only_spoken_of_is_none(tmp_path, text):
    (tmp_path / "LICENSE").write_text(text)

    assert licence_in(tmp_path) is None


@pytest.mark.parametrize("name", ["NOTICE", "USE_POLICY.md", "LICENSE-MODEL"])
def test_what_lies_beside_a_licence_of_its_own_does_not_name_it(tmp_path, name):
    (tmp_path / "LICENSE-CODE").write_text("ACME License\n")
    (tmp_path / name).write_text(TEXTS[0][0])
    assert licence_in(tmp_path) is None

    (tmp_path / "LICENSE-CODE").unlink()
    assert (licence_in(tmp_path) is not None) == name.startswith("LICENSE")


def test_a_card_that_says_other_is_not_overruled_by_a_text(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: Other\n---\n")
    (tmp_path / "LICENSE").write_text(TEXTS[0][0])

    assert licence_in(tmp_path) is None


def test_the_front_matter_of_a_card_comes_first(tmp_path):
    (tmp_path / "LICENSE").write_text(TEXTS[0][0])
    (tmp_path / "README.md").write_text("---\nlicense: MIT\ntags: [a]\n---\n# A model\n")

    assert licence_in(tmp_path) == Licence("mit", "README.md")


@pytest.mark.parametrize(
    "card",
    [
        "# A model",
        "---\nlicense: unknown\n---\n",
        "---\nlicense: [\n---\n",
        "---\nlicense: 'a b'\n---\n",
        "---\n- x\n---\n",
        pytest.param(f"---\nlicense: {'[' * 1_000}\n---\n", id="deep"),
    ],
)
def test_a_card_that_says_nothing_leaves_it_to_the_text(tmp_path, card):
    (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) is None

    (tmp_path / "LICENSE").write_text(TEXTS[0][0])
    assert licence_in(tmp_path) == Licence("apache-2.0", "LICENSE", is_guess=True)


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

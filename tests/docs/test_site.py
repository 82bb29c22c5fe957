"""The pages of docs/ are whole: links lead somewhere, commands exist, and the reference says what the code says."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mlxtune.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
SAID_APART = re.compile(r"\s{2,}")
"""Between a command and what is said of it."""


def commands_of(text: str) -> list[str]:
    """Every command of mlxtune in a page's blocks."""
    lines = [
        line.strip().removeprefix("$ ")
        for _, language, block in FENCE.findall(text)
        if language in ("", "console")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [SAID_APART.split(line)[0] for line in lines if line.startswith("mlxtune ")]


def parse(command: str) -> None:
    """Let click read a command as far as names of commands and options go. Raises: click.UsageError."""
    arguments = shlex.split(command.split(" > ", maxsplit=1)[0])[1:]
    if arguments[-1] == "..." and not arguments[-2].startswith("-"):  # and so on
        arguments.pop()
    context = click.Context(main, info_name="mlxtune")
    at: click.Command = main
    while isinstance(at, click.Group):
        name = arguments.pop(0)
        found = at.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        context, at = click.Context(found, info_name=name, parent=context), found
    at.make_parser(context).parse_args(arguments)


@pytest.fixture(scope="module")
def generator():
    """docs/reference/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "reference" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says(generator):
    for name, text in generator.pages().items():
        written = (DOCS / "reference" / name).read_text(encoding="utf-8")
        assert written == text, f"docs/reference/{name} is not current: python docs/reference/generate.py"


def test_the_reference_has_every_key_and_every_command(generator):
    pages = generator.pages()
    for key in ("model.source", "method.rank", "data.max_seq_length", "training.learning_rate", "evaluation.tasks"):
        assert f"### `{key}`\n" in pages["recipe.md"]
    for name in ("doctor", "data split", "export gguf", "train"):
        assert f" `mlxtune {name}`\n" in pages["commands.md"]
    assert "`TrainingError`" in pages["errors.md"]


@pytest.mark.parametrize("page", PAGES)
def test_a_command_on_a_page_is_one_that_exists(page):
    for command in commands_of((DOCS / page).read_text(encoding="utf-8")):
        try:
            parse(command)
        except click.UsageError as error:
            pytest.fail(f"docs/{page}: {command}: {error.format_message()}")


def test_a_command_that_does_not_exist_is_found():
    for command in ("mlxtune trian RECIPE", "mlxtune data slpit FILE", "mlxtune train RECIPE --no-such-option"):
        with pytest.raises(click.UsageError):
            parse(command)


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path):
    pytest.importorskip("material", reason="pip install mkdocs-material")
    done = subprocess.run(
        [sys.executable, "-W", "default", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {page.removesuffix(".md") + ".html" for page in PAGES} <= built
    pages = "".join((tmp_path / "site" / page).read_text(encoding="utf-8") for page in built)
    fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\" >]+)", pages)
    assert not [url for url in fetched if "rel=canonical" not in url], "a page fetches something"

"""Writes the reference pages beside it from the code itself: recipe keys, commands, errors.

The words are those of docstrings and helps, which have their one home in the code. `make docs` runs this, and a test
finds a page that is not current. It knows a recipe by its JSON Schema alone, as an editor does.
"""

import importlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).resolve().parent
WRITTEN = "<!-- Written by docs/reference/generate.py from the code: change it there. -->\n\n"
SHARED = ("device", "offline", "json", "debug", "quiet", "help")
"""Options that mean the same everywhere, and are told once."""


RECIPE = """# Every key of a recipe

A recipe is a YAML file. Only `name`, `model.source` and `data.train` have no default. Each key can be changed for one
run on the command line: `mlxtune train RECIPE training.epochs=1`. `mlxtune recipes schema` prints the same as a JSON
Schema, with which editors complete and check keys.
"""
COMMAND = """# Every command

RECIPE is a file, or the name of a packaged recipe; RUN a run's folder. These options mean the same everywhere, before
or after the verb: `--device`, `--offline` (never use the network), `--json` (one JSON document a line on standard
output), `--quiet` (no progress), `--debug` (tracebacks), `--help`. An environment variable mirrors every option:
`MLXTUNE_DEVICE` for `--device`, `MLXTUNE_TRAIN_RUN_DIR` for `mlxtune train --run-dir`.
"""
ERROR = """# Every kind of error

An error says what happened, where (a file and line, a key, a folder) and, as `hint:`, what to do. With `--json` it is
`{"error": {"type", "message", "where", "remedy"}}` on standard error. From Python it is an exception of
`mlxtune.errors`, with `message`, `where` and `remedy`.

| exit code | |
|---:|---|
| 0 | done |
| 1 | failure |
| 2 | the command or a setting is wrong; nothing was started |
| 3 | `data validate` or `data scan` found problems |
| 130, 143 | interrupted; the state is saved |

| error | exit code | |
|---|---:|---|
"""


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    return {"recipe.md": recipe_page(), "commands.md": commands_page(), "errors.md": errors_page()}


def _page(beginning: str, lines: Iterable[str]) -> str:
    gap = "" if beginning.endswith("|\n") else "\n"
    return WRITTEN + beginning + gap + "\n".join(lines).rstrip() + "\n"


def _row(*cells: str) -> str:
    """Of a table."""
    return "| " + " | ".join(cell.strip().replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


# --- the recipe


def recipe_page() -> str:
    """Every key of a recipe."""
    from mlxtune.recipe.schema import json_schema

    schema = json_schema()
    return _page(RECIPE, _section(schema, schema["$defs"], ""))


def _section(section: Mapping[str, Any], known: Mapping[str, Any], path: str) -> Iterator[str]:
    """A section's keys, each with its own heading; the sections below its keys as tables."""
    for name, field in section["properties"].items():
        key = f"{path}{name}"
        inner = _sections_of(field, known)
        is_top = bool(inner) and not path
        yield from (f"{'##' if is_top else '###'} `{key}`", "")
        if not is_top and (shown := " · ".join(_facts(name, field, section, known))):
            yield from (shown, "")
        if not is_top and (description := field.get("description")):
            yield from (description, "")
        for one in inner:
            kind = f"`{{{kinds[0]}}}`" if (kinds := _kinds(one)) and (len(inner) > 1 or is_top) else ""
            yield from (f"{kind}: {one['description']}" if kind else one["description"], "")
            yield from _section(one, known, f"{key}.") if is_top else _table(one, known)


def _table(section: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """A section's keys in a table."""
    yield from ("| key | | |", "|---|---|---|")
    for name, field in section["properties"].items():
        if "const" in field:
            continue
        facts = " · ".join(_facts(name, field, section, known))
        said = " ".join([field.get("description", ""), *(one["description"] for one in _sections_of(field, known))])
        yield _row(f"`{name}`", facts, said)
    yield ""


def _facts(name: str, field: Mapping[str, Any], section: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """What a key may be, and what it is where a recipe says nothing."""
    values = _values(field, known)
    if _sections_of(field, known):
        values = f"{values} or keys of its own" if values else "keys of its own"
    if "const" in field:
        return [values]
    if name in section.get("required", []):
        return [values, "**required**"]
    return [values, f"default `{json.dumps(field['default'])}`"] if "default" in field else [values]


def _kinds(section: Mapping[str, Any]) -> list[str]:
    """The keys of a section that can have one value only, which tell it from its neighbours, as YAML."""
    return [f"{name}: {field['const']}" for name, field in section["properties"].items() if "const" in field]


def _sections_of(field: Mapping[str, Any], known: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sections that a key may hold."""
    if "$ref" in field:
        return [known[field["$ref"].rsplit("/", 1)[1]]]
    if field.get("type") == "array" and "oneOf" in field["items"]:
        return [section for choice in field["items"]["oneOf"] for section in _sections_of(choice, known)]
    choices = [*field.get("anyOf", []), *field.get("oneOf", [])]
    return [section for choice in choices for section in _sections_of(choice, known)]


def _values(field: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """What a key may be, in words; nothing for a section."""
    choices = [*field.get("anyOf", []), *field.get("oneOf", [])]
    if choices:
        return " or ".join(dict.fromkeys(filter(None, (_values(choice, known) for choice in choices))))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type")
    if kind == "array":
        inner = _values(field["items"], known)
        return f"a list of {inner}" if inner else "a list"
    if kind in ("integer", "number"):
        return " ".join(["a whole number" if kind == "integer" else "a number", *_bounds(field)])
    names = {"string": "a path" if field.get("format") == "path" else "text", "boolean": "`true` or `false`"}
    return {**names, "null": "`null`", "object": "a mapping" if "properties" not in field else ""}.get(str(kind), "")


def _bounds(field: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    for name, word in words.items():
        if name in field:
            yield f"{word} {field[name]}"


# --- the commands


def commands_page() -> str:
    """Every command with its options."""
    from mlxtune.cli import COMMANDS

    lines: list[str] = []
    for name, said in COMMANDS.items():
        command = importlib.import_module(f"mlxtune.cli.{name}").command
        lines += [f"## `mlxtune {name}`", "", said, ""]
        lines += _command(command, f"mlxtune {name}", is_noun=True)
    return _page(COMMAND, lines)


def _command(command: click.Command, path: str, *, is_noun: bool = False) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _command(inner, f"{path} {name}")
        return
    if not is_noun:
        yield from (f"### `{path}`", "")
    context = click.Context(command, info_name=path)
    yield from ("```text", " ".join([path, *command.collect_usage_pieces(context)]), "```", "")
    if command.help and not is_noun:
        yield from (*_paragraphs(command.help), "")
    elif command.help:
        rest = inspect.cleandoc(command.help).split("\n\n", 1)
        yield from ((*_paragraphs(rest[1]), "") if len(rest) > 1 else ())
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    options = [one for one in options if not set(SHARED) & {one.name}]
    if options:
        yield from ("| option | |", "|---|---|")
        for one in options:
            names = ", ".join([*one.opts, *one.secondary_opts])
            shape = "" if one.is_flag or one.count else f" {one.make_metavar(context)}"
            extra = [text for text in (_told_default(one, context), "required" if one.required else "") if text]
            said = (one.help or "") + (f" ({'; '.join(extra)})" if extra else "")
            yield _row(f"`{names}{shape}`", said)
        yield ""


def _told_default(option: click.Option, context: click.Context) -> str:
    if not option.show_default:
        return ""
    value = option.get_default(context)
    return f"default {', '.join(map(str, value)) if isinstance(value, tuple) else value}"


def _paragraphs(text: str) -> list[str]:
    """A help's paragraphs, without click's own marks."""
    return inspect.cleandoc(text).replace("\b", "").split("\n")


# --- the errors


def errors_page() -> str:
    """Every kind of error."""
    from mlxtune import errors

    lines: list[str] = []
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.MlxtuneError)]
    for kind in kinds:
        depth = len(kind.__mro__) - len(errors.MlxtuneError.__mro__)
        said = inspect.getdoc(kind) or ""
        lines.append(f"| {'&emsp;' * depth}`{kind.__name__}` | {kind.exit_code} | {said.splitlines()[0]} |")
    return _page(ERROR, lines)


if __name__ == "__main__":
    for page, text in pages().items():
        (HERE / page).write_text(text, encoding="utf-8")

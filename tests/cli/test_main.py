"""The command line as a whole: help without mlx, five options that mean the same everywhere, errors and exit codes."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from mlxtune.cli import COMMANDS, main
from mlxtune.cli.output import Output, output_options
from mlxtune.errors import DataError, MlxtuneError, RecipeError
from mlxtune.network import CLOSED_BY_US, is_offline

HEAVY = "{'mlx', 'mlx_lm', 'transformers', 'pydantic', 'numpy', 'rich', 'ruamel'}"


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, list(arguments))


@pytest.fixture(autouse=True)
def environment_as_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "0")  # set here, so that it is taken back after a test that sets it


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch):
    """Puts a function in the place of ``mlxtune fuse``."""

    def pretend(function, group: bool = False) -> None:
        def callback(output: Output) -> None:
            function(output)

        command = click.command("fuse")(output_options(callback))
        if group:
            command = click.Group("fuse", commands={"now": command})
        monkeypatch.setitem(sys.modules, "mlxtune.cli.fuse", SimpleNamespace(command=command))

    return pretend


def child(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


# --- help


def test_help_lists_every_command_and_loads_none_of_them():
    code = (
        "import sys\nfrom mlxtune.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY}))\n"
        "print([name for name in sys.modules if name.startswith('mlxtune.cli.')])"
    )
    *lines, heavy, loaded = child(code).splitlines()
    words = " ".join(" ".join(lines).split())
    for name, short_help in COMMANDS.items():
        assert f"{name} {short_help}" in words
    assert heavy == "[]"
    assert loaded == "['mlxtune.cli.failure', 'mlxtune.cli.progress', 'mlxtune.cli.output']"


def test_every_command_is_there_and_its_module_loads_no_mlx():
    code = (
        "import importlib, sys\nfrom mlxtune.cli import COMMANDS\n"
        "for name in COMMANDS: assert importlib.import_module(f'mlxtune.cli.{name}').command.help, name\n"
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY}))"
    )
    assert child(code).strip() == "[]"


def test_a_command_that_is_not_there_is_told_with_the_nearest_one():
    result = run("recipe", "list")
    assert result.exit_code == 2
    assert "No such command 'recipe'. Did you mean 'recipes'" in result.stderr


def test_no_command_at_all_shows_the_help_as_an_error():
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_a_command_that_cannot_be_loaded_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlxtune.cli.fuse", None)  # importing it raises ImportError
    assert "Fold the adapter" in run("--help").stdout
    assert run("recipes", "list").exit_code == 0


# --- options


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("place", ["before", "after", "between"])
def test_the_shared_options_may_stand_before_or_after_the_verb(place: str, group: bool, pretend):
    seen: list[tuple[Output, bool]] = []
    pretend(lambda output: seen.append((output, is_offline())), group=group)
    options = ["--device", "cpu", "--json", "--quiet", "--debug", "--offline"]
    verb = ["fuse", "now"] if group else ["fuse"]
    places = {"before": [*options, *verb], "between": [verb[0], *options, *verb[1:]], "after": [*verb, *options]}
    result = run(*places[place])
    assert result.exit_code == 0, result.stderr
    ((output, offline),) = seen
    assert (output.device, output.json, output.quiet, output.debug) == ("cpu", True, True, True)
    assert offline
    assert os.environ["MLXTUNE_OFFLINE"] == "0"  # it was this command's


def test_without_options_the_device_is_chosen_and_all_is_told(pretend):
    seen: list[Output] = []
    pretend(seen.append)
    run("fuse")
    assert (seen[0].device, seen[0].json, seen[0].quiet, seen[0].debug) == ("auto", False, False, False)
    assert os.environ["MLXTUNE_OFFLINE"] == "0"


def test_the_option_nearest_to_the_verb_wins(pretend):
    seen: list[str] = []
    pretend(lambda output: seen.append(output.device))
    run("--device", "gpu", "fuse", "--device", "cpu")
    assert seen == ["cpu"]


def test_environment_variables_mirror_options(pretend):
    seen: list[Output] = []
    pretend(seen.append)
    run("fuse", MLXTUNE_DEVICE="cpu", MLXTUNE_JSON="1", MLXTUNE_FUSE_QUIET="yes", MLXTUNE_DEBUG="0")
    assert (seen[0].device, seen[0].json, seen[0].quiet, seen[0].debug) == ("cpu", True, True, False)


def test_the_hub_is_switched_off_whatever_the_environment_says(pretend):
    seen: list[tuple[str, str]] = []

    def look(output: Output) -> None:
        seen.append((os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]))

    pretend(look)
    # The last is what the command would leave behind in this process: so it is taken back.
    run("fuse", HF_HUB_OFFLINE="0", TRANSFORMERS_OFFLINE="0", **{CLOSED_BY_US: "0"})
    assert seen == [("1", "1")]


# --- errors


def raising(error: BaseException):
    def command(output: Output) -> None:
        raise error

    return command


FAULT = DataError("a row is empty", where="train.jsonl:3", remedy="fill it, or take it out")


def test_an_error_is_told_with_its_place_and_the_way_out(pretend):
    pretend(raising(FAULT))
    result = run("fuse")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: a row is empty\n  at: train.jsonl:3\n  hint: fill it, or take it out\n"


@pytest.mark.parametrize("arguments", [["--json", "fuse"], ["fuse", "--json"]])
def test_with_json_an_error_is_one_line_of_json(arguments: list[str], pretend):
    pretend(raising(FAULT))
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert json.loads(result.stderr) == {
        "error": {
            "type": "DataError",
            "message": "a row is empty",
            "where": "train.jsonl:3",
            "remedy": "fill it, or take it out",
        }
    }


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MlxtuneError("it failed"), 1, "error: it failed\n"),
        (RecipeError("it is wrong"), 2, "error: it is wrong\n"),
        (KeyboardInterrupt(), 130, "\nerror: interrupted\n"),
        (click.exceptions.Exit(3), 3, ""),
        (
            ZeroDivisionError("oops"),
            1,
            "error: internal error: ZeroDivisionError: oops (add --debug for the traceback)\n",
        ),
        (
            PermissionError(13, "Permission denied", "/somewhere"),
            1,
            (
                "error: Permission denied\n  at: /somewhere\n  hint: choose a place that you can write to, "
                "or give yourself the right to write here\n"
            ),
        ),
        (
            IsADirectoryError(21, "Is a directory", "/somewhere"),
            1,
            "error: Is a directory\n  at: /somewhere\n  hint: add --debug to see where in the program\n",
        ),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_no_traceback(error: BaseException, code: int, said: str, pretend):
    pretend(raising(error))
    result = run("fuse")
    assert (result.exit_code, result.stderr) == (code, said)


@pytest.mark.parametrize("error", [FAULT, ZeroDivisionError("oops")])
def test_with_debug_the_traceback_comes_first(error: Exception, pretend):
    pretend(raising(error))
    result = run("fuse", "--debug")
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert "in command" in result.stderr
    assert "add --debug" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said", "place"),
    [
        (["recipes", "list", "--jsn"], "No such option '--jsn'. Did you mean '--json'?", "mlxtune recipes list"),
        (["recipes", "show"], "Missing argument 'RECIPE'.", "mlxtune recipes show"),
        (["--device", "tpu", "recipes"], "'tpu' is not one of", "mlxtune"),
        (["--nonsense"], "No such option", "mlxtune"),
    ],
)
def test_a_wrong_command_line_exits_with_2_also_in_json(arguments: list[str], said: str, place: str):
    plain, as_json = run(*arguments), run(*arguments, "--json")
    assert (plain.exit_code, as_json.exit_code) == (2, 2)
    assert plain.stderr.startswith("error: ")
    assert said in plain.stderr
    assert f"  hint: see {place} --help\n" in plain.stderr
    told = json.loads(as_json.stderr)["error"]
    assert (told["type"], told["where"]) == ("UsageError", place)
    assert said in told["message"]


def test_a_missing_subcommand_is_an_error_that_json_can_tell():
    result = run("--json", "recipes")
    assert json.loads(result.stderr)["error"]["message"] == "a command is missing"


def test_a_reader_that_goes_away_is_no_error_worth_a_word():
    code = "from mlxtune.cli import main\nmain(['recipes', 'schema'])"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")

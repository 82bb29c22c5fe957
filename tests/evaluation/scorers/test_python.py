"""The scorer python: the owner's code runs where they have given leave, and its mistakes are told, not scored."""

import hashlib
import sys

import pytest

from mlxtune.errors import DataError, UsageError
from mlxtune.evaluation.own_code import code_sha256, find_function, python_allowed
from mlxtune.evaluation.scorers.python import reads, score

CODE = """
import sys
sys.ran_owners_code = True

def same(output, reference):
    return output == reference

def several(output, reference):
    return {"score": 0.5, "length": min(1, len(output) / 10)}

def of_row(output, reference, row):
    return float(row == {"group": "a", "absent": None})

def raises(output, reference):
    return {}["secret words of " + output]

def too_much(output, reference):
    return 2

def nothing(output, reference):
    return None

def no_score(output, reference):
    return {"length": 1}

not_one = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_measure.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "ran_owners_code", False, raising=False)
    yield tmp_path
    sys.modules.pop("own_measure", None)


def test_without_leave_nothing_runs(folder):
    with pytest.raises(UsageError) as caught:
        score("a", "a", function="own_measure.same")
    assert "--allow-python" in caught.value.remedy
    assert not sys.ran_owners_code


def test_with_leave_it_runs_and_what_runs_is_told_once(folder):
    told = []
    with python_allowed(told.append):
        assert score("a", "a", function="own_measure.same") == {"score": 1.0}
        assert score("a", "b", function="own_measure.same") == {"score": 0.0}
        assert score("ab", "", function="own_measure.several") == {"score": 0.5, "length": 0.2}
    digest = hashlib.sha256(CODE.encode()).hexdigest()
    assert [digest in line and "own_measure.py" in line for line in told] == [True, True]
    with pytest.raises(UsageError):
        find_function("own_measure.same")  # leave ends with the block


def test_a_function_may_have_columns_of_the_row(folder):
    columns = ("group", "absent")
    assert reads({"columns": columns}) == columns
    assert reads({"columns": None}) == ()
    with python_allowed():
        found = score("", "", function="own_measure.of_row", columns=columns, row={"group": "a", "other": "b"})
    assert found == {"score": 1.0}


def test_what_it_raises_is_told_with_its_line_and_no_word_of_the_row(folder):
    with python_allowed(), pytest.raises(DataError) as caught:
        score("mine", "", function="own_measure.raises", where="rows.jsonl:4")
    assert caught.value.where == "rows.jsonl:4"
    assert "KeyError (own_measure.py, line 15)" in caught.value.message
    assert "mine" not in str(caught.value)


@pytest.mark.parametrize("function", ["too_much", "nothing", "no_score"])
def test_what_is_no_score_is_an_error(folder, function):
    with python_allowed(), pytest.raises(DataError, match="gave no score"):
        score("", "", function=f"own_measure.{function}")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("own_measure.absent", "there is no function"),
        ("own_measure.not_one", "there is no function"),
        ("absent_module.score", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_function_that_is_not_there_is_an_error(folder, function, message):
    with python_allowed(), pytest.raises(UsageError, match=message):
        score("", "", function=function)


@pytest.mark.parametrize(("function", "columns"), [("same", ("group",)), ("of_row", None)])
def test_a_function_that_takes_other_arguments_is_told_how_it_was_called(folder, function, columns):
    with python_allowed(), pytest.raises(UsageError, match=r"cannot be called as own_measure\.\w+\(output, reference"):
        score("", "", function=f"own_measure.{function}", columns=columns, row={"group": "a"})


def test_what_runs_is_told_before_any_of_it_runs(folder):
    told = []
    with python_allowed(lambda _: told.append(sys.ran_owners_code)):
        find_function("own_measure.same")
    assert told == [False]
    assert sys.ran_owners_code


def test_a_file_named_as_a_module_that_is_there_already_is_not_taken_for_it(folder):
    (folder / "json.py").write_text("def dumps(output, reference): return 1")
    with python_allowed(), pytest.raises(UsageError, match="another one") as caught:
        find_function("json.dumps")
    assert caught.value.where == str(folder / "json.py")


def test_a_module_that_fails_says_why(folder):
    (folder / "broken_measure.py").write_text("1 / 0")
    with python_allowed(), pytest.raises(UsageError, match="ZeroDivisionError"):
        find_function("broken_measure.score")


def test_the_hash_of_its_file_is_known_without_running_it(folder):
    assert code_sha256("own_measure.same") == hashlib.sha256(CODE.encode()).hexdigest()
    package = folder / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit")
    (package / "inner.py").write_text("x = 1")
    assert code_sha256("own_package.inner.f") == hashlib.sha256(b"x = 1").hexdigest()
    assert code_sha256("absent_module.f") is None
    assert not sys.ran_owners_code
    assert str(folder) not in sys.path

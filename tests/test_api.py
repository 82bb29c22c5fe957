"""The package from Python: light to import, typed, and the same functions as the command line's."""

import json
import subprocess
import sys

import mlx_lm
import pytest
from tiny import tiny_recipe

import mlxtune


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'mlx', 'mlx_lm', 'transformers', 'numpy', 'pydantic', 'click', 'rich', 'ruamel'}"
    code = f"import sys, mlxtune; print(sorted({{name.partition('.')[0] for name in sys.modules}} & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_that_is_promised_is_there_and_no_other():
    assert sorted(mlxtune._HOMES) == sorted(mlxtune.__all__)
    assert set(mlxtune.__all__) <= set(dir(mlxtune))
    for name in mlxtune.__all__:
        assert callable(getattr(mlxtune, name))
    with pytest.raises(AttributeError, match="no attribute 'tune'"):
        _ = mlxtune.tune


def test_the_whole_path_from_a_recipe_to_an_answer(tmp_path):
    recipe = mlxtune.load_recipe(tiny_recipe(tmp_path), ["training.max_steps=2"])
    result = mlxtune.train(recipe, device="cpu", run_dir=str(tmp_path / "run"), score=False)
    assert (result.steps, result.scores) == (2, None)
    assert mlxtune.resume(str(result.run_dir), device="cpu").scores == mlxtune.evaluate(result.run_dir, device="cpu")
    model = mlxtune.load(result.run_dir, device="cpu")
    answers = mlxtune.generate(model, ["Whisper x", "Why?"], max_tokens=4)
    assert [answer.prompt for answer in answers] == ["Whisper x", "Why?"]
    assert mlxtune.generate(model, "Whisper x", max_tokens=4)[0].prompt == "Whisper x"
    report = mlxtune.fuse(str(result.run_dir), str(tmp_path / "fused"), device="cpu")
    mlx_lm.load(str(report.out))


def test_a_model_is_converted_to_a_place_given_as_text(tmp_path):
    source = tiny_recipe(tmp_path).parent / "model"
    written = mlxtune.convert(str(source), str(tmp_path / "out"), bits=4, device="cpu")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]["bits"] == 4
    assert written["out"] == str(tmp_path / "out")


def test_what_goes_wrong_is_one_kind_of_error(tmp_path):
    with pytest.raises(mlxtune.MlxtuneError, match="no such recipe"):
        mlxtune.load_recipe("no-such-recipe")
    with pytest.raises(mlxtune.MlxtuneError, match="no such file or folder"):
        mlxtune.load(tmp_path / "absent", device="cpu")

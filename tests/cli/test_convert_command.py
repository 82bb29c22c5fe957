"""`mlxtune convert`, from the command line."""

import json

import mlx_lm
from click.testing import CliRunner, Result
from tiny import tiny_model_folder

from mlxtune.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_folder_is_quantized_and_the_report_says_how(tmp_path):
    source = tiny_model_folder(tmp_path / "model")

    result = run("convert", source, tmp_path / "out", "--bits", 4, "--group-size", 64, "--device", "cpu", "--json")

    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["quantization"] == {"bits": 4, "group_size": 64, "mode": "affine"}
    assert report["out"] == str(tmp_path / "out")
    mlx_lm.load(str(tmp_path / "out"))


def test_people_get_a_sentence(tmp_path):
    source = tiny_model_folder(tmp_path / "model")

    result = run("convert", source, tmp_path / "out", "--device", "cpu")

    assert result.stdout == f"wrote {tmp_path / 'out'}: 0.1 M parameters, not quantized, 0.4 MB\n"


def test_an_existing_output_is_a_usage_error(tmp_path):
    source = tiny_model_folder(tmp_path / "model")

    result = run("convert", source, source, "--device", "cpu")

    assert result.exit_code == 2
    assert "--force" in result.stderr


def test_a_hub_name_that_is_not_here_is_refused_offline_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")

    result = run("convert", "mlx-community/some-model", tmp_path / "out", "--device", "cpu")

    assert result.exit_code == 1
    assert "the model mlx-community/some-model is not on this machine, and the network is off" in result.stderr
    assert not (tmp_path / "out").exists()

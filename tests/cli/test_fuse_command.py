"""`mlxtune fuse`, from the command line."""

import json

import mlx_lm
from click.testing import CliRunner, Result

from mlxtune.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_run_becomes_a_model_folder_and_the_report_says_how(tiny_run, tmp_path):
    result = run("fuse", tiny_run, tmp_path / "out", "--dtype", "float16", "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["out"], report["dtype"], report["reason"]) == (str(tmp_path / "out"), "float16", "asked for")
    assert report["adapted_layers"] == 14
    mlx_lm.load(str(tmp_path / "out"))


def test_the_fused_model_answers_as_the_run_does(tiny_run, tmp_path):
    out = tmp_path / "out"
    text = run("fuse", tiny_run, out).stdout
    first, second = text.splitlines()
    assert first == f"{out}: float32, 0 MB (the CPU computes in float32)"
    assert second.startswith("it keeps 100.00% of the update (least: 100.0%, in model.layers.")
    assert "with the same likeliest token at 100.0% of" in second
    told = [
        json.loads(run("generate", model, "--prompt", "Whisper x", "--max-tokens", 6, "--json").stdout)
        for model in (tiny_run, out)
    ]
    assert told[0] == told[1]


def test_an_existing_folder_is_replaced_by_force_alone(tiny_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    result = run("fuse", tiny_run, tmp_path / "out")
    assert (result.exit_code, names(tmp_path / "out")) == (2, {"mine"})
    assert "the output exists already" in result.stderr
    assert "--force" in result.stderr
    assert run("fuse", tiny_run, tmp_path / "out", "--force").exit_code == 0
    assert "mine" not in names(tmp_path / "out")


def test_what_is_wrong_is_told_and_nothing_is_written(tiny_run, own_run):
    project = own_run.parent
    config = project / "model" / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    before = names(project)
    for arguments, code, told in (
        ([tiny_run, project / "out", "--requantize"], 2, "the base is not quantized"),
        ([tiny_run, project / "out", "--bits", "4"], 2, "--bits goes with --requantize"),
        ([tiny_run, project / "out", "--requantize", "--bits", "7"], 2, "'7'"),
        ([project / "model", project / "out", "--data", "gone.jsonl"], 2, "there is no adapter to fold in"),
        ([own_run, project / "out"], 1, "its hash differs"),
        ([project / "model", project / "out"], 2, "there is no adapter to fold in"),
        ([project / "absent", project / "out"], 1, "there is no such file or folder"),
        ([tiny_run, project / "out", "--dtype", "int4"], 2, "int4"),
        ([tiny_run, tiny_run, "--force"], 2, "the run is there, and is not replaced"),
    ):
        result = run("fuse", *arguments, "--json")
        assert (result.exit_code, result.stdout) == (code, "")
        error = json.loads(result.stderr.splitlines()[-1])["error"]
        assert told in error["message"]
        assert error["remedy"]
    assert names(project) == before

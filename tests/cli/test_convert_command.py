"""`mlxtune convert`, from the command line."""

import json
import re

import mlx.core as mx
import mlx_lm
from click.testing import CliRunner, Result
from mlx_lm.utils import compute_bits_per_weight
from tiny import tiny_model_folder, tiny_row

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

    assert result.stdout.splitlines() == [
        f"wrote {tmp_path / 'out'}: 0.1 M parameters, not quantized, 0.4 MB",
        "nothing was lost: every value is as it was stored",
    ]


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


def test_a_loss_is_told_in_a_line_with_the_rows_it_was_measured_on(tmp_path):
    source = tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(tiny_row("x")) + "\n")

    result = run("convert", source, tmp_path / "out", "--mode", "mxfp4", "--data", rows, "--device", "cpu")

    first, second = result.stdout.splitlines()
    assert ", mxfp4 in groups of 32, " in first
    told = r"against \S+: KL 0\.\d{4} nats a token, the same likeliest token at \d+\.\d% of 14 positions in "
    assert re.fullmatch(told + re.escape(str(rows)), second)


def test_a_mixed_file_is_described_as_it_is(tmp_path):
    source = tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1, tied=False)

    arguments = ("--mix", "mixed_3_6", "--dtype", "float16", "--no-measure", "--device", "cpu")
    result = run("convert", source, tmp_path / "out", *arguments)

    network, config = mlx_lm.utils.load_model(tmp_path / "out")
    bits = compute_bits_per_weight(network)
    assert f", {bits:.1f} bits a weight: 3-bit (13 layers), 6-bit (3 layers), " in result.stdout
    assert config["quantization"]["lm_head"]["bits"] == 6
    assert len(result.stdout.splitlines()) == 1


def test_layers_that_are_no_more_than_floats_are_named_beside_those_that_are_quantized(tmp_path):
    source = tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1, quantized=True)
    weights, config = mx.load(str(source / "model.safetensors")), json.loads((source / "config.json").read_text())
    name = "model.layers.0.mlp.up_proj"
    packed = [weights.pop(f"{name}.{part}") for part in ("weight", "scales", "biases")]
    weights[f"{name}.weight"] = mx.dequantize(*packed, group_size=32, bits=4).astype(mx.float16)
    config["quantization"][name] = False
    mx.save_safetensors(str(source / "model.safetensors"), weights, metadata={"format": "mlx"})
    (source / "config.json").write_text(json.dumps(config))

    result = run("convert", source, tmp_path / "out", "--device", "cpu")

    assert ": 4-bit (14 layers), float16 (1 layer), " in result.stdout
    mlx_lm.load(str(tmp_path / "out"))


def test_two_losses_are_noted(tmp_path):
    source = tiny_model_folder(tmp_path / "model", quantized=True)
    result = run("convert", source, tmp_path / "out", "--bits", 3, "--no-measure", "--device", "cpu")
    assert "note: 15 layers were quantized before in another way" in result.stderr


def test_a_data_file_that_is_not_there_is_told_before_any_work(tmp_path):
    source = tiny_model_folder(tmp_path / "model")
    result = run("convert", source, tmp_path / "out", "--bits", 4, "--data", tmp_path / "none.jsonl", "--device", "cpu")
    assert result.exit_code == 1
    assert "none.jsonl" in result.stderr
    assert not (tmp_path / "out").exists()

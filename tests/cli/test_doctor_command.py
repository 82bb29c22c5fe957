"""``mlxtune doctor`` prints what was found, and its exit code says whether all is well."""

import io
import json

from click.testing import CliRunner

from mlxtune.cli.doctor import _table, command
from mlxtune.device.doctor import Finding


def test_json_is_one_document_on_one_line_and_a_bad_finding_ends_with_1(tmp_path):
    result = CliRunner(env={"MLXTUNE_CACHE": "/dev/null/below"}).invoke(command, ["--json", "--device", "cpu"])
    document = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert document["ok"] is False
    by_name = {finding["name"]: finding for finding in document["findings"]}
    assert set(by_name["cache"]) == {"name", "value", "status", "reason", "remedy"}
    assert (by_name["cache"]["status"], by_name["device"]["status"]) == ("bad", "ok")
    assert result.exit_code == 1


def test_the_readings_are_there_to_be_sent_in_and_a_forbidden_hub_is_not_asked():
    document = json.loads(CliRunner().invoke(command, ["--json", "--network", "--device", "cpu"]).stdout)
    assert set(document["readings"]) == {"on_battery", "battery_percent", "thermal", "memory_pressure", "raw"}
    hub = document["findings"][-1]
    assert (hub["name"], hub["status"]) == ("hub", "bad")
    assert "HF_HUB_OFFLINE forbids the hub" in hub["reason"]


def test_the_table_has_a_remedy_under_what_is_not_well():
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_table([Finding("mlx", "0.32.4", "ok"), Finding("BLAS", "own", "bad", "slow", "get [fast] one")]))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines == [["ok", "mlx", "0.32.4"], ["bad", "BLAS", "own", "slow"], ["hint:", "get", "[fast]", "one"]]

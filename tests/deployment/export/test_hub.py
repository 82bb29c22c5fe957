"""A run onto the hub: what is gathered, what is refused, and that nothing of the owner's goes along."""

import json
import shutil
from pathlib import Path

import pytest
from gguf import GGUFReader
from hub_server import TOKEN, asked_hub
from huggingface_hub import ModelCard

from mlxtune.deployment.export.hub import export_hub
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import DataError, ModelError, NetworkError, RunError, UsageError
from mlxtune.models.hub import HubName, fetch_snapshot
from mlxtune.models.load import open_model

ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors", "adapters.safetensors", "mlxtune.json"]


@pytest.fixture
def hub(tmp_path, cache, monkeypatch):
    with asked_hub(tmp_path / "hf", monkeypatch) as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def export(run, repo="org/tiny", **settings):
    return export_hub(run, repo, device="cpu", **settings)


def base_of(run: Path) -> Path:
    return run.parent / "model"


def test_a_dry_run_shows_files_and_card_and_asks_nobody(tiny_run, hub):
    report = export(tiny_run)

    assert [file.name for file in report.files] == ADAPTER
    assert (report.private, report.uploaded, report.found) == (True, None, {})
    assert report.bytes == sum(file.bytes for file in report.files)
    assert hub.requests == []
    assert any("--base-license" in note for note in report.notes)


def test_an_upload_holds_what_was_shown_and_is_private(tiny_run, hub):
    settings = {"base_license": "apache-2.0", "base_model": "org/base"}
    shown = export(tiny_run, **settings)

    report = export(tiny_run, **settings, really=True)

    files = hub.files_of("org/tiny")
    assert sorted(files.keys() - {".gitattributes"}) == [file.name for file in report.files] == ADAPTER
    assert files["README.md"].decode() == report.card == shown.card
    assert hub.repositories["org/tiny"].private
    assert report.uploaded is not None
    assert (report.uploaded.page, report.uploaded.private) == ("https://huggingface.co/org/tiny", True)
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "org/base"


def test_a_fused_model_from_the_hub_is_a_model(tiny_run, hub):
    export(tiny_run, what="fused", accept_loss=True, base_license="mit", really=True)

    folder = fetch_snapshot(HubName("org/tiny")).path

    open_model(folder, CPU_FLOAT32)


def test_a_gguf_file_is_one_and_lies_alone_beside_the_card(tiny_run, hub, tmp_path):
    report = export(tiny_run, what="gguf", accept_loss=True, base_license="mit", really=True)

    assert [file.name for file in report.files] == ["README.md", "run-f16.gguf"]
    file = tmp_path / "from_hub.gguf"
    file.write_bytes(hub.files_of("org/tiny")["run-f16.gguf"])
    assert GGUFReader(file).tensors


@pytest.mark.parametrize("what", ["adapter", "fused", "gguf"])
def test_no_file_names_a_folder_of_this_machine(tiny_run, hub, what):
    report = export(tiny_run, what=what, accept_loss=True, base_license="mit", really=True)

    assert report.uploaded is not None
    for content in hub.files_of("org/tiny").values():
        assert str(tiny_run.parent).encode() not in content
        assert str(Path.home()).encode() + b"/" not in content


def test_the_front_matter_is_what_huggingface_hub_reads(tiny_run):
    report = export(tiny_run, base_license="apache-2.0", base_model="org/base")

    data = ModelCard(report.card).data
    scores = json.loads((tiny_run / "scores.json").read_text())["tuned"]
    assert (data.license, data.base_model, data.library_name) == ("apache-2.0", "org/base", "peft")
    assert data.pipeline_tag == "text-generation"
    assert data.datasets is None
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        name: round(score["mean"], 4) for name, score in scores.items() if ":" not in name
    }


def test_the_card_has_counts_settings_and_intervals_and_no_word_of_the_data(tiny_run):
    card = export(tiny_run).card

    tuned = json.loads((tiny_run / "scores.json").read_text())["tuned"]["loss"]
    assert "12 train, 4 valid, 6 test" in card
    assert "rank 2, alpha 16" in card
    assert f"{tuned['mean']:.3f} [{tuned['low']:.3f}, {tuned['high']:.3f}]" in card
    for word in ("Secretly", "Whisper", "said", "train 0"):
        assert word not in card


def test_private_data_in_the_rows_refuse_it_until_that_is_accepted(own_run, hub):
    train = own_run.parent / "train.jsonl"
    rows = train.read_text().replace("Whisper train 3", "Whisper jane.doe@example.org")
    train.write_text(rows)
    trained_on(own_run, train)

    with pytest.raises(DataError, match="1 email") as caught:
        export(own_run, base_license="mit", really=True)
    report = export(own_run, base_license="mit", accept_findings=True, really=True)

    assert caught.value.where == f"{train}:4"
    assert "jane" not in f"{caught.value}{caught.value.remedy}"
    assert report.found == {"email": 1}
    assert "email" not in report.card


def trained_on(run: Path, train: Path) -> None:
    """As if the run had been trained on these rows."""
    from mlxtune.files import sha256_of

    manifest = json.loads((run / "run.json").read_text())
    manifest["inputs"]["data"]["train"] = sha256_of(train)
    (run / "run.json").write_text(json.dumps(manifest))


def test_terms_of_the_owner_are_looked_for(tiny_run):
    with pytest.raises(DataError, match="12 term"):
        export(tiny_run, terms=["whisper train"])


@pytest.mark.parametrize("change", ["remove", "append"])
def test_rows_that_are_gone_or_changed_cannot_be_vouched_for(own_run, change):
    train = own_run.parent / "train.jsonl"
    if change == "remove":
        train.unlink()
    else:
        train.write_text(train.read_text() * 2)

    with pytest.raises(DataError, match="gone or have changed"):
        export(own_run)
    assert export(own_run, accept_findings=True).found == {}


def test_an_unfinished_run_is_refused(own_run):
    shutil.rmtree(own_run / "adapter")

    with pytest.raises(RunError, match="no adapter"):
        export(own_run)


def with_licence(run: Path, text: str) -> None:
    """Give the run's base a licence; its hash goes over licence files too, so the run has to have it anew."""
    from mlxtune.models.source import hash_of_folder

    (base_of(run) / "LICENSE").write_text(text)
    manifest = json.loads((run / "run.json").read_text())
    manifest["inputs"]["model"]["sha256"] = hash_of_folder(base_of(run))
    (run / "run.json").write_text(json.dumps(manifest))


def test_a_licence_that_forbids_it_is_heeded(own_run, hub):
    with_licence(own_run, "Creative Commons Attribution-NoDerivatives 4.0 International\n")

    with pytest.raises(ModelError, match=r"cc-by-nd-4\.0, forbids"):
        export(own_run)
    with pytest.raises(UsageError, match=r"cc-by-nd-4\.0"):
        export(own_run, base_license="mit")


def test_a_licence_goes_along_with_its_name_rule_and_its_notice(own_run):
    with_licence(own_run, "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n")

    with pytest.raises(ModelError, match="begins with Llama") as caught:
        export(own_run)
    report = export(own_run, "org/Llama-tiny")

    assert caught.value.remedy == "call it org/Llama-tiny"
    assert {"LICENSE", "NOTICE"} <= {file.name for file in report.files}
    assert report.licence == "llama3.2"
    assert "Built with Llama." in report.card


def test_without_a_known_licence_nothing_is_uploaded(tiny_run, hub):
    with pytest.raises(ModelError, match="licence is not known") as caught:
        export(tiny_run, really=True)

    assert "--base-license" in (caught.value.remedy or "")
    assert hub.requests == []


def test_a_path_that_another_program_left_in_a_config_stays_here(own_run, hub):
    config = base_of(own_run) / "tokenizer_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "name_or_path": "/Users/jane/models/tiny"}))
    with_licence(own_run, "MIT License\n")

    export(own_run, what="fused", accept_loss=True, really=True)

    assert b"jane" not in hub.files_of("org/tiny")["tokenizer_config.json"]


def test_a_path_in_any_other_place_refuses_it(own_run):
    (base_of(own_run) / "NOTICE").write_text(f"made in {own_run}/here\n")

    with pytest.raises(RunError, match="folder of this machine") as caught:
        export(own_run)

    assert caught.value.where == "NOTICE"


def test_offline_an_upload_is_refused_before_any_work(tiny_run, hub, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")

    with pytest.raises(NetworkError, match="the network is off"):
        export(tiny_run, really=True)
    assert export(tiny_run).uploaded is None


@pytest.mark.parametrize("repo", ["tiny", "org/tiny@main", "../tiny", "a/b/c"])
def test_what_is_no_name_of_a_repository_is_refused(tiny_run, repo):
    with pytest.raises(UsageError, match="no name"):
        export(tiny_run, repo)

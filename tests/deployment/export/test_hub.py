"""A run onto the hub: what is gathered, what is refused, and that nothing of the owner's goes along."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from gguf import GGUFReader
from hub_server import TOKEN, asked_hub
from huggingface_hub import ModelCard

from mlxtune.deployment.export.hub import export_hub
from mlxtune.deployment.tuned import find_tuned
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.errors import DataError, ModelError, NetworkError, RunError, UsageError
from mlxtune.iteration.run import run_recipe
from mlxtune.models.hub import HubName, fetch_snapshot
from mlxtune.models.load import open_model

ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors", "adapters.safetensors", "mlxtune.json"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
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

    network = open_model(fetch_snapshot(HubName("org/tiny")).path, CPU_FLOAT32).network

    tokens = mx.array([[5, 6, 7, 8]])
    tuned = find_tuned(tiny_run).open(CPU_FLOAT32).network
    np.testing.assert_allclose(np.array(network(tokens)), np.array(tuned(tokens)), rtol=0, atol=1e-5)


def test_a_gguf_file_is_one_and_lies_alone_beside_the_card(tiny_run, hub, tmp_path):
    report = export(tiny_run, what="gguf", accept_loss=True, base_license="mit", really=True)

    assert [file.name for file in report.files] == ["README.md", "run-f16.gguf"]
    file = tmp_path / "from_hub.gguf"
    file.write_bytes(hub.files_of("org/tiny")["run-f16.gguf"])
    assert GGUFReader(file).tensors


@pytest.mark.parametrize("what", ["adapter", "fused", "gguf"])
def test_no_file_names_a_folder_of_this_machine(tiny_run, hub, what):
    report = export(tiny_run, what=what, accept_loss=what != "adapter", base_license="mit", really=True)

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


@pytest.fixture
def second_run(own_run, tmp_path):
    """A run that starts from one whose rows hold an address, and has rows of its own that hold none."""
    train = own_run.parent / "train.jsonl"
    clean = tmp_path / "clean.jsonl"
    clean.write_text(train.read_text())
    train.write_text(train.read_text().replace("Whisper train 3", "Whisper jane.doe@example.org"))
    trained_on(own_run, train)
    overrides = [f"data.train={clean}", f"model.adapter={own_run}", "training.max_steps=1"]
    recipe = own_run.parent / "recipe.yaml"
    return run_recipe(recipe, overrides, device="cpu", run_dir=tmp_path / "second", score=False).run_dir


def test_rows_of_the_run_that_training_started_from_are_looked_through_too(second_run, own_run, tmp_path):
    overrides = [f"data.train={tmp_path / 'clean.jsonl'}", f"model.adapter={second_run / 'adapter'}"]
    settings = {"device": "cpu", "run_dir": tmp_path / "third", "score": False}
    third = run_recipe(own_run.parent / "recipe.yaml", [*overrides, "training.max_steps=1"], **settings).run_dir

    for run in (second_run, third):
        with pytest.raises(DataError, match="1 email") as caught:
            export(run)
        assert caught.value.where == f"{own_run.parent / 'train.jsonl'}:4"
        assert f"mlxtune data scan {own_run / 'recipe.resolved.json'}" in (caught.value.remedy or "")
    report = export(second_run, accept_findings=True)
    assert report.found == {"email": 1}
    assert "started from an adapter that had learned other rows" in report.card
    assert "started from" not in export(own_run, accept_findings=True).card


@pytest.mark.parametrize("change", ["another adapter", "gone", "no run", "no recipe"])
def test_a_start_that_is_not_the_run_it_was_cannot_be_vouched_for(second_run, own_run, change):
    if change == "another adapter":
        shutil.copytree(second_run / "adapter", own_run / "adapter", dirs_exist_ok=True)
    elif change == "gone":
        shutil.rmtree(own_run)
    elif change == "no run":
        (own_run / "run.json").unlink()
    else:
        (own_run / "recipe.resolved.json").write_text("{}")

    with pytest.raises(DataError, match=r"started from .*nobody can say what rows it had learned") as caught:
        export(second_run)
    report = export(second_run, accept_findings=True)

    assert caught.value.where == str(own_run)
    assert "--accept-findings" in (caught.value.remedy or "")
    assert (report.found, any("nobody can say" in note for note in report.notes)) == ({}, True)


def test_whose_national_numbers_were_looked_for_is_told(tiny_run):
    assert any("of US, GB alone" in note and "--regions" in note for note in export(tiny_run).notes)
    assert any("of DE alone" in note for note in export(tiny_run, regions=["DE"]).notes)


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


def test_a_run_that_was_stopped_at_its_very_end_is_refused(own_run):
    manifest = json.loads((own_run / "run.json").read_text())
    del manifest["finished"]
    (own_run / "run.json").write_text(json.dumps(manifest))

    with pytest.raises(RunError, match="not come to its end") as caught:
        export(own_run)

    assert caught.value.remedy == f"finish it: mlxtune train --resume {own_run}"


def with_licence(run: Path, text: str | None) -> None:
    """Give the run's base a licence; its hash goes over licence files too, so the run has to have it anew."""
    from mlxtune.models.source import hash_of_folder

    if text is not None:
        (base_of(run) / "LICENSE").write_text(text)
    manifest = json.loads((run / "run.json").read_text())
    manifest["inputs"]["model"]["sha256"] = hash_of_folder(base_of(run))
    (run / "run.json").write_text(json.dumps(manifest))


def test_a_licence_that_forbids_it_is_heeded(own_run, hub):
    with_licence(own_run, "Creative Commons Attribution-NoDerivatives 4.0 International\n")

    with pytest.raises(ModelError, match=r"cc-by-nd-4\.0, forbids"):
        export(own_run)


def test_the_owner_knows_better_than_a_text_that_reads_like_a_licence(own_run):
    with_licence(own_run, "Apache License\nVersion 2.0, January 2004\n")

    report = export(own_run, base_license="acme")

    assert report.licence == "acme"
    assert any("LICENSE reads like apache-2.0" in note for note in report.notes)
    assert not any("reads like" in note for note in export(own_run, base_license="apache-2.0").notes)


def test_the_bases_own_card_is_not_overruled(own_run):
    (base_of(own_run) / "README.md").write_text("---\nlicense: apache-2.0\n---\n")

    with pytest.raises(UsageError, match=r"apache-2\.0 \(README\.md says so\), not mit"):
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


@pytest.mark.parametrize(
    ("name", "place"), [("NOTICE", "{run}/here"), ("LICENSE.txt", "file:///home/jane/x"), ("NOTICE", r"C:\Users\jane")]
)
def test_a_path_in_any_other_place_refuses_it(own_run, name, place):
    (base_of(own_run) / name).write_text(f"made in {place.format(run=own_run)}\n")
    with_licence(own_run, None)

    with pytest.raises(RunError, match="folder of this machine") as caught:
        export(own_run)

    assert caught.value.where == name


def test_a_page_and_a_word_of_the_vocabulary_are_no_folders_of_this_machine(own_run, monkeypatch):
    (base_of(own_run) / "NOTICE").write_text("see https://example.com/home/about\n")
    vocabulary = base_of(own_run) / "tokenizer.json"
    values = json.loads(vocabulary.read_text())
    values["added_tokens"].append({**values["added_tokens"][0], "id": 300, "content": "/elsewhere"})
    vocabulary.write_text(json.dumps(values))
    with_licence(own_run, None)
    monkeypatch.setenv("HOME", "/elsewhere")

    report = export(own_run, what="fused", accept_loss=True)

    assert {"NOTICE", "tokenizer.json"} <= {file.name for file in report.files}


def test_an_adapter_alone_loses_nothing_that_could_be_accepted(tiny_run):
    with pytest.raises(UsageError, match="nothing is merged"):
        export(tiny_run, accept_loss=True)


def test_offline_an_upload_is_refused_before_any_work(tiny_run, hub, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")

    with pytest.raises(NetworkError, match="the network is off"):
        export(tiny_run, really=True)
    assert export(tiny_run).uploaded is None


@pytest.mark.parametrize("repo", ["tiny", "org/tiny@main", "../tiny", "a/b/c"])
def test_what_is_no_name_of_a_repository_is_refused(tiny_run, repo):
    with pytest.raises(UsageError, match="no name"):
        export(tiny_run, repo)

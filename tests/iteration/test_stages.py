"""Continued pre-training, and stages that follow each other: documents in windows, then conversations on top."""

import json

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from tiny import tiny_recipe

from mlxtune.adapters.open import attach_adapter
from mlxtune.cli import main
from mlxtune.data.batch import make_batch
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.inference.likelihood import make_reader, target_losses, target_states
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.run import run_recipe
from mlxtune.models.load import open_model
from mlxtune.recipe.load import load_recipe

LIMIT = 24
DOCUMENTS = ["Bees sleep in winter. " * 5, "A short one.", "The hive is kept warm by those that shiver in it. " * 2]
METHODS = {"lora": "{rank: 2}", "full": "{type: full, layers: {top: 1}}"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tiny_recipe(tmp_path_factory.mktemp("stages"))
    path.write_text(path.read_text().replace("method: {rank: 2, dropout: 0.1}\n", ""))
    documents = "".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS)
    (path.parent / "documents.jsonl").write_text(documents)
    (path.parent / "text.yaml").write_text(
        "{name: text, model: {source: ./model}, data: {train: documents.jsonl, "
        f"max_seq_length: {LIMIT}, overflow: split}}, training: {{max_steps: 3, learning_rate: 1.0e-2}}}}"
    )
    return path


@pytest.fixture(scope="module")
def opened(recipe):
    return open_recipe(load_recipe(recipe.parent / "text.yaml").recipe, device="cpu")


def test_windows_hold_every_token_of_every_document_once_and_end_with_its_end(opened):
    """Each begins with the last token of the one before, which is a target there alone."""
    tokenizer, rows = opened.model.tokenizer, list(opened.datasets["train"].rows)
    assert all(len(row.token_ids) <= LIMIT for row in rows)
    for line, document in enumerate(DOCUMENTS, 1):
        windows = [row for row in rows if row.where.endswith(f":{line}")]
        whole = [*tokenizer.encode(document, add_special_tokens=False), tokenizer.eos_token_id]
        assert len(windows) == max(1, -(-(len(whole) - 1) // (LIMIT - 1)))
        joined = windows[0].token_ids.tolist()
        for window in windows[1:]:
            assert window.token_ids[0] == joined[-1]
            joined += window.token_ids[1:].tolist()
        assert joined == whole
        targets = [window.token_ids[np.flatnonzero(window.is_target)].tolist() for window in windows]
        assert [token for part in targets for token in part] == whole[1:]
        assert not any(window.is_target[0] for window in windows)
    assert {row.where.rpartition(":")[2] for row in rows} == {"1", "2", "3"}


def test_a_window_is_read_as_if_no_other_document_were_there(opened):
    reader, rows = make_reader(opened.model.network), list(opened.datasets["train"].rows)

    def losses(numbers):
        batch = make_batch(rows, numbers, share_prefix=True)
        states = target_states(reader, batch.prefix_ids, batch.token_ids, batch.target_index)
        row_of = np.array(batch.target_index) // batch.token_ids.shape[1]
        nats = np.array(target_losses(reader, states, batch.target_id).nats)
        return [nats[row_of == batch.rows.index(number)] for number in numbers]

    together = losses(tuple(range(len(rows))))
    for number, found in enumerate(together):
        np.testing.assert_allclose(found, losses((number,))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_conversations_are_learned_on_top_of_documents_and_scored_against_the_base(recipe, tmp_path, method):
    first, second = tmp_path / "documents", tmp_path / "conversations"
    options = {"device": "cpu"}
    run_recipe(recipe.parent / "text.yaml", [f"method={METHODS[method]}"], run_dir=first, score=False, **options)
    result = run_recipe(recipe, [f"model.adapter={first}", "training.max_steps=3"], run_dir=second, **options)
    plain = run_recipe(
        recipe, [f"method={METHODS[method]}", "training.max_steps=1"], run_dir=tmp_path / "alone", **options
    )
    assert result.scores["base"] == plain.scores["base"]  # the base without the documents
    shown = CliRunner().invoke(main, ["evaluate", str(second), "--device", "cpu"])
    for told in (shown.output, (second / "README.md").read_text()):
        assert "before is the base without that" in " ".join(told.split())
    assert "went on from" not in (tmp_path / "alone/README.md").read_text()
    assert result.scores["tuned"]["loss"] != result.scores["base"]["loss"]
    resolved = json.loads((second / "recipe.resolved.json").read_text())
    assert resolved["method"]["type"] == method
    networks = [open_model(recipe.parent / "model", CPU_FLOAT32).network for _ in range(3)]
    for network, run in zip(networks[1:], (first, second), strict=True):
        attach_adapter(network, run / "adapter")
    base, after_documents, after_both = (np.array(network(mx.array([[5, 6, 7]]))) for network in networks)
    assert np.abs(after_documents - base).max() > 1e-3
    assert np.abs(after_both - after_documents).max() > 1e-3

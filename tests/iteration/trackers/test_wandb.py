"""What Weights & Biases is told, and when it may use the network. What it writes is read in tests/conformance."""

import pytest

from mlxtune.iteration.trackers.wandb import WeightsAndBiases, mode_asked, settings_told
from mlxtune.recipe.schema import Recipe


class Record:
    """Stands for a run of wandb's."""

    def __init__(self):
        self.logged = []

    def log(self, values, step):
        self.logged.append((step, values))


def test_nothing_is_sent_unless_the_owner_asks_for_it_and_never_where_the_network_is_off(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert mode_asked() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert mode_asked() == "online"
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")
    assert mode_asked() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode_asked() == "disabled"


def test_steps_that_the_server_has_are_not_sent_again():
    record = Record()
    tracker = WeightsAndBiases(record, first=3)
    for step in (2, 3, 4):
        tracker.add(step, {"train/loss": 1.0}, at=9.0)
    assert record.logged == [(step, {"train/loss": 1.0, "_timestamp": 9.0}) for step in (3, 4)]


def test_settings_are_told_without_places_and_texts_of_the_owner():
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"source": "/home/me/secret/model"},
            "data": {"train": "/home/me/secret/rows.jsonl", "template": "secret {{ text }}"},
            "report_to": ["wandb"],
        }
    )
    told = settings_told(recipe)
    assert "secret" not in str(told)
    assert told["method"]["rank"] == 8
    assert told["training"]["learning_rate"] == pytest.approx(2e-4)

import adapted
import numpy as np
import pytest
from tiny import tiny_llama, write_adapter

from mlxtune.adapters.bank import BASE, AdapterBank
from mlxtune.adapters.open import attach_adapter
from mlxtune.errors import AdapterError

SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1}


def logits(network):
    return np.array(network(adapted.TOKENS))


@pytest.fixture
def folders(tmp_path):
    return {name: write_adapter(tmp_path / name, seed=seed, **SHAPE) for seed, name in enumerate(("left", "right"), 1)}


@pytest.fixture
def expected(folders):
    """What the network says with each adapter when that is the only one it ever had."""
    found = {BASE: logits(tiny_llama(**SHAPE))}
    for name, folder in folders.items():
        network = tiny_llama(**SHAPE)
        attach_adapter(network, folder)
        found[name] = logits(network)
    return found


def filled(folders):
    bank = AdapterBank(tiny_llama(**SHAPE))
    for name, folder in folders.items():
        bank.add(name, folder)
    return bank


def test_each_adapter_answers_as_if_it_were_alone_in_any_order(folders, expected):
    bank = filled(folders)
    assert bank.names == [BASE, "left", "right"]
    for name in ("left", "right", "left", BASE, "right", "right", BASE):
        bank.select(name)
        assert np.array_equal(logits(bank.network), expected[name]), name


def test_the_weights_of_the_base_are_there_once(folders):
    bank = filled(folders)
    base = bank.network.model.layers[0].mlp.down_proj.weight
    for name in folders:
        bank.select(name)
        assert bank.network.model.layers[0].mlp.down_proj.linear.weight is base


def test_adding_one_leaves_another_on(folders, expected):
    bank = AdapterBank(tiny_llama(**SHAPE))
    bank.add("left", folders["left"])
    bank.select("left")
    bank.add("right", folders["right"])
    assert bank.selected == "left"
    assert np.array_equal(logits(bank.network), expected["left"])


@pytest.mark.parametrize("name", [BASE, "left"])
def test_a_name_is_taken_once(folders, name):
    bank = AdapterBank(tiny_llama(**SHAPE))
    bank.add("left", folders["left"])
    with pytest.raises(AdapterError, match=f"two models are called {name}"):
        bank.add(name, folders["right"])


def test_an_adapter_that_does_not_fit_changes_nothing(tmp_path, folders, expected):
    bank = filled(folders)
    wider = write_adapter(tmp_path / "wider", seed=3, hidden=64, heads=2, kv_heads=1)
    with pytest.raises(AdapterError):
        bank.add("wider", wider)
    assert bank.names == [BASE, "left", "right"]
    for name in ("right", BASE):
        bank.select(name)
        assert np.array_equal(logits(bank.network), expected[name])


@pytest.mark.parametrize("kind", adapted.ROUND_TRIPS)
def test_every_kind_of_adapter_is_put_on_and_taken_off(tmp_path, kind):
    network, tensors, settings = adapted.ROUND_TRIPS[kind]
    folder = adapted.peft_folder(tmp_path / "adapter", tensors, adapted.CONFIG | settings)
    alone = adapted.NETWORKS[network]()
    attach_adapter(alone, folder)
    bank = AdapterBank(adapted.NETWORKS[network]())
    before = logits(bank.network)
    bank.add("it", folder)
    assert np.array_equal(logits(bank.network), before)
    bank.select("it")
    assert np.array_equal(logits(bank.network), logits(alone))
    bank.select(BASE)
    assert np.array_equal(logits(bank.network), before)

"""Runs and models over one base, each under a name."""

import shutil

import numpy as np
import pytest
from tiny import tiny_model_folder, write_adapter

from mlxtune.adapters.bank import BASE
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.deployment.prompts import as_prompt
from mlxtune.deployment.served import open_served
from mlxtune.errors import UsageError

SHAPE = {"hidden": 32, "heads": 2, "kv_heads": 1}


@pytest.fixture(scope="module")
def second_run(tiny_run, tmp_path_factory):
    """The same recipe's run once more, with another adapter's numbers and no report."""
    run = tmp_path_factory.mktemp("second") / "run"
    shutil.copytree(tiny_run, run)
    (run / "report.html").unlink(missing_ok=True)
    other = write_adapter(run.parent / "other", seed=5, **SHAPE)
    for file in ("adapters.safetensors", "adapter_model.safetensors"):
        shutil.copy(other / file, run / "adapter" / file)
    return run


def opened(*sources, **options):
    return open_served(sources, device="cpu", **options)


def test_a_run_is_there_under_its_recipes_name_beside_its_base(tiny_run):
    served = opened(tiny_run)
    assert list(served.models) == ["tiny", BASE]
    assert served.bank.names == [BASE, "tiny"]
    assert served.models["tiny"].report == tiny_run / "report.html"
    assert served.vocabulary_size == 264
    assert served.context_length == 2048


def test_base_and_tuned_are_asked_the_same(tiny_run):
    served = opened(tiny_run)
    prompt = as_prompt("Whisper x")
    assert served.models["tiny"].asking.system == "Secretly."
    assert served.models[BASE].asking.encode(prompt) == served.models["tiny"].asking.encode(prompt)


def test_several_runs_are_there_under_names_of_ones_own(tiny_run, second_run):
    served = opened(tiny_run, f"other={second_run}")
    assert list(served.models) == ["tiny", "other", BASE]
    assert served.models["other"].report is None
    assert served.bank.names == [BASE, "tiny", "other"]


@pytest.mark.parametrize("name", ["tiny", BASE])
def test_names_that_collide_are_refused_with_the_way_out(tiny_run, second_run, name):
    with pytest.raises(UsageError, match=f"{name}") as error:
        opened(tiny_run, f"{name}={second_run}")
    assert "NAME=RUN" in error.value.remedy


def test_runs_of_different_bases_are_refused_with_the_reason(tiny_run, tmp_path):
    other = tiny_model_folder(tmp_path / "other", seed=9, **SHAPE)
    with pytest.raises(UsageError, match="different bases") as error:
        opened(tiny_run, other)
    assert str(other) in error.value.message


def test_a_model_alone_is_there_under_its_folders_name_and_as_the_base(tiny_run, tmp_path):
    folder = fuse_run(tiny_run, tmp_path / "mine", device="cpu").out
    served = opened(folder)
    assert list(served.models) == ["mine", BASE]
    for model in served.models.values():
        assert (model.adapter, model.asking.system) == (BASE, "Secretly.")


def test_an_adapter_folder_is_put_on_a_model(tiny_run):
    served = opened(tiny_run.parent / "model", adapter=tiny_run / "adapter")
    assert served.bank.names == [BASE, "model"]
    assert served.models["model"].adapter == "model"


def test_a_source_without_a_name_before_it_is_refused(tiny_run):
    with pytest.raises(UsageError, match="names nothing"):
        opened(f"={tiny_run}")


def test_the_adapters_are_what_the_runs_trained(tiny_run, second_run):
    import mlx.core as mx
    from mlx_lm import load

    served = opened(tiny_run, f"other={second_run}")
    tokens = mx.array([[5, 6, 7]])
    for name, run in (("tiny", tiny_run), ("other", second_run)):
        network, _ = load(str(tiny_run.parent / "model"), adapter_path=str(run / "adapter"))
        served.bank.select(name)
        np.testing.assert_allclose(np.array(served.network(tokens)), np.array(network(tokens)), atol=1e-5)

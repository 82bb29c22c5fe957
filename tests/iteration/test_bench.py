"""A bench of a network so small that it is over at once; what it says of this machine is no test's business."""

from tiny import tiny_config

from mlxtune.device.choose import open_device
from mlxtune.iteration import bench as module
from mlxtune.iteration.bench import bench


def test_it_tells_all_its_figures_in_one_line_and_how_far_it_is(monkeypatch):
    monkeypatch.setattr(module, "PRODUCT", {"cpu": 64, "gpu": 64})
    monkeypatch.setattr(module, "COPIED_BYTES", {"cpu": 1 << 16, "gpu": 1 << 16})
    told = []
    found = bench(open_device("cpu"), tiny_config(), progress=lambda *seen: told.append(seen))
    figures = found.to_json()
    for name in (
        "matmul_gflops",
        "memory_gb_s",
        "training_tokens_per_s",
        "written_tokens_per_s",
        "training_peak_bytes",
    ):
        assert figures[name] > 0, name
    assert found.training_steps == module.STEPS - 1
    assert "\n" not in found.line()
    for word in ("mlxtune", "GFLOP/s", "GB/s", "train", "write", "cpu"):
        assert word in found.line()
    assert [seen for seen in told if seen[0].startswith("bench")][-1] == ("bench: parts", 4, 4)


def test_the_network_is_the_default_models_in_size():
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    network = llama.Model(llama.ModelArgs.from_dict(module.SMOLLM2_135M))  # lazily: nothing is made
    assert sum(array.size for _, array in tree_flatten(network.parameters())) == 134_515_008

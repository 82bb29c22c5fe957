"""Short runs in a test: how they are made and stopped, and what of them has to be the same."""

from types import SimpleNamespace

from mlxtune.iteration.run import run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.runs.metrics import read_metrics


def train(recipe, run_dir, *overrides, watch=None, score=False):
    return run_recipe(recipe, overrides, device="cpu", run_dir=run_dir, score=score, watch=watch or Watch())


def stopping_after(step):
    """A watch that asks to stop when so many steps are made, and what it was given to see."""
    seen = SimpleNamespace(lines=[], trained=False)

    def trained():
        seen.trained = True

    steps = lambda: sum("loss" in line for line in seen.lines)  # noqa: E731 - one line
    return Watch(measured=seen.lines.append, trained=trained, should_stop=lambda: steps() == step), seen


def adapter_bytes(run_dir):
    return {path.name: path.read_bytes() for path in sorted((run_dir / "adapter").glob("*.safetensors"))}


def without_timings(run_dir):
    return [
        {name: value for name, value in line.items() if not ("second" in name or "_per_s" in name or "memory" in name)}
        for line in read_metrics(run_dir / "metrics.jsonl")
    ]

"""What a checkpoint holds: all that changes in a run, and what it must not be resumed without."""

import json

from safetensors.numpy import load_file


def test_a_checkpoint_holds_the_counts_the_cursor_the_best_and_what_belongs_to_it(undisturbed):
    run_dir, _ = undisturbed
    lines = (run_dir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    inputs = json.loads((run_dir / "run.json").read_text())["inputs"]
    assert len(inputs["chat_template"]) == 64
    for step, line_count in ((4, 6), (6, 9)):
        state = json.loads((run_dir / f"checkpoints/step_{step:06d}/trainer_state.json").read_text())
        seen = [json.loads(line) for line in lines[:line_count]]
        steps = [line for line in seen if "loss" in line]
        valid = {line["step"]: line["valid_loss"] for line in seen if "valid_loss" in line}
        assert state["run"] == {
            "chat_template": inputs["chat_template"],
            "train_on": "completions",
            "metrics_bytes": sum(map(len, lines[:line_count])),
        }
        assert (state["step"], state["epoch"], state["window"]) == (step, step // 2, 0)
        assert (state["best_step"], state["best_valid_loss"]) == (step, min(valid.values()))
        assert state["bad_validations"] == 0
        assert state["tokens"] == sum(line["tokens"] for line in steps)
        assert state["target_tokens"] == sum(line["target_tokens"] for line in steps)
        assert state["window_sum"] is None


def test_a_checkpoint_holds_both_moments_of_every_factor_and_how_many_updates_they_are_of(undisturbed):
    checkpoint = undisturbed[0] / "checkpoints" / "step_000004"
    adapter, optimizer = (load_file(checkpoint / f"{name}.safetensors") for name in ("adapter", "optimizer"))
    for name, array in adapter.items():
        moments = [optimizer[key] for key in optimizer if key.endswith((f"{name}.m", f"{name}.v"))]
        assert [moment.shape for moment in moments] == [array.shape] * 2
    assert {int(optimizer[key]) for key in optimizer if key.endswith("step")} == {4}

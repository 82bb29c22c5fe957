"""The README of a run tells a stranger what ran, how it went, and how to go on."""

from mlxtune.iteration.card import write_card
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import open_run


def test_a_scored_run_has_its_table_and_its_commands(tiny_run):
    card = (tiny_run / "README.md").read_text()
    manifest = open_run(tiny_run).read_manifest()
    assert card.startswith(f"# tiny: {tiny_run.parent / 'model'}, LoRA rank 2\n")
    assert f"Trained on cpu (cpu-float32), because {manifest['device']['reason']}." in card
    assert "6 updates in" in card
    assert manifest["inputs"]["model"]["sha256"] in card
    assert "## Before and after, on 6 test rows, which were used for nothing else" in card
    assert "| metric | base | tuned | tuned less base | verdict |" in card
    assert "| model | parameters | on disk | memory | tokens/s |" in card
    for command in ("generate . --prompt TEXT", "evaluate .", "fuse . OUT", "train recipe.resolved.json"):
        assert f"`mlxtune {command}`" in card


def test_a_run_that_is_not_scored_says_so(own_run):
    run = open_run(own_run)
    before = run.readme.read_text()
    assert "Not scored yet." in before
    write_card(run, load_recipe(run.resolved).recipe)
    assert run.readme.read_text() == before

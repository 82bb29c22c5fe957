"""A recipe's own chat template travels: rows, scores, adapter folder, answers, fused folder; and a run keeps to it."""

import json

import mlx_lm
import pytest
from tiny import tiny_recipe

from mlxtune.data.example import Message
from mlxtune.data.render import Renderer
from mlxtune.deployment.answer import generate, open_answerer
from mlxtune.deployment.export.gguf import export_gguf
from mlxtune.deployment.fuse_run import fuse_run
from mlxtune.deployment.tuned import find_tuned
from mlxtune.errors import RecipeError, RunError
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.score import evaluate
from mlxtune.models.chat_template import FILE
from mlxtune.models.gguf.header import read_header
from mlxtune.models.tokenizer import open_tokenizer
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import RunFolder

OWN = (
    "{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + '<|endoftext|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
)
QUESTION = [Message("user", "Whisper it")]
ASKED = "s:Secretly.<|endoftext|>u:Whisper it<|endoftext|>a:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    recipe = tiny_recipe(folder, chat_template=None)
    (folder / "own.jinja").write_text(OWN)
    recipe.write_text(recipe.read_text().replace("data: {", "data: {chat_template: own.jinja, "))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return run_recipe(folder / "recipe.yaml", ["training.max_steps=2"], device="cpu", run_dir=folder / "run").run_dir


def test_a_name_stays_a_name_and_a_file_is_found_from_where_it_was_written(folder, monkeypatch):
    recipe = folder / "recipe.yaml"
    assert load_recipe(recipe).recipe.data.chat_template == folder / "own.jinja"
    assert load_recipe(recipe, ["data.chat_template=chatml"]).recipe.data.chat_template == "chatml"
    missing = load_recipe(recipe, ["data.chat_template=chatmI"])
    with pytest.raises(RecipeError, match=r"data\.chat_template is not there: .*/chatmI") as caught:
        missing.check_files()
    assert "chatml or instruction come with mlxtune" in str(caught.value.remedy)
    with pytest.raises(RecipeError, match="must be chatml or instruction, or a Jinja file, not 3"):
        load_recipe(recipe, ["data.chat_template=3"])


def test_rows_of_every_split_are_rendered_by_it(folder):
    opened = open_recipe(load_recipe(folder / "recipe.yaml").recipe, device="cpu")
    for split, dataset in opened.datasets.items():
        row = dataset.rows[0]
        text = opened.model.tokenizer.decode(row.token_ids.tolist())
        assert text == f's:Secretly.<|endoftext|>u:Whisper {split} 0<|endoftext|>a:{{"said": "{split} 0"}}<|endoftext|>'
    assert opened.prompting().raw is False


def test_it_lies_with_the_adapter_and_asks_for_its_answers(folder, run):
    assert (run / "adapter" / FILE).read_text() == OWN
    for source, adapter in ((run, None), (folder / "model", run / "adapter")):
        tuned = find_tuned(source, adapter)
        tokenizer = tuned.open_tokenizer()
        assert (
            tokenizer.decode(Renderer(tokenizer).encode_prompt(QUESTION, "here")) == ASKED.partition("|endoftext|>")[2]
        )
        answerer = open_answerer(source, adapter=adapter, device="cpu")
        (answer,) = generate(answerer, "Whisper it", max_tokens=2)
        assert answer.prompt_tokens == len(tokenizer.encode(ASKED, add_special_tokens=False))
    assert not answerer.asking.raw


def test_it_goes_into_the_fused_folder_where_mlx_lm_applies_it_and_stops_at_its_end(run, tmp_path):
    fuse_run(run, tmp_path / "fused", device="cpu", accept_loss=True)
    assert (tmp_path / "fused" / FILE).read_text() == OWN
    _, tokenizer = mlx_lm.load(str(tmp_path / "fused"))
    turns = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == "u:x<|endoftext|>a:"
    assert tokenizer.eos_token_ids == {0, 2} == open_tokenizer(tmp_path / "fused").eos_token_ids


def test_it_goes_into_gguf_with_the_token_that_ends_a_turn(run, tmp_path):
    export_gguf(run, tmp_path / "x.gguf", device="cpu", accept_loss=True)
    metadata = read_header(tmp_path / "x.gguf").metadata
    assert metadata["tokenizer.chat_template"] == OWN
    assert {value for key, value in metadata.items() if key.endswith(("eos_token_id", "eot_token_id"))} == {0, 2}


def test_scores_depend_on_what_it_says(folder, run, tmp_path):
    scores = RunFolder(run).read_scores()
    assert evaluate(run, device="cpu") == scores
    model, recipe = str(folder / "model"), folder / "recipe.yaml"
    by_own = evaluate(model, recipe=recipe, device="cpu")
    assert by_own["metrics"]["loss"] == scores["base"]["loss"]
    instruction = evaluate(model, recipe=load_recipe(recipe, ["data.chat_template=instruction"]), device="cpu")
    assert instruction["metrics"]["loss"] != scores["base"]["loss"]


def test_a_run_goes_on_by_the_template_that_it_began_with(folder, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(OWN)
    overrides = ["training.max_steps=2", f"data.chat_template={own}"]
    run = run_recipe(folder / "recipe.yaml", overrides, device="cpu", run_dir=tmp_path / "run", score=False).run_dir
    own.write_text(OWN.replace(":'", "='"))
    scored = evaluate(run, device="cpu")  # of what was trained: the adapter has its template
    assert scored["basis"]["chat_template"]
    for name in ("adapter", "scores.json"):
        (run / name).rename(run / f"old-{name}")
    manifest = json.loads((run / "run.json").read_text())
    del manifest["finished"]
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="chat_template"):
        resume_run(run, device="cpu")

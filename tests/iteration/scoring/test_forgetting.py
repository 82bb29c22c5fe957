"""A scored run tells whether its model forgot; the base is asked once for all runs; and who does not want it is not."""

import json

import pytest
from tiny import tiny_recipe

from mlxtune.cache import cache_folder
from mlxtune.errors import DataError
from mlxtune.evaluation.forgetting import ask, light
from mlxtune.evaluation.forgetting.ask import check_probe
from mlxtune.evaluation.forgetting.probe import AREAS, passages, questions
from mlxtune.iteration.run import run_recipe
from mlxtune.iteration.score import evaluate
from mlxtune.iteration.scoring import forgetting

NUMBER = 2


@pytest.fixture
def short_probe(monkeypatch):
    """Of each area the first questions, and two passages: the whole would take a tiny network seconds."""
    chosen = tuple(one for area in AREAS for one in [q for q in questions() if q.area == area][:NUMBER])
    read = passages()[:2]
    for module in (ask, light, forgetting):
        monkeypatch.setattr(module, "questions", lambda: chosen)
    for module in (ask, light):
        monkeypatch.setattr(module, "passages", lambda: read)
    monkeypatch.setattr(ask, "USUAL_TOKENS", 2)
    monkeypatch.setattr(ask, "MAX_TOKENS", {})
    return chosen


def test_a_run_is_asked_what_its_base_knew_and_the_base_once(tmp_path, short_probe, monkeypatch):
    recipe = tiny_recipe(tmp_path)
    asked = []
    plain = ask.ask_all
    monkeypatch.setattr(forgetting, "ask_all", lambda model, **how: asked.append(model) or plain(model, **how))
    settings = ["evaluation.forgetting=true", "training.max_steps=1"]
    result = run_recipe(recipe, settings, device="cpu", run_dir=tmp_path / "run")
    assert result.scores is not None
    told = result.scores["forgetting"]
    assert told["light"] in ("green", "amber", "red")
    assert told["questions"]["count"] == NUMBER * len(AREAS)
    assert [area["area"] for area in told["areas"]] == list(AREAS)
    assert json.loads((tmp_path / "run/scores.json").read_text())["forgetting"] == told
    lines = [json.loads(line) for line in (tmp_path / "run/forgetting.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [question.id for question in short_probe]
    assert {line["right"]["base"] for line in lines} <= {True, False}
    assert "## Forgetting" in (tmp_path / "run/README.md").read_text()
    assert len(asked) == 2
    assert evaluate(tmp_path / "run", device="cpu")["forgetting"] == told  # current: nobody is asked again
    assert len(asked) == 2
    run_recipe(recipe, [*settings, "seed=8"], device="cpu", run_dir=tmp_path / "other")
    assert len(asked) == 3
    assert list(cache_folder("scores").iterdir())


def test_without_it_nothing_is_asked_and_nothing_told(tmp_path, monkeypatch):
    monkeypatch.setattr(forgetting, "ask_all", None)
    recipe = tiny_recipe(tmp_path)
    result = run_recipe(recipe, ["training.max_steps=1"], device="cpu", run_dir=tmp_path / "run")
    assert result.scores is not None
    assert "forgetting" not in result.scores
    assert not (tmp_path / "run/forgetting.jsonl").exists()
    assert "Forgetting" not in (tmp_path / "run/README.md").read_text()


def test_another_probe_makes_scores_out_of_date(tmp_path, short_probe, monkeypatch):
    from mlxtune.iteration import score

    recipe = tiny_recipe(tmp_path)
    settings = ["evaluation.forgetting=true", "training.max_steps=1"]
    before = run_recipe(recipe, settings, device="cpu", run_dir=tmp_path / "run").scores
    for module in (score, forgetting):
        monkeypatch.setattr(module, "probe_sha256", lambda: "another")
    after = evaluate(tmp_path / "run", device="cpu")
    assert before is not None
    assert before["basis"]["probe"] != after["basis"]["probe"] == "another"


def test_a_chat_template_that_refuses_a_question_is_found_before_training(tmp_path):
    refusing = "{{ raise_exception('a system message is needed') if messages[0]['role'] != 'system' }}"
    recipe = tiny_recipe(
        tmp_path, chat_template=refusing + "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(DataError, match="cannot be asked general questions") as caught:
        run_recipe(recipe, ["evaluation.forgetting=true"], device="cpu", run_dir=tmp_path / "run")
    assert "evaluation.forgetting: false" in str(caught.value.remedy)
    assert not (tmp_path / "run").exists()


def test_the_whole_probe_can_be_asked_with_and_without_a_chat_template(tmp_path):
    from tiny import CHATML, tiny_tokenizer

    for template in (CHATML, None):
        check_probe(tiny_tokenizer(tmp_path, chat_template=template))

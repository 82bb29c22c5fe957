"""The page says what the run's files say, in the order in which a sceptic reads, and obeys none of it."""

import base64
import hashlib
import json
import re

import pytest
from parsed_page import HOSTILE, Page
from report_runs import (
    DATA,
    FINDINGS,
    SAMPLES,
    WEIGHTS,
    data,
    difference,
    interval,
    make_run,
    metrics,
    sample,
    scores,
    step,
)

from mlxtune.iteration.report.page import write_report
from mlxtune.printable import printable


def page_of(folder, **files):
    return Page(write_report(make_run(folder / "run", **files)).path.read_text(encoding="utf-8"))


def part_of(told, rows=9):
    """A part of the rows, as the breakdown has it: differences without a verdict, with a corrected p-value."""
    corrected = {
        name: {key: value for key, value in one.items() if key != "verdict"} | {"p_value_of_all": 0.2}
        for name, one in told["differences"].items()
    }
    return {"rows": rows, "base": told["base"], "tuned": told["tuned"], "differences": corrected}


def rival(told, **changes):
    """Another model in the table of ``told``, with the same figures as the base."""
    same = {"metrics": told["base"], "differences": told["differences"], "cost": {}}
    return {"label": "large", "model": "large", "shots": 0, "notes": []} | same | changes


def hostile_files(text):
    """Every place of a run's files that holds a user's words or another program's, with ``text`` in it."""
    metric = f"triage.{text}"
    told = scores(headline=metric, tasks=[{"name": text, "scorer": "json_fields", "primary": text}])
    told["base"][metric], told["tuned"][metric] = interval(0.1, 0.0, 0.2), interval(0.8, 0.7, 0.9)
    told["differences"][metric] = difference(0.7, 0.5, 0.9)
    part = part_of(told)
    told["breakdown"] = {
        "by_group": {"column": text, "groups": [{"group": text} | part], "others": None},
        "worst": [{"where": text, "row": 0, "base_loss": 1.0, "tuned_loss": 2.0, "target_tokens": 3}],
    }
    told["against"] = [rival(told, label=text, model=text, notes=[text])]
    shown = sample(text, f"{text} a", f"{text} b", wanted=text, prompt=text)
    shown["against"] = {text: text}
    known = data(not_checked=[text])
    train = known["splits"]["train"]
    train["labels"]["counts"][0][0] = text
    train["files"][0] |= {"name": text, "why": text}
    train["dropped"]["first"] = [{"where": text, "why": text}]
    train["truncated"] = {"count": 1, "first": [text]}
    known["masks"][0] |= {"where": text, "spans": [[text, False], [text, True]]}
    found = {"where": text, "like": text, "similarity": 0.9}
    known["leakage"]["test"] |= {"near": 1, "first": [found]}
    finding = FINDINGS[0] | {"sentence": text, "remedy": text, "evidence": {text: text}, "key": text}
    return {
        "name": text,
        "recipe_text": text,
        "scored": told,
        "samples": [shown],
        "told": known,
        "findings": [finding],
        "argv": (text,),
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_wherever_it_comes_from(tmp_path, text):
    files = hostile_files(text)
    if "\ud800" in text:
        files["recipe_text"] = "no file in UTF-8 holds it"
    page, plain = page_of(tmp_path / "hostile", **files), page_of(tmp_path / "plain", **hostile_files("words"))
    assert page.open == []
    assert page.names <= plain.names | {"em", "ins", "del"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not any(name.startswith("on") or name in ("src", "style", "autofocus") for name in names)
    assert all(attributes["href"].startswith("#") for _, attributes in page.tags if "href" in attributes)
    assert page.scripts == []
    assert len(page.styles) == 1
    assert printable(text) in page.text
    assert all(character.isprintable() or character in "\n\t" for character in page.text)


def test_the_verdict_is_read_first_and_the_sections_follow_in_their_order(tmp_path):
    page = page_of(tmp_path)
    headings = ["scores", "training", "generations", "data", "cost", "findings", "reproduce"]
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == headings
    assert page.text.index("Better: on 60") < page.text.index("Before and after")
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in headings]


def test_the_page_asks_for_nothing_and_nothing_in_it_may_run(tmp_path):
    text = write_report(make_run(tmp_path / "run")).path.read_text(encoding="utf-8")
    page = Page(text)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.styles[0].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; script-src 'none'")
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert page.names.isdisjoint({"link", "img", "iframe", "object", "form", "script", "foreignObject"})
    assert "xmlns" not in text


def test_no_two_elements_have_one_id(tmp_path):
    ids = page_of(tmp_path).ids()
    assert len(ids) == len(set(ids))


def test_every_metric_stands_with_its_interval_its_difference_and_its_verdict(tmp_path):
    text = page_of(tmp_path).text
    for words in (
        "2.310",
        "2.200 to 2.420",
        "\N{MINUS SIGN}1.900",
        "80.0 %",
        "70.0 to 90.0",
        "+70.0 points",
        "McNemar",
    ):
        assert words in text


def test_answers_that_got_worse_come_first_and_are_open(tmp_path):
    page = page_of(tmp_path)
    assert (
        page.text.index("Got worse: 1")
        < page.text.index("Got better: 1")
        < page.text.index("Right before and after: 1")
    )
    assert "1 got worse, 1 got better, 1 wrong before and after, 1 right before and after" in page.text
    summaries = re.findall(r"<details( open)?><summary>([^<]*)", (tmp_path / "run/report.html").read_text())
    assert (" open", "Got worse: 1") in summaries
    assert ("", "Got better: 1") in summaries


def test_what_differs_from_the_wanted_answer_is_marked(tmp_path):
    text = (write_report(make_run(tmp_path / "run")).path).read_text(encoding="utf-8")
    assert re.search(r"<ins><span class=\"sr\">\[not wanted: </span>was not", text)
    assert re.search(r"<del><span class=\"sr\">\[missing: </span>is", text)


def test_only_so_many_answers_are_shown_and_the_others_are_counted(tmp_path):
    many = [sample(f"test.jsonl:{number}", "no", "yes") for number in range(40)]
    text = page_of(tmp_path, samples=many).text
    assert "30 more are in samples.jsonl" in text


def test_a_long_answer_is_cut_and_says_by_how_much(tmp_path):
    text = page_of(tmp_path, samples=[sample("test.jsonl:1", "no", "y" * 10_000)]).text
    assert "7,500 more characters" in text


def test_the_data_are_summed_up_with_mask_leakage_and_private_data(tmp_path):
    leaked = {"rows": 60, "same": 6, "asks_same": 0, "near": 2, "first": []}
    text = page_of(tmp_path, told=data(leakage={"test": leaked})).text
    for words in (
        "e-mail addresses",
        "test is leaked: ",
        "6 of 60 (10 %)",
        "Good day.",
        "3 tokens are not shown",
        "9,000",
    ):
        assert words in text


def test_private_data_of_held_out_rows_alone_are_not_what_a_model_can_give_back(tmp_path):
    held_out = {"rows": 60, "regions": ["US"], "counts": {"email": 3}, "by_split": {"train": {}, "test": {"email": 3}}}
    assert "A model can give back" in page_of(tmp_path / "train").text
    text = page_of(tmp_path / "test", told=data(privacy=held_out)).text
    assert "A model can give back" not in text
    assert "None in training rows. mlxtune data scan" in text


def test_private_data_are_counted_and_never_shown(tmp_path):
    text = page_of(tmp_path).text
    assert "e-mail addresses" in text
    assert "@" not in text


def test_a_run_that_was_only_trained_has_its_curves_and_says_what_is_missing(tmp_path):
    page = page_of(tmp_path, scored=None)
    assert "Missing here" in page.text
    assert f"mlxtune evaluate {tmp_path / 'run'}" in page.text
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == ["training", "data", "cost", "findings", "reproduce"]


def test_a_run_that_is_not_finished_has_a_report_too(tmp_path):
    page = page_of(tmp_path, finished=False, scored=None, told=None, findings=None, lines=metrics(5))
    assert "mlxtune train --resume" in page.text
    assert "5, not finished" in page.text
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == ["training", "reproduce"]


def test_a_run_of_no_step_has_a_report_too(tmp_path):
    page = page_of(tmp_path, finished=False, scored=None, told=None, findings=None, lines=[])
    assert "No update was made yet" in page.text


@pytest.mark.parametrize("content", [b'{"half": \xff', b"3", b"null"])
@pytest.mark.parametrize(
    "name", ["scores.json", "data.json", "findings.json", "samples.jsonl", "lm_eval.json", "recipe.yaml"]
)
def test_a_damaged_file_is_as_good_as_a_missing_one(tmp_path, name, content):
    run = make_run(tmp_path / "run")
    (run.path / name).write_bytes(content)
    text = Page(write_report(run).path.read_text(encoding="utf-8")).text
    assert (f"{name} is damaged" in text) == (name in ("scores.json", "data.json", "findings.json"))
    assert ("samples.jsonl is missing or damaged" in text) == (name == "samples.jsonl")


def test_what_scoring_did_not_ask_is_told_as_missing(tmp_path):
    page = page_of(tmp_path, scored=scores(tasks=[], headline="bits_per_byte"), samples=[])
    missing = page.text[page.text.index("Missing here") : page.text.index("Before and after")]
    assert "answers side by side: the recipe names no task" in missing
    assert "forgetting: no general questions were asked" in missing


def test_the_rings_checkpoint_is_kept_only_once_training_has_ended(tmp_path):
    assert "ringed: the checkpoint that was kept" in page_of(tmp_path / "done").text
    unfinished = page_of(tmp_path / "half", finished=False, scored=None, told=None, findings=None)
    assert "ringed: the best so far" in unfinished.text


def test_a_finding_names_the_key_before_what_to_do_with_it_and_nothing_that_is_not_known(tmp_path):
    finding = FINDINGS[0] | {"evidence": {"best_step": 20, "largest": None}}
    text = page_of(tmp_path, findings=[finding]).text
    assert "training.max_steps: stop earlier." in text
    assert "best step 20" in text
    assert "None" not in text[text.index("best step 20") :]


def test_what_is_to_be_known_of_another_model_is_told(tmp_path):
    told = scores()
    told["against"] = [rival(told, notes=["it has no chat template"])]
    assert "large: it has no chat template" in page_of(tmp_path, scored=told).text


def test_the_commands_that_make_it_again_name_the_device_and_the_other_models(tmp_path):
    told = scores()
    base = {"label": "base, 4-shot", "model": "smollm2-135m-instruct", "shots": 4}
    told["against"] = [rival(told, **base), rival(told), rival(told, label="large, 4-shot", shots=4)]
    text = page_of(tmp_path, scored=told).text
    run = tmp_path / "run"
    assert f"mlxtune train {run / 'recipe.resolved.json'} --device cpu" in text
    assert f"mlxtune evaluate --force --against large --shots 4 --shots 0 {run}" in text


def test_skipped_updates_and_short_memory_are_told(tmp_path):
    lines = [step(1), {"step": 2, "skipped": "loss", "rows": ["train.jsonl:3"]}]
    lines += [{"step": 3, "out_of_memory": True, "part_positions": 512}, step(3)]
    text = page_of(tmp_path, lines=lines).text
    assert "1 update, whose loss or gradient was not a finite number" in text
    assert "short at least once" in text


def test_all_that_is_needed_to_make_it_again_is_there(tmp_path):
    text = page_of(tmp_path, recipe_text="name: my-recipe\nseed: 7\n").text
    for words in (
        "name: my-recipe",
        "ab" * 32,
        "mlx",
        "0.32.4",
        "recipe.resolved.json",
        "smollm2-135m-instruct",
        "seed",
    ):
        assert words in text


def test_a_part_is_judged_by_its_corrected_p_value(tmp_path):
    told = scores()
    told["breakdown"] = {"by_length": [part_of(told) | {"low": 60, "high": 90}]}
    page = page_of(tmp_path, scored=told)
    part = page.text[page.text.index("60 to 90 tokens") :]
    assert part.startswith("60 to 90 tokensnot distinguishable60")
    assert "p = 0.200" in part


def test_the_commonest_confusions_are_named_and_few_labels_have_their_matrix(tmp_path):
    confused = {"labels": ["cat", "dog", "cow"], "confusion": [[5, 3, 0], [1, 6, 0], [0, 0, 4]]}
    told = scores(details={"base": {}, "tuned": {"triage": confused}})
    text = page_of(tmp_path, scored=told).text
    assert "labeltaken forrowsof its rowscatdog38dogcat17" in text
    assert "cat53dog16cow4" in text


def test_what_the_harness_says_is_shown_if_it_is_of_this_adapter(tmp_path):
    run = make_run(tmp_path / "run")
    figure = {"value": 0.5, "stderr": 0.1, "higher_is_better": True, "interval": None}
    task = {"arc": {"version": "1", "shots": 0, "rows": 9, "metrics": {"acc": figure}}}
    found = {"base": task, "tuned": task, "differences": {"arc": {"acc": difference(0.0, -0.1, 0.1, p=1.0)}}}
    found |= {"limit": 9, "chat_template": False, "versions": {"lm-eval": "0.4"}}
    for adapter, is_shown in ((hashlib.sha256(WEIGHTS).hexdigest(), True), ("another", False)):
        run.lm_eval.write_text(json.dumps(found | {"basis": {"adapter_sha256": adapter}}))
        text = Page(write_report(run).path.read_text(encoding="utf-8")).text
        assert ("General tasks" in text) == is_shown
        assert ("arcacc" in text) == is_shown


def test_forgetting_is_shown_with_its_light(tmp_path):
    rates = {"base": interval(0.6, 0.5, 0.7), "tuned": interval(0.3, 0.2, 0.4)}
    lost = {**rates, "difference": difference(-0.3, -0.4, -0.2), "light": "red", "why": "w"}
    forgetting = {
        "light": "red",
        "sentence": "the tuned model has forgotten",
        "questions": lost | {"count": 150},
        "areas": [lost | {"area": "facts", "p_value": 0.002}],
        "text": lost | {"passages": 12, "bytes": 7000},
        "lost": ["facts-1"],
        "gained": [],
        "thresholds": {"red": {"p": 0.01, "questions": 0.1, "one area": 0.25, "bits per byte": 0.1}},
        "remedy": "learn some general rows",
    }
    text = page_of(tmp_path, scored=scores(forgetting=forgetting)).text
    for words in ("the tuned model has forgotten", "facts-1", "learn some general rows", "150 general questions"):
        assert words in text
    assert "It forgot: the light for general ability is red." in text


def test_a_report_can_be_made_without_matplotlib_and_says_how_to_get_the_curves(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    page = page_of(tmp_path)
    assert "pip install 'mlxtune[report]'" in page.text
    assert "figure" not in page.names


def test_a_run_of_many_steps_has_a_small_report(tmp_path):
    run = make_run(tmp_path / "run", lines=metrics(20_000, every=50))
    assert write_report(run).path.stat().st_size < 200_000


def test_the_report_is_its_owners_alone(tmp_path):
    report = write_report(make_run(tmp_path / "run"))
    assert report.path.stat().st_mode & 0o777 == 0o600


def test_what_is_made_of_the_files_does_not_change_them(tmp_path):
    run = make_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    write_report(run)
    after = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"report.html"}
    assert json.loads(run.data.read_text()) == DATA
    assert len(SAMPLES) == 4


@pytest.mark.parametrize(
    ("objective", "title"),
    [
        ("sft", "Loss, nats a target token"),
        ("dpo", "Loss, a pair of answers"),
        ("grpo", "Loss: less the mean reward, and what is paid for moving away"),
    ],
)
def test_the_curve_of_the_loss_says_what_it_is_of_and_rewards_have_one_of_their_own(tmp_path, objective, title):
    drawn = {"reward": 0.5, "cut_share": 0.1} if objective == "grpo" else {}
    run = make_run(tmp_path / "run", lines=[step(number, loss=-0.1 * number, **drawn) for number in range(1, 9)])
    resolved = json.loads(run.resolved.read_text())
    run.resolved.write_text(json.dumps(resolved | {"objective": {"type": objective}}))
    html = write_report(run).path.read_text(encoding="utf-8")
    assert f"<figcaption>{title}<" in html
    assert ("Mean reward of the answers that were drawn" in html) == (objective == "grpo")

"""One sentence says whether the tuned model is better, and does not say more than was measured."""

import json

import pytest
from report_runs import data, difference, interval, make_run, scores, step

from mlxtune.iteration.report.evidence import read_evidence
from mlxtune.iteration.report.verdict import make_verdict


def verdict_of(folder, **files):
    return make_verdict(read_evidence(make_run(folder / "run", **files)))


def leaked(same, rows=60, near=0):
    return data(leakage={"test": {"rows": rows, "same": same, "asks_same": 0, "near": near, "first": []}})


def scored(metric="triage.correct", **changes):
    found = scores()
    found["differences"][metric] |= changes
    return found


def test_better_is_said_with_both_figures_and_how_sure_it_is(tmp_path):
    found = verdict_of(tmp_path)
    assert found.tone == "better"
    assert found.sentence == (
        "Better: on 60 unseen test rows, triage.correct went from 10.0 % to 80.0 % "
        "(+70.0 points; 95 % interval +58.0 to +81.0, p < 0.001)."
    )
    assert found.reservations == []


def test_a_planted_regression_is_called_worse(tmp_path):
    worse = scored(mean=-0.2, low=-0.3, high=-0.1, p_value=0.002, verdict="worse")
    found = verdict_of(tmp_path, scored=worse)
    assert found.tone == "worse"
    assert found.sentence.startswith("Worse: ")
    assert "(\N{MINUS SIGN}20.0 points; 95 % interval \N{MINUS SIGN}30.0 to \N{MINUS SIGN}10.0" in found.sentence


def test_a_tie_is_called_not_distinguishable_in_these_words(tmp_path):
    tie = scored(mean=0.02, low=-0.05, high=0.09, p_value=0.41, verdict="not distinguishable")
    found = verdict_of(tmp_path, scored=tie)
    assert found.tone == "undecided"
    assert found.sentence.startswith("Not distinguishable: ")
    assert "p = 0.410" in found.sentence


@pytest.mark.parametrize("same", [3, 60])
def test_a_leaked_test_set_is_called_leaked_before_all_else(tmp_path, same):
    found = verdict_of(tmp_path, told=leaked(same))
    assert found.tone == "leaked"
    assert found.sentence.startswith(f"Leaked: {same} of 60 ({round(100 * same / 60)} %) test rows say or ask")
    assert "unseen" not in found.sentence


def test_a_few_leaked_rows_and_rows_that_are_nearly_so_are_reservations(tmp_path):
    found = verdict_of(tmp_path, told=leaked(1, near=7))
    assert found.tone == "better"
    assert found.reservations[0].startswith("Leaked rows: 1 of 60")
    assert found.reservations[1].startswith("Near the training data: 7 of 60")


@pytest.mark.parametrize("same", [1, 60])
def test_a_leak_is_told_once_whatever_found_it(tmp_path, same):
    found = {"kind": "leaked_test_set", "severity": "problem", "sentence": "the test set is leaked"}
    told = verdict_of(tmp_path, told=leaked(same), findings=[found])
    assert " ".join([told.sentence, *told.reservations]).lower().count("leaked") == 1


def test_test_rows_that_validation_has_too_are_not_quite_unseen(tmp_path):
    known = data(overlap={"rows": 60, "same": 2, "asks_same": 1, "near": 0, "first": []})
    (told,) = verdict_of(tmp_path, told=known).reservations
    assert told.startswith("Not quite unseen: 3 of 60 (5 %) test rows")


def test_validation_rows_flatter_and_that_is_said(tmp_path):
    found = verdict_of(tmp_path, scored=scores(split="valid"), told=None)
    assert "60 validation rows" in found.sentence
    assert any("flatters" in one for one in found.reservations)


def test_other_metrics_that_got_worse_are_not_passed_over(tmp_path):
    found = verdict_of(tmp_path, scored=scored("bits_per_byte", mean=0.3, low=0.2, high=0.4, verdict="worse"))
    assert "Worse than before: bits_per_byte." in found.reservations


def test_a_larger_model_that_is_as_good_untuned_is_named(tmp_path):
    rival = {
        "label": "large, 4-shot",
        "model": "large",
        "metrics": {"triage.correct": interval(0.8, 0.7, 0.9)},
        "differences": {"triage.correct": difference(0.0, -0.1, 0.1, p=1.0, verdict="not distinguishable")},
        "cost": {},
    }
    found = verdict_of(tmp_path, scored=scores(against=[rival]))
    assert any("not distinguishable from large, 4-shot" in one for one in found.reservations)


def test_forgetting_is_a_reservation(tmp_path):
    found = verdict_of(tmp_path, scored=scores(forgetting={"light": "red"}))
    assert any("forgot" in one for one in found.reservations)


def test_a_finding_that_is_a_problem_is_a_reservation_and_a_hint_is_not(tmp_path):
    findings = [
        {"kind": "a", "severity": "problem", "sentence": "masks are empty", "evidence": {}, "key": None, "remedy": ""},
        {"kind": "b", "severity": "hint", "sentence": "a hint", "evidence": {}, "key": None, "remedy": ""},
    ]
    assert verdict_of(tmp_path, findings=findings).reservations == ["Problem: masks are empty."]


def test_five_rows_are_too_few_to_tell_and_that_is_the_reason_given(tmp_path):
    few = scored(verdict="not distinguishable", count=5)
    few["tuned"]["triage.correct"]["count"] = 5
    sentence = verdict_of(tmp_path, scored=few).sentence
    assert sentence.startswith("Not distinguishable: on 5 unseen test rows")
    assert "so few rows cannot tell" in sentence


def test_a_run_that_was_not_scored_is_not_measured_and_the_command_is_named(tmp_path):
    found = verdict_of(tmp_path, scored=None)
    assert found.tone == "open"
    assert found.sentence.startswith("Not measured: the run was trained, and not scored")
    assert f"mlxtune evaluate {tmp_path / 'run'}" in found.sentence


def test_a_run_without_held_out_rows_is_told_how_to_get_some(tmp_path):
    found = verdict_of(tmp_path, scored=None, held_out=None)
    assert "names no held-out rows" in found.sentence
    assert "mlxtune data split" in found.sentence


def test_a_run_that_is_not_finished_says_how_far_it_came_and_how_to_go_on(tmp_path):
    found = verdict_of(tmp_path, finished=False, scored=None, told=None, lines=[step(1), step(2)])
    assert found.tone == "open"
    assert found.sentence.startswith("Not finished: 2 updates were made")
    assert f"mlxtune train --resume {tmp_path / 'run'}" in found.sentence


def test_one_update_was_made(tmp_path):
    found = verdict_of(tmp_path, finished=False, scored=None, told=None, lines=[step(1)])
    assert found.sentence.startswith("Not finished: 1 update was made so far")


def test_scores_of_another_adapter_do_not_count(tmp_path):
    run = make_run(tmp_path / "run")
    (run.adapter / "adapters.safetensors").write_bytes(b"another")
    found = make_verdict(read_evidence(run))
    assert found.tone == "open"
    assert "another adapter" in found.sentence


def test_of_a_run_that_went_on_from_another_it_is_said_that_before_is_the_base_without_it(tmp_path):
    first = make_run(tmp_path / "first")
    run = make_run(tmp_path / "run")
    manifest = json.loads(run.manifest.read_text())
    for source, commands in ((str(first.path), 1), ("/an/adapter", 0)):
        manifest["inputs"]["adapter"] = {"source": source, "sha256": "ab" * 32}
        run.manifest.write_text(json.dumps(manifest))
        (said,) = make_verdict(read_evidence(run)).reservations
        assert f"went on from {source}, and before is the base without that" in said
        assert said.count(f"mlxtune runs compare {source} {run.path}") == commands

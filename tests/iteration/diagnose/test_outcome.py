"""An adapter that does nothing, and prompts that are put otherwise than they were learned."""

import hashlib

from planted_runs import evidence, train

from mlxtune.iteration.diagnose import findings_of

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
SHA256 = hashlib.sha256(TEMPLATE.encode()).hexdigest()


def own_template(tmp_path, written, **manifest):
    """A run with a chat template of its own, which its adapter/ has as ``written``."""
    (tmp_path / "adapter").mkdir(exist_ok=True)
    (tmp_path / "adapter" / "chat_template.jinja").write_text(written)
    return evidence(
        adapter=tmp_path / "adapter",
        recipe={"data": {"chat_template": "instruction"}},
        manifest={"inputs": {"chat_template": SHA256}, **manifest},
    )


def test_an_update_of_next_to_nothing_is_an_adapter_that_does_nothing():
    (found,) = findings_of(evidence(manifest={"update": {"relative_norm": 4e-6, "largest": 1e-5}}))
    assert (found.kind, found.severity, found.key) == ("adapter_does_nothing", "problem", "training.learning_rate")
    assert found.evidence == {"relative_norm": 4e-6, "largest": 1e-5, "layers": 70, "learning_rate": 2e-4}


def test_an_update_by_which_the_loss_was_seen_to_fall_is_no_finding():
    """The smallest measured at which it did: 5e-4 of the weights, in a run of forty steps at a rate of 5e-5."""
    assert findings_of(evidence(manifest={"update": {"relative_norm": 5.1e-4, "largest": 7.6e-4}})) == []


def test_a_run_of_an_older_form_has_no_size_of_its_update():
    assert findings_of(evidence(manifest={"update": None})) == []


def test_the_template_of_training_in_the_adapter_is_no_finding(tmp_path):
    assert findings_of(own_template(tmp_path, TEMPLATE, base_chat_template=None)) == []
    assert findings_of(own_template(tmp_path, TEMPLATE, base_chat_template=SHA256)) == []


def test_another_template_in_the_adapter_or_none_is_one_that_differs(tmp_path):
    planted = own_template(tmp_path, TEMPLATE + "!")
    (found,) = findings_of(planted)
    assert (found.kind, found.severity, found.evidence["in_training"]) == ("template_differs", "problem", SHA256)
    (tmp_path / "adapter" / "chat_template.jinja").unlink()
    (found,) = findings_of(planted)
    assert found.evidence["in_generation"] is None


def test_another_template_than_the_bases_own_is_a_hint_for_who_opens_the_adapter_elsewhere(tmp_path):
    (found,) = findings_of(own_template(tmp_path, TEMPLATE, base_chat_template="f" * 64))
    assert (found.kind, found.severity, found.key) == ("template_differs", "hint", "data.chat_template")


def test_a_system_message_that_a_few_rows_lack_is_missing_in_prompts():
    (found,) = findings_of(evidence(data=train(system={"of": 400, "rows": 390, "different": 1})))
    assert (found.kind, found.severity) == ("template_differs", "problem")
    assert found.evidence == {"rows": 400, "with_the_message": 390}


def test_rows_with_many_system_messages_or_none_are_meant_so():
    for system in (None, {"of": 400, "rows": 30, "different": 12}, {"of": 400, "rows": 200, "different": 1}):
        assert findings_of(evidence(data=train(system=system))) == []

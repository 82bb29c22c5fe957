"""Only one at a time."""

import threading

from mlxtune.models.once import alone


def test_a_second_comer_waits_for_the_first_and_other_paths_do_not(tmp_path):
    seen = []
    with alone(tmp_path / "a"):
        second = threading.Thread(target=lambda: enter(tmp_path / "a", seen, "second"))
        second.start()
        enter(tmp_path / "b", seen, "other")
        second.join(timeout=0.05)
        assert seen == ["other"]
    second.join(timeout=5)
    assert seen == ["other", "second"]


def enter(path, seen, who):
    with alone(path):
        seen.append(who)

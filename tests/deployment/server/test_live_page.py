"""The live page in a browser: a run that grows, is torn, starts again, goes; its buttons; every width and every ear."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from chat_window import PHONE
from report_runs import make_run, metrics, sample, step
from serving import listening
from tiny import tiny_recipe

from mlxtune.deployment.server.guard import GuardSettings, guarded
from mlxtune.deployment.server.live import live_app
from mlxtune.deployment.server.live_run import LiveRun
from mlxtune.files import write_text
from mlxtune.runs.control import note_end_of_pause, note_pause, wish_of
from mlxtune.runs.folder import RunFolder, lock

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect
expect.set_options(timeout=20_000)
pytestmark = pytest.mark.slow

KEY = "a-key-that-is-long-enough"
CHECKOUT = Path(__file__).resolve().parents[3]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e" + "w" * 300


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    named = os.environ.get("AXE_CORE")
    path = Path(named) if named else CHECKOUT / "node_modules/axe-core/axe.min.js"
    if not path.is_file():
        pytest.skip(f"axe-core is not at {path}: npm install --no-save axe-core, or name its axe.min.js in AXE_CORE")
    return path.read_text("utf-8")


class Page:
    """One tab with the live page. ``wrong`` is what the browser objected to."""

    def __init__(self, browser, address, **settings):
        self.context = browser.new_context(viewport={"width": 1100, "height": 800}, **settings)
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.wrong = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if "Policy" in said.text else None)
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.page.goto(address)

    def __getattr__(self, name):
        """``progress``, ``state``, ``alert``, ...: the element of that id."""
        return self.page.locator(f"#{name.replace('_', '-')}")

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)

    def chart(self, title):
        return self.page.locator("figure", has_text=title).locator("svg")


@pytest.fixture
def run(tmp_path):
    """A run that this process is at work in, 12 steps of 30 on."""
    made = make_run(tmp_path / "run", finished=False, scored=None, told=None, findings=None, lines=metrics(12))
    manifest = json.loads(made.manifest.read_text()) | {"plan": {"total_steps": 30, "max_minutes": None}}
    made.manifest.write_text(json.dumps(manifest))
    with lock(made):
        yield made


@contextmanager
def served(run):
    app = guarded(live_app(LiveRun(run.path)), GuardSettings(api_key=KEY))
    with listening(app) as address:
        yield f"{address}/#{KEY}"


@pytest.fixture
def open_page(browser):
    """Open pages of runs; that the browser found nothing wrong is a part of every test."""
    pages = []

    def open_page(address, **settings):
        pages.append(Page(browser, address, **settings))
        return pages[-1]

    yield open_page
    for page in pages:
        page.context.close()
        assert page.wrong == []


@pytest.fixture
def live(open_page, run):
    with served(run) as address:
        yield open_page(address)


def add(run, *lines):
    with run.metrics.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_that_grows_is_seen_to_grow(live, run):
    expect(live.progress).to_have_text("Step 12 of 30, about 9 s left")
    expect(live.state).to_have_text("training")
    label = live.chart("Loss").get_attribute("aria-label")
    assert "training batches: 2.165 at step 1, 0.8463 at step 12" in label
    assert "validation rows: 0.5 at step 10" in label
    with run.metrics.open("a") as file:
        torn = json.dumps(step(13))
        file.write(torn[:20])
        file.flush()
        for _ in range(2):  # the second answer was asked for after the line was torn
            with live.page.expect_response("**/live/news*"):
                pass
        expect(live.progress).to_contain_text("Step 12 of 30")
        file.write(torn[20:] + "\n")
    expect(live.progress).to_contain_text("Step 13 of 30")
    now = "Loss, training batches: 2.165 at step 1, 0.7938 at step 13"
    expect(live.chart("Loss")).to_have_attribute("aria-label", re.compile(f"^{now};"))
    assert live.page.title().startswith("43 % · training")


def write_answers(run, step, *texts):
    lines = [
        {"step": step, "where": f"valid.jsonl:{number}", "prompt": "my lamp?", "reference": "yes", "tuned": text}
        for number, text in enumerate(texts, 1)
    ]
    write_text(run.valid_samples, "".join(json.dumps(line) + "\n" for line in lines))


def test_what_the_model_writes_changes_while_it_trains_and_gives_way_to_what_was_scored(live, run):
    expect(live.samples_title).to_have_text("Answers")
    expect(live.samples).to_contain_text("None yet")
    write_answers(run, 4, "hm", "")
    expect(live.samples_title).to_have_text("Answers after step 4, on rows of the validation split")
    expect(live.samples.locator(".text")).to_have_text(["my lamp?", "yes", "hm", "my lamp?", "yes", "an empty answer"])
    expect(live.samples.locator(".field-name")).to_have_text(["asked", "wanted", "answered"] * 2)
    write_answers(run, 8, "yes")
    expect(live.samples_title).to_have_text("Answers after step 8, on rows of the validation split")
    expect(live.samples.locator(".text")).to_have_text(["my lamp?", "yes", "yes"])
    run.samples.write_text(json.dumps(sample("test.jsonl:1", "no", "yes")) + "\n")
    expect(live.samples_title).to_have_text("Answers of base and tuned model, as scored")
    expect(live.samples.locator(".beside .text")).to_have_text(["no", "yes"])


def test_an_answer_that_is_read_stays_where_it_is_while_steps_come(live, run):
    write_answers(run, 4, "word \n" * 100)
    answer = live.samples.get_by_role("group", name="answered")
    answer.focus()
    answer.evaluate("one => { one.scrollTop = 40; one.seen = true; }")
    add(run, step(13))
    expect(live.progress).to_contain_text("Step 13")
    assert answer.evaluate("one => [one.scrollTop, one.seen, one === document.activeElement]") == [40, True, True]


def test_a_run_without_a_step_has_no_curves_and_then_has(live, run):
    run.metrics.unlink()
    expect(live.no_curves).to_be_visible()
    expect(live.progress).to_have_text("No step is made yet")
    add(run, step(1))
    expect(live.no_curves).to_be_hidden()
    expect(live.chart("Learning rate")).to_be_visible()


def test_a_resumed_run_takes_its_steps_back(live, run):
    expect(live.progress).to_contain_text("Step 12")
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:5]))
    expect(live.progress).to_contain_text("Step 5 of 30")
    add(run, step(6, loss=9.0))
    expect(live.chart("Loss")).to_have_attribute("aria-label", "Loss: 2.165 at step 1, 9 at step 6")


def test_pausing_tells_each_stage_and_keeps_the_focus(live, run):
    live.button("Pause").click()
    expect(live.wish).to_have_text("It pauses after this step.")
    assert wish_of(run) == "pause"
    note_pause(run, 12)
    expect(live.state).to_have_text("paused")
    expect(live.progress).to_contain_text("Paused after step 12")
    expect(live.said).to_have_text("The run is paused.")
    expect(live.button("Go on")).to_be_focused()
    live.page.keyboard.press("Enter")
    expect(live.wish).to_have_text("It goes on in a moment.")
    assert wish_of(run) is None
    note_end_of_pause(run)
    expect(live.button("Pause")).to_be_focused()
    expect(live.said).to_have_text("The run is training.")


def test_a_pause_can_be_taken_back_before_it_begins(live, run):
    live.button("Pause").click()
    live.button("Go on").click()
    expect(live.button("Pause")).to_be_visible()
    expect(live.wish).to_be_hidden()
    assert wish_of(run) is None


def test_stopping_asks_first_and_says_how_to_go_on(live, run):
    live.button("Stop…").click()
    expect(live.confirm).to_contain_text(f"mlxtune train --resume {run.path}")
    expect(live.button("Keep training")).to_be_focused()
    live.page.keyboard.press("Escape")
    expect(live.confirm).to_be_hidden()
    live.button("Stop…").click()
    live.button("Keep training").click()
    assert wish_of(run) is None
    live.button("Stop…").click()
    live.button("Stop the run").click()
    expect(live.wish).to_have_text("It stops after this step, and is saved.")
    expect(live.button("Pause")).to_be_disabled()
    assert wish_of(run) == "stop"


def test_a_run_whose_process_is_gone_has_no_buttons(open_page, run, tmp_path):
    with served(run) as address:
        page = open_page(address)
        expect(page.buttons).to_be_visible()
        page.button("Stop…").click()
        (run.path / ".lock").write_text("")
        expect(page.state).to_have_text("stopped")
        expect(page.buttons).to_be_hidden()
        expect(page.confirm).to_be_hidden()
        expect(page.facts).to_contain_text(f"mlxtune train --resume {run.path}")


def test_a_wish_that_cannot_be_told_is_said_so(live, run):
    expect(live.buttons).to_be_visible()
    live.page.route("**/live/wish", lambda route: route.abort())
    live.button("Pause").click()
    expect(live.alert).to_have_text("mlxtune watch does not answer, so the run was told nothing.")
    live.page.unroute("**/live/wish")
    live.button("Pause").click()
    expect(live.alert).to_be_hidden()
    assert wish_of(run) == "pause"


def test_a_folder_that_goes_is_told_what_was_seen_stays_and_it_may_come_back(live, run, tmp_path):
    expect(live.progress).to_contain_text("Step 12")
    away = run.path.rename(tmp_path / "away")
    expect(live.alert).to_contain_text("The run's folder is gone.")
    expect(live.progress).to_contain_text("Step 12")
    expect(live.buttons).to_be_hidden()
    away.rename(run.path)
    expect(live.alert).to_be_hidden()
    expect(live.buttons).to_be_visible()


def test_the_server_s_end_is_told_and_its_return_seen(open_page, run):
    with served(run) as address:
        page = open_page(address)
        expect(page.progress).to_contain_text("Step 12")
    expect(page.alert).to_contain_text("mlxtune watch has ended")
    port = int(address.split(":")[2].split("/")[0])
    app = guarded(live_app(LiveRun(run.path)), GuardSettings(api_key=KEY))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        expect(page.alert).to_be_hidden()
    finally:
        server.should_exit = True
        thread.join()


def test_an_address_without_its_key_says_so(open_page, run):
    with served(run) as address:
        page = open_page(address.split("#")[0])
        expect(page.alert).to_contain_text("The key is missing")
        page.page.goto(address)
        expect(page.progress).to_contain_text("Step 12")
        page.page.reload()
        expect(page.progress).to_contain_text("Step 12")


def hostile_run(folder):
    findings = [{"severity": "problem", "sentence": HOSTILE, "key": None, "remedy": HOSTILE, "kind": "x"}]
    samples = [sample("test.jsonl:1", HOSTILE, "", wanted=HOSTILE, prompt=HOSTILE)]
    return make_run(folder, name=HOSTILE, samples=samples, findings=findings)


def test_what_users_wrote_is_text_and_nothing_else(open_page, tmp_path):
    with served(hostile_run(tmp_path / "run")) as address:
        page = open_page(address)
        expect(page.name).to_have_text(HOSTILE)
        expect(page.samples.locator(".text").first).to_have_text(HOSTILE.replace("\u202e", "\\u{202e}"))
        assert page.page.locator("img, main script").count() == 0
        expect(page.samples).to_contain_text("an empty answer")


def test_an_answer_of_what_cannot_be_seen_is_seen(open_page, tmp_path):
    samples = [sample("test.jsonl:1", "\x03\n\u200b", "a\tb", wanted=None)]
    with served(make_run(tmp_path / "run", samples=samples)) as address:
        page = open_page(address)
        texts = page.samples.locator(".beside .text")
        expect(texts).to_have_count(2)
        assert [texts.nth(number).text_content() for number in (0, 1)] == ["\\u{3}↵\n\\u{200b}", "a⇥\tb"]


def fits(page):
    return page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_nothing_runs_off_the_side(open_page, tmp_path, run, width):
    write_answers(run, 4, HOSTILE)
    for shown in (run, hostile_run(tmp_path / "hostile")):
        with served(shown) as address:
            page = open_page(address)
            page.page.set_viewport_size({"width": width, "height": 720})
            expect(page.progress).to_contain_text("Step")
            assert fits(page)
            if shown is run:
                page.button("Stop…").click()
                assert fits(page)


def test_a_phone_has_all_buttons_in_sight(live):
    live.page.set_viewport_size(PHONE)
    expect(live.progress).to_contain_text("Step")
    live.page.evaluate("scrollTo(0, 9999)")
    for name in ("Pause", "Stop…"):
        box = live.button(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert 0 <= box["y"] < PHONE["height"] / 3
        assert box["height"] >= 36


def test_what_is_under_the_pointer_is_read_out(live):
    chart = live.chart("Learning rate")
    chart.hover()
    expect(live.page.locator("figure", has_text="Learning rate").locator(".reading")).to_contain_text("step 6: ")
    live.page.mouse.move(0, 0)
    expect(live.page.locator("figure", has_text="Learning rate").locator(".reading")).to_have_text("")


def test_what_a_reader_has_marked_stays_marked(live, run):
    expect(live.facts).to_contain_text(str(run.path))
    live.page.evaluate("getSelection().selectAllChildren(document.querySelector('#facts'))")
    add(run, step(13))
    expect(live.progress).to_contain_text("Step 13")
    assert str(run.path) in live.page.evaluate("getSelection().toString()")


def test_dark_and_light_are_both_there(live):
    seen = []
    for scheme in ("light", "dark"):
        live.page.emulate_media(color_scheme=scheme)
        seen.append(live.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert seen == ["rgb(255, 255, 255)", "rgb(18, 21, 24)"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(open_page, run, tmp_path, axe, width, scheme):
    found = []
    write_answers(run, 4, "hm", "")
    # the page's own policy would keep axe out too
    for shown in (run, make_run(tmp_path / "finished")):
        with served(shown) as address:
            page = open_page(address, bypass_csp=True, color_scheme=scheme)
            page.page.set_viewport_size({"width": width, "height": 900})
            expect(page.page.locator("figure svg").first).to_be_visible()
            page.page.evaluate(axe)
            moments = ["shown"]
            if shown is run:
                moments.append("asking")
            for moment in moments:
                if moment == "asking":
                    page.button("Stop…").click()
                for violation in page.page.evaluate("async () => (await axe.run()).violations"):
                    found.extend((moment, violation["id"], node["html"][:120]) for node in violation["nodes"])
    assert found == []


def test_the_buttons_reach_a_process_that_trains(open_page, tmp_path):
    """From the browser to the training loop and back, with nothing played."""
    run = RunFolder(tmp_path / "run")
    long = ["data.test=null", "training.epochs=null", "training.max_steps=1000000", "training.learning_rate=1.0e-3"]
    command = [sys.executable, "-m", "mlxtune", "--device", "cpu", "train", tiny_recipe(tmp_path), *long]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    training = subprocess.Popen([*map(str, command), "--run-dir", str(run.path)], **pipes)
    try:
        while not run.metrics.exists():
            assert training.poll() is None
            time.sleep(0.05)
        with served(run) as address:
            page = open_page(address)
            expect(page.state).to_have_text("training")
            page.button("Pause").click()
            expect(page.state).to_have_text("paused")
            page.button("Go on").click()
            expect(page.state).to_have_text("training")
            page.button("Stop…").click()
            page.button("Stop the run").click()
            expect(page.state).to_have_text("stopped")
            out, _ = training.communicate(timeout=60)
    finally:
        training.send_signal(signal.SIGKILL)
        training.communicate()
    assert training.returncode == 130
    assert f"go on with: mlxtune train --resume {run.path}" in out

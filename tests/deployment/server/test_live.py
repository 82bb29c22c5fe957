"""The live view over the wire, behind the guard: what is told to whom, and which wishes reach the run."""

import re

import pytest
from fastapi.testclient import TestClient
from parsed_page import missing_colours
from report_runs import make_run

from mlxtune.deployment.server.guard import GuardSettings, guarded
from mlxtune.deployment.server.live import FOLDER, live_app
from mlxtune.deployment.server.live_run import LiveRun
from mlxtune.runs.control import wish_of
from mlxtune.runs.folder import lock

KEY = "a-key-that-is-long-enough"
MINE = {"Authorization": f"Bearer {KEY}"}
SCRIPTS = sorted(FOLDER.glob("*.js"))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", finished=False, scored=None, findings=None, told=None)


@pytest.fixture
def client(run):
    app = guarded(live_app(LiveRun(run.path)), GuardSettings(api_key=KEY))
    return TestClient(app, base_url="http://127.0.0.1:8080")


def test_the_page_and_its_files_are_there_without_the_key(client):
    page = client.get("/")
    assert page.status_code == 200
    named = re.findall(r'(?:href|src)="(/page/[^"]+)"', page.text)
    imported = [path for script in SCRIPTS for path in re.findall(r'from "(/page/[^"]+)"', script.read_text())]
    assert len(named) == 4  # icon, colours, style, script
    assert {f"/page/{script.name}" for script in SCRIPTS} <= {*named, *imported}
    for path in {*named, *imported}:
        got = client.get(path)
        assert got.status_code == 200, path
        assert "trusted-types" in got.headers["content-security-policy"] or path.endswith(".svg")


@pytest.mark.parametrize("path", ["/page/live.py", "/page/..%2Flive.py", "/page/page.css", "/page/index.htm", "/docs"])
def test_nothing_else_is(client, path):
    assert client.get(path, headers=MINE).status_code == 404


def test_of_the_run_nothing_is_told_without_the_key(client, run):
    with lock(run):
        assert client.get("/live/news").status_code == 401
        assert client.post("/live/wish", json={"wish": "stop"}).status_code == 401
        assert wish_of(run) is None
    assert client.get("/live/news", headers=MINE).json()["name"] == "support-triage"


def test_wishes_reach_the_folder(client, run):
    with lock(run):
        for wish, found in (("pause", "pause"), ("go_on", None), ("stop", "stop")):
            got = client.post("/live/wish", json={"wish": wish}, headers=MINE)
            assert (got.status_code, got.json()) == (200, {"wish": wish})
            assert wish_of(run) == found


@pytest.mark.parametrize("body", ["", "{", "[]", '"stop"', "{}", '{"wish": "delete"}', '{"wish": "stop", "run": "/x"}'])
def test_nothing_else_is_a_wish(client, run, body):
    with lock(run):
        got = client.post("/live/wish", content=body, headers=MINE | {"Content-Type": "application/json"})
        assert got.status_code == 400
        assert got.json()["error"]["param"] == "wish"
        assert wish_of(run) is None


def test_a_run_that_nobody_works_in_refuses_and_says_what_to_do(client, run):
    got = client.post("/live/wish", json={"wish": "pause"}, headers=MINE)
    assert got.status_code == 409
    assert "no process works in this run" in got.json()["error"]["message"]
    assert "--resume" in got.json()["error"]["message"]
    assert not run.control.exists()


def test_a_folder_that_has_gone_is_told_and_refuses(client, run):
    run.path.rename(run.path.with_name("away"))
    assert client.get("/live/news", headers=MINE).json()["state"] == "gone"
    assert client.post("/live/wish", json={"wish": "stop"}, headers=MINE).status_code == 409


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_pages_of_other_sites_stop_no_run(client, run, headers):
    with lock(run):
        got = client.post("/live/wish", json={"wish": "stop"}, headers=MINE | headers)
        assert 400 <= got.status_code < 500
        assert wish_of(run) is None


def test_news_are_kept_by_nobody(client):
    assert client.get("/live/news", headers=MINE).headers["cache-control"] == "no-store"


def test_every_colour_that_is_named_is_there(client):
    sheets = [client.get(href).text for href in re.findall(r'rel="stylesheet" href="([^"]+)"', client.get("/").text)]
    assert missing_colours("".join(sheets)) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_text(script):
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function"
    assert not re.search(forbidden, script.read_text())

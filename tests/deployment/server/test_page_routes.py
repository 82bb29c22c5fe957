"""The page's files and settings as they come over the wire: what is told, and what cannot be reached."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from parsed_page import missing_colours

from mlxtune.deployment.server.page import FOLDER, PageModel, page_routes

SCRIPTS = sorted(FOLDER.glob("*.js"))


def client_of(*models: PageModel, **settings) -> TestClient:
    app = FastAPI()
    given = {"max_tokens": 64, "context_length": None, "key_needed": False} | settings
    app.include_router(page_routes(models, **given))
    return TestClient(app)


@pytest.fixture
def client():
    return client_of(PageModel("tuned", "Sort.", False, None))


def test_the_settings_tell_of_each_model_and_the_first_is_the_default(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<p>figures</p>")
    models = [PageModel("a/b c", "Sort.", False, report), PageModel("base", None, True, None)]
    got = client_of(*models, max_tokens=64, context_length=512, key_needed=True).get("/page/settings")
    assert got.json() == {
        "models": [
            {"id": "a/b c", "system": "Sort.", "raw": False, "report": "/page/report/a%2Fb%20c"},
            {"id": "base", "system": None, "raw": True, "report": None},
        ],
        "default": "a/b c",
        "max_tokens": 64,
        "context_length": 512,
        "key_needed": True,
    }
    assert got.headers["cache-control"] == "no-store"


def test_a_report_is_where_the_settings_say_and_nothing_in_it_runs(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<p>figures</p>")
    client = client_of(PageModel("a/b c", None, False, report))
    (model,) = client.get("/page/settings").json()["models"]
    got = client.get(model["report"])
    assert got.text == "<p>figures</p>"
    assert got.headers["content-type"].startswith("text/html")
    assert {"sandbox", "default-src 'none'"} <= set(got.headers["content-security-policy"].split("; "))


def test_a_report_that_is_gone_is_no_longer_offered(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("")
    client = client_of(PageModel("tuned", None, False, report))
    report.unlink()
    assert client.get("/page/settings").json()["models"][0]["report"] is None
    assert client.get("/page/report/tuned").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "report/base",
        "report/tuned",
        "report/../page.py",
        "report/%2Fetc%2Fpasswd",
        "..%2Fpage.py",
        "%2e%2e/page.py",
        "nothing.js",
        "index.htm",
    ],
)
def test_nothing_else_can_be_reached(client, path):
    assert client.get(f"/page/{path}").status_code == 404


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page/main.js", "text/javascript"),
        ("/page/page.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_files_come_with_their_type_and_a_policy_and_are_asked_for_anew(client, path, kind):
    for _ in range(2):  # a second time the headers are not there twice
        got = client.get(path)
        assert got.headers["content-type"].split(";")[0] == kind
        assert got.headers.get_list("cache-control") == ["no-cache"]
        (policy,) = got.headers.get_list("content-security-policy")
    assert "unsafe" not in policy
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy.split("; "))


def test_every_file_that_the_page_names_is_there(client):
    index = client.get("/").text
    named = set(re.findall(r'"(/page/[^"]+)"', index))
    for script in SCRIPTS:
        named |= set(re.findall(r'(?:from|import) "(/page/[^"]+)"', script.read_text("utf-8")))
    assert len(named) > 10
    assert {name for name in named if client.get(name).status_code != 200} == set()
    assert {f"/page/{script.name}" for script in SCRIPTS} <= named, "a script that nothing uses"


def test_the_page_has_no_script_or_style_of_its_own_and_names_nothing_outside(client):
    index = client.get("/").text
    assert "<style" not in index
    assert re.findall(r"<script(?![^>]*\bsrc=)", index) == []
    assert re.findall(r"\s(?:style|on\w+)=", index) == []
    assert re.findall(r"(?:https?:)?//\w", index) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_no_script_makes_markup_out_of_text(script):
    forbidden = r"(?:inner|outer|Adjacent)HTML|document\.write|DOMParser|ContextualFragment|\beval\b|new Function"
    assert re.findall(forbidden, script.read_text("utf-8")) == []


def test_ids_are_of_one_element_and_scripts_ask_for_those_there_are(client):
    ids = re.findall(r'\bid="([^"]+)"', client.get("/").text)
    assert len(ids) == len(set(ids))
    asked = {one for script in SCRIPTS for one in re.findall(r'byId\("([^"]+)"\)', script.read_text("utf-8"))}
    assert asked <= set(ids)


def test_every_colour_that_is_named_is_there(client):
    sheets = [client.get(href).text for href in re.findall(r'rel="stylesheet" href="([^"]+)"', client.get("/").text)]
    assert missing_colours("".join(sheets)) == []

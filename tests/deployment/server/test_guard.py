import logging

import pytest
from asgi_calls import call, request
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mlxtune.deployment.server.guard import HEADERS, MAX_HEAD_BYTES, GuardSettings, guarded
from mlxtune.errors import UsageError

KEY = "correct-horse-battery"
JSON = {"content-type": "application/json"}
OWN = {"origin": "http://localhost"}
OTHER = "http://localhost:3000"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - not listened on


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(b"reached:" + await request.body())


ECHO = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "HEAD", "POST", "DELETE", "OPTIONS"])])
"""An application that says what came to it."""


def guard(**settings):
    return guarded(ECHO, GuardSettings(**({"host": "127.0.0.1"} | settings)))


def test_a_request_of_this_machine_comes_through_with_its_body():
    answer = call(guard(), request("POST", "/v1/x", JSON), [b'{"a":', b" 1}"])
    assert (answer.status, answer.body) == (200, b'reached:{"a": 1}')


def test_an_address_that_needs_a_key_has_one():
    with pytest.raises(UsageError, match="no key"):
        GuardSettings(EVERYWHERE)
    GuardSettings(EVERYWHERE, api_key=KEY)


def test_the_key_is_not_shown():
    assert KEY not in repr(GuardSettings("127.0.0.1", api_key=KEY))


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [("evil.example", {}, 421), (None, {}, 400), ("localhost", {"host": "localhost"}, 400), ("a b", {}, 400)],
)
def test_a_host_that_is_not_the_servers_is_refused_in_openais_form(host, headers, status):
    answer = call(guard(), request("GET", "/health", headers, host=host))
    assert answer.status == status
    assert answer.error.keys() == {"message", "type", "param", "code"}


# --- pages of other places


def test_the_servers_own_page_may_use_it():
    assert call(guard(), request("POST", "/v1/x", JSON | OWN), [b"{}"]).status == 200


@pytest.mark.parametrize("origin", [OTHER, "http://evil.example", "null"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_of_another_place_may_not(origin, method):
    answer = call(guard(), request(method, "/v1/x", JSON | {"origin": origin}), [b"{}"])
    assert (answer.status, answer.error["code"]) == (403, "unknown_origin")


def test_without_origins_no_answer_has_a_header_that_lets_other_pages_read_it():
    scopes = [request("POST", "/v1/x", JSON | OWN), request("GET", "/"), request("OPTIONS", "/", {"origin": OTHER})]
    for scope in scopes:
        answer = call(guard(), scope, [b"{}"])
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_that_is_named_may_and_may_read_what_is_refused():
    app = guard(origins=(OTHER,), api_key=KEY)
    asks = {
        "origin": OTHER,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-stainless-os",
    }
    asked = call(app, request("OPTIONS", "/v1/x", asks))
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, OTHER)
    assert asked.headers["access-control-allow-headers"] == "x-stainless-os"
    for key, status in (("wrong", 401), (KEY, 200)):
        told = JSON | {"origin": OTHER, "authorization": f"Bearer {key}"}
        answer = call(app, request("POST", "/v1/x", told), [b"{}"])
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, OTHER)
        assert "access-control-allow-credentials" not in answer.headers
    assert call(app, request("POST", "/v1/x", JSON | {"origin": "http://evil.example"}), [b"{}"]).status == 403


def test_origins_are_exact():
    with pytest.raises(UsageError, match="origin"):
        guard(origins=("*",))


# --- the key


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/page/settings"),
        ("GET", "/page/report/tiny"),
        ("GET", "/page/report/tiny.html"),
        ("GET", "/page/../v1/models.x"),
        ("GET", "/healthy"),
        ("GET", "//"),
        ("POST", "/health"),
        ("OPTIONS", "/v1/models"),
    ],
)
def test_what_tells_or_does_something_wants_the_key(method, path):
    app = guard(api_key=KEY)
    answer = call(app, request(method, path, JSON), [b"{}"])
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="mlxtune"'
    assert call(app, request(method, path, JSON | {"authorization": f"Bearer {KEY}"}), [b"{}"]).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/docs", "/openapi.json", "/page/main.js", "/page/page.css"]
)
def test_health_and_the_page_itself_are_open(path):
    assert call(guard(api_key=KEY), request("GET", path)).status == 200


def test_no_byte_of_a_strangers_body_is_read():
    for scope in (request("POST", "/v1/x", JSON), request("GET", "/health")):  # a body that would never come
        assert call(guard(api_key=KEY), scope, []).status in (401, 200)


# --- bodies


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_body_is_declared_as_json_even_an_empty_one(kind, method):
    headers = {} if kind is None else {"content-type": kind}
    answer = call(guard(), request(method, "/v1/x", headers))
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


def test_json_with_a_character_set_is_json_and_two_types_are_none():
    kind = ("content-type", "Application/JSON; charset=utf-8")
    assert call(guard(), request("POST", "/v1/x", [kind])).status == 200
    assert call(guard(), request("POST", "/v1/x", [kind, kind])).status == 415


def test_a_packed_body_is_refused_by_name():
    answer = call(guard(), request("POST", "/v1/x", JSON | {"content-encoding": "gzip"}))
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")


def test_a_body_may_be_as_long_as_the_limit_and_no_byte_longer():
    app = guard(max_body_bytes=10)
    assert call(app, request("POST", "/v1/x", JSON), [b"12345", b"67890"]).status == 200
    answer = call(app, request("POST", "/v1/x", JSON), [b"12345", b"67890", b"1"])
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("length", ["11", "9" * 20, "9" * 5000])
def test_a_body_that_is_declared_too_long_is_not_waited_for(length):
    assert call(guard(max_body_bytes=10), request("POST", "/v1/x", JSON | {"content-length": length}), []).status == 413


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "\u00b2"])
def test_a_length_that_is_none_is_refused(length):
    assert call(guard(), request("POST", "/v1/x", JSON | {"content-length": length}), []).status == 400


def test_a_body_that_does_not_come_is_waited_for_so_long_and_no_longer():
    answer = call(guard(body_s=0.01), request("POST", "/v1/x", JSON), [])
    assert (answer.status, answer.error["code"], answer.headers["connection"]) == (408, "timeout", "close")


def test_a_client_that_goes_away_within_its_body_is_not_answered():
    assert call(guard(), request("POST", "/v1/x", JSON), [b"{", None]) is None


def test_an_application_learns_that_a_client_goes_away_after_its_body():
    seen = []

    async def app(scope, receive, send):
        seen.extend([await receive(), await receive()])

    call(guarded(app, GuardSettings("127.0.0.1")), request("POST", "/v1/x", JSON), [b"{}"], leaves=True)
    assert [message["type"] for message in seen] == ["http.request", "http.disconnect"]


def test_a_head_has_a_limit():
    app = guard()
    assert call(app, request("GET", "/", {"cookie": "c" * (MAX_HEAD_BYTES - 100)})).status == 200
    for more in ({"headers": {"cookie": "c" * MAX_HEAD_BYTES}}, {"query": b"q" * MAX_HEAD_BYTES}):
        answer = call(app, request("GET", "/", **more))
        assert answer.status == 431
        assert answer.error["message"]
    assert call(app, request("GET", "/" + "p" * MAX_HEAD_BYTES)).status == 431


# --- answers


def test_answers_and_refusals_have_the_headers_of_a_careful_server():
    app = guard(api_key=KEY)
    for scope in (request("GET", "/"), request("GET", "/v1/models"), request("GET", "/", host="evil.example")):
        answer = call(app, scope)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_an_answer_that_says_otherwise_by_itself_is_left_so():
    app = FastAPI()
    app.get("/")(lambda: HTMLResponse("x", headers={"Content-Security-Policy": "sandbox", "Cache-Control": "no-cache"}))
    answer = call(guarded(app, GuardSettings("127.0.0.1")), request("GET", "/"))
    assert answer.headers.getlist("content-security-policy") == ["sandbox"]
    assert answer.headers.getlist("cache-control") == ["no-cache"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_web_sockets_are_closed_and_the_lifespan_goes_through():
    import asyncio

    sent = []

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        sent.append(scope["type"])

    for kind in ("websocket", "lifespan"):
        asyncio.run(guarded(app, GuardSettings("127.0.0.1"))({"type": kind}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}, "lifespan"]


# --- the log


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "mlxtune.server.access"]


def test_a_line_has_method_path_status_and_seconds_and_nothing_of_what_was_asked(caplog):
    caplog.set_level(logging.DEBUG)
    headers = JSON | {"authorization": f"Bearer {KEY}", "cookie": "secret"}
    call(guard(api_key=KEY), request("POST", "/v1/x", headers, query=b"q=secret"), [b'{"a": "secret"}'])
    assert [line.split()[:3] for line in lines(caplog)] == [["POST", "/v1/x", "200"]]
    assert "secret" not in caplog.text
    assert KEY not in caplog.text


def test_refusals_and_clients_that_go_away_have_their_lines(caplog):
    caplog.set_level(logging.INFO)
    call(guard(), request("GET", "/", host="evil.example"))
    call(guard(), request("POST", "/", JSON), [None])
    assert [line.split()[2] for line in lines(caplog)] == ["421", "499"]


def test_a_path_cannot_forge_a_line(caplog):
    caplog.set_level(logging.INFO)
    call(guard(), request("GET", "/a\nGET /b 200\x1b[31m" + "x" * 1000))
    (line,) = lines(caplog)
    assert line.startswith("GET /a%0AGET%20/b%20200%1B%5B31m")
    assert len(line) < 300


def test_an_application_that_fails_is_logged_as_500_and_its_error_goes_through(caplog):
    caplog.set_level(logging.INFO)

    async def app(scope, receive, send):
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        call(guarded(app, GuardSettings("127.0.0.1")), request("GET", "/"))
    assert lines(caplog)[0].split()[2] == "500"


def test_a_stream_comes_piece_by_piece():
    seen = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"a", b"b"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            seen.append(piece)
        await send({"type": "http.response.body"})

    assert call(guarded(app, GuardSettings("127.0.0.1")), request("GET", "/")).body == b"ab"
    assert seen == [b"a", b"b"]


def test_json_answers_pass_unchanged():
    app = FastAPI()
    app.post("/v1/x")(lambda: JSONResponse({"a": 1}, 201))
    answer = call(guarded(app, GuardSettings("127.0.0.1")), request("POST", "/v1/x", JSON), [b"{}"])
    assert (answer.status, answer.body) == (201, b'{"a":1}')

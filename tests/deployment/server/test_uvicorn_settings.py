"""The guard behind uvicorn, byte for byte through real sockets."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from serving import listening
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from mlxtune.deployment.server.guard import MAX_HEAD_BYTES, GuardSettings, guarded
from mlxtune.deployment.server.uvicorn_settings import Connection, uvicorn_settings

POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
END = b"Connection: close\r\n\r\n"
FOR_LONG = 60.0


class Hasty(Connection):
    deadline_s = 0.2


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(b"reached:" + await request.body())


@contextmanager
def server(app=None, *, guard=None, **settings) -> Iterator[tuple[str, int]]:
    """Where a guarded application listens."""
    app = app or Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])
    guarding = GuardSettings(**(guard or {}))
    told = uvicorn_settings(guarding, drain_s=5) | settings
    del told["host"], told["port"]  # `listening` has its own
    with listening(guarded(app, guarding), **told) as address:
        host, port = address.removeprefix("http://").split(":")
        yield host, int(port)


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=FOR_LONG) as client:
        yield client


def rest(client: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    received = b""
    try:
        while part := client.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def one_answer(client: socket.socket) -> bytes:
    """One answer, on a connection that may stay open; it may come in pieces."""
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < length(answer):
        part = client.recv(65536)
        assert part, answer
        answer += part
    return answer


def length(answer: bytes) -> int:
    lines = answer.partition(b"\r\n\r\n")[0].lower().splitlines()
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))


def talk(address: tuple[str, int], sent: bytes) -> bytes:
    with connected(address) as client:
        client.sendall(sent)
        return rest(client)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with server() as address:
        yield address


def test_it_listens_where_the_guard_is_told_that_it_does():
    told = uvicorn_settings(GuardSettings("::1", 1234), drain_s=0.5)
    assert (told["host"], told["port"], told["timeout_graceful_shutdown"]) == ("::1", 1234, 1)


def test_a_request_comes_through(address):
    answer = talk(address, POST + b"Content-Length: 2\r\n" + END + b"{}")
    assert status(answer) == 200
    assert answer.endswith(b"reached:{}")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", 400),
        (b"GET / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.0\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n Host: evil.example\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n", 404),
        (GET + b"Origin: http://evil.example\r\n", 403),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n", 400),
        (POST + b"Content-Length: -1\r\n", 400),
        (GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
    ],
)
def test_what_is_wrong_with_a_head_is_refused(address, head, expected):
    assert status(talk(address, head + END)) == expected


def test_answers_name_no_server_software(address):
    assert b"uvicorn" not in talk(address, GET + END).lower()


def test_a_head_that_is_too_long_is_refused_whether_it_comes_at_once_or_never_ends(address):
    assert status(talk(address, GET + b"Cookie: " + b"c" * (MAX_HEAD_BYTES - 200) + b"\r\n" + END)) == 200
    at_once = talk(address, GET + b"Cookie: " + b"c" * MAX_HEAD_BYTES + b"\r\n" + END)
    assert status(at_once) in (400, 431)  # uvicorn's answer or the guard's, as the bytes happen to come
    with connected(address) as client:
        client.sendall(GET + b"Cookie: " + b"c" * (MAX_HEAD_BYTES + 1))
        assert status(rest(client)) == 400


def test_a_declared_length_that_is_too_long_is_refused_at_once():
    with server(guard={"max_body_bytes": 10}) as address, connected(address) as client:
        client.sendall(POST + b"Content-Length: 11\r\n\r\n")
        assert status(one_answer(client)) == 413


def test_a_body_in_pieces_is_counted():
    piece = b"8\r\n12345678\r\n"
    with server(guard={"max_body_bytes": 16}) as address:
        head = POST + b"Transfer-Encoding: chunked\r\n"
        assert talk(address, head + END + piece * 2 + b"0\r\n\r\n").endswith(b"reached:" + b"12345678" * 2)
        assert status(talk(address, head + END + piece * 3 + b"0\r\n\r\n")) == 413


def test_a_client_that_asks_before_it_sends_is_refused_before_it_sends():
    with server(guard={"api_key": "correct-horse-battery"}) as address, connected(address) as client:
        client.sendall(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        answer = one_answer(client)
    assert status(answer) == 401
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_api_key"


def test_a_body_that_does_not_come_ends_the_connection_with_a_reason():
    with server(guard={"body_s": 0.1}) as address, connected(address) as client:
        client.sendall(POST + b"Content-Length: 10\r\n\r\n{")
        answer = rest(client)
    assert status(answer) == 408
    assert b'"code":"timeout"' in answer


@pytest.mark.parametrize("sent", [b"", GET], ids=["nothing", "half a head"])
def test_a_head_that_does_not_come_ends_the_connection(sent):
    with server(http=Hasty) as address:
        assert talk(address, sent) == b""


def test_a_second_head_has_the_same_deadline():
    with server(http=Hasty) as address, connected(address) as client:
        client.sendall(GET + b"\r\n" + GET)
        answer = rest(client)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status(answer) == 200


def test_a_head_that_comes_drop_by_drop_has_one_deadline_for_all():
    with server(http=Hasty) as address, connected(address) as client:
        ended = threading.Event()

        def drip() -> None:
            try:
                while not ended.wait(0.02):
                    client.sendall(b"x")
            except OSError:
                pass

        client.sendall(GET + b"X-Slow: ")
        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert rest(client) == b""
        finally:
            ended.set()
            dripping.join()


def test_a_refused_client_does_not_go_on_sending_for_ever():
    with server(http=Hasty, guard={"max_body_bytes": 10}) as address, connected(address) as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n")
        answer = rest(client)  # without Connection: close, and without an end of the body
    assert status(answer) == 413


def test_an_answer_that_takes_longer_than_the_deadline_comes():
    async def slow(_: Request) -> PlainTextResponse:
        await asyncio.sleep(Hasty.deadline_s * 3)
        return PlainTextResponse("slow")

    app = Starlette(routes=[Route("/", slow, methods=["POST"])])
    with server(app, http=Hasty) as address:
        assert talk(address, POST + b"Content-Length: 2\r\n" + END + b"{}").endswith(b"slow")


def test_a_client_that_does_not_take_its_answer_is_cut_off_and_the_work_for_it_ends():
    ended = threading.Event()

    async def endless(_: Request) -> StreamingResponse:
        async def pieces():
            try:
                while True:
                    await asyncio.sleep(0)
                    yield b"x" * 65536
            finally:
                ended.set()

        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/", endless)])
    with server(app, http=Hasty) as address, connected(address) as client:
        client.sendall(GET + b"\r\n")
        assert ended.wait(FOR_LONG)


def test_connections_have_a_limit_and_free_their_places():
    with server(limit_concurrency=2) as address:
        with connected(address) as first:
            first.sendall(GET)  # half a head
            with connected(address) as second:
                second.sendall(GET + END)
                assert status(rest(second)) == 503
        end = time.monotonic() + FOR_LONG
        while status(talk(address, GET + END)) == 503:  # until the server has seen the first one go
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_client_cannot_claim_another_address_or_scheme():
    async def tell(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.client.host} {request.url.scheme}")

    with server(Starlette(routes=[Route("/", tell)])) as address:
        answer = talk(address, GET + b"X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\n" + END)
    assert answer.endswith(b"127.0.0.1 http")


def test_uvicorn_logs_no_request(caplog, address):
    caplog.set_level("DEBUG")
    talk(address, b"GET /?q=secret HTTP/1.1\r\nHost: localhost\r\n" + END)
    assert "GET / 200" in caplog.text
    assert "secret" not in caplog.text

"""The ground that all tests stand on does what it promises."""

import socket

import mlx.core as mx
import pytest


def test_a_socket_to_another_machine_is_refused():
    with socket.socket() as connection, pytest.raises(RuntimeError, match=r"192\.0\.2\.1"):
        connection.connect(("192.0.2.1", 80))  # reserved for documentation (RFC 5737)
    with socket.socket() as connection, pytest.raises(RuntimeError, match=r"example\.org"):
        connection.connect_ex(("example.org", 80))


def test_a_socket_to_this_machine_works():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as connection:
        assert connection.getpeername() == server.getsockname()


def test_work_is_done_on_the_cpu():
    assert mx.default_device() == mx.Device(mx.cpu)

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxtune.deployment.server.callers import check_host_header, check_names, check_origin_header, is_loopback
from mlxtune.deployment.server.errors import ApiError
from mlxtune.errors import UsageError

EVERYWHERE = "0.0.0.0"  # noqa: S104 - not listened on
LOOPBACK = ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080"]
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost.",
    "[::2]",
]
NO_HOST = [
    "",
    ":8080",
    "localhost:",
    "a b",
    "localhost:80:80",
    "user@localhost",
    "http://localhost",
    "::1",
    "localhost/",
]


def status_of(function, *arguments) -> int:
    with pytest.raises(ApiError) as caught:
        function(*arguments)
    return caught.value.status


@pytest.mark.parametrize("host", LOOPBACK)
def test_the_names_of_loopback_are_known_with_any_port(host):
    assert check_host_header([host.encode()], "127.0.0.1", ()) == host.lower()


@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_was_pointed_at_this_machine_is_not_known(host):
    assert status_of(check_host_header, [host.encode()], "127.0.0.1", ()) == 421


@pytest.mark.parametrize("host", NO_HOST)
def test_what_is_no_host_is_refused(host):
    assert status_of(check_host_header, [host.encode()], "127.0.0.1", ()) == 400


@pytest.mark.parametrize("values", [[], [b"localhost", b"localhost"], [b"localhost", b"evil.example"]])
def test_a_request_has_one_host(values):
    assert status_of(check_host_header, values, "127.0.0.1", ()) == 400


def test_the_bound_name_and_the_given_ones_are_known_too():
    for host in ("192.168.1.5", "Mac.local", "192.168.1.5:8080"):
        assert check_host_header([host.encode()], "192.168.1.5", ("mac.local",))
    assert status_of(check_host_header, [b"192.168.1.6"], "192.168.1.5", ("mac.local",)) == 421


@pytest.mark.parametrize("bound", [EVERYWHERE, "::"])
def test_all_addresses_are_known_where_all_are_bound_but_no_name(bound):
    for host in ("192.168.1.5:8080", "[fe80::1]:8080"):
        assert check_host_header([host.encode()], bound, ())
    assert status_of(check_host_header, [b"evil.example"], bound, ()) == 421


@given(st.binary(max_size=40) | st.from_regex(rb"localhost[^a]{0,9}", fullmatch=True))
def test_no_bytes_but_a_known_name_and_a_port_are_a_known_host(value):
    if re.fullmatch(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", value.lower()):
        assert check_host_header([value], "127.0.0.1", ())
    else:
        assert status_of(check_host_header, [value], "127.0.0.1", ()) in (400, 421)


def test_a_request_of_no_page_or_of_the_servers_own_is_let_in():
    check_origin_header([], "localhost:8080", ())
    check_origin_header([b"http://localhost:8080"], "localhost:8080", ())
    check_origin_header([b"https://localhost:8080"], "localhost:8080", ())  # TLS in between


@pytest.mark.parametrize(
    "origin", ["null", "", "http://localhost:3000", "http://localhost", "http://evil.example", "file://localhost:8080"]
)
def test_a_page_of_another_place_is_refused_even_one_of_this_machine(origin):
    assert status_of(check_origin_header, [origin.encode()], "localhost:8080", ()) == 403


def test_a_page_that_is_named_is_let_in_and_none_that_is_like_it():
    origins = ("http://localhost:3000",)
    check_origin_header([b"http://localhost:3000"], "localhost:8080", origins)
    for origin in (b"http://localhost:30000", b"https://localhost:3000", b"http://localhost:3000.evil.example"):
        assert status_of(check_origin_header, [origin], "localhost:8080", origins) == 403


def test_two_origins_are_refused():
    own = b"http://localhost"
    assert status_of(check_origin_header, [own, own], "localhost", ()) == 403


@pytest.mark.parametrize("origin", ["*", "null", "localhost:3000", "http://localhost:3000/", "http://*.example", ""])
def test_an_origin_is_named_in_full(origin):
    with pytest.raises(UsageError, match="origin"):
        check_names((), (origin,))


@pytest.mark.parametrize("host", ["*", "", "mac.local:8080", "http://mac.local"])
def test_a_further_name_is_a_name_alone(host):
    with pytest.raises(UsageError, match="name of a host"):
        check_names((host,), ())


def test_names_and_addresses_are_names():
    check_names(("mac.local", "192.168.1.5", "fe80::1"), ("http://localhost:3000", "https://[::1]", "app://tool"))


def test_loopback_is_told_from_the_rest():
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_loopback(host) for host in (EVERYWHERE, "::", "192.168.1.5", "mac.local", "", "localhost.evil"))

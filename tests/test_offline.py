"""Offline nothing reaches another machine, and the error names who tried; this machine stays reachable.

The guard is tried in a child process, since the tests' own guard would be met first.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest
from huggingface_hub import constants

from mlxtune.errors import NetworkError
from mlxtune.network import is_offline
from mlxtune.offline import NOWHERE, OBEYED, network_off

ELSEWHERE = "192.0.2.1"  # of a network that is kept for examples: nobody answers there


def tried_in_child(*attempts: str, **environment: str) -> list[list[str]]:
    """Each attempt's outcome where the network is off: its result, or the error's type, sentence and place."""
    code = """
        import json, os, socket, sys, urllib.request
        from mlxtune.errors import MlxtuneError
        from mlxtune.offline import network_off

        def attempt(text):
            try:
                return ["done", str(eval(text))]
            except MlxtuneError as error:
                return [type(error).__name__, error.message, error.where, error.remedy]
            except Exception as error:
                return [type(error).__name__, str(error)]

        def udp():
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        with network_off():
            print(json.dumps([attempt(text) for text in sys.argv[1:]]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *attempts],
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_way_out_of_a_socket_is_refused_and_who_tried_is_named():
    ways = {
        f"socket.create_connection(('{ELSEWHERE}', 80))": f"look up {ELSEWHERE}",
        f"socket.socket().connect(('{ELSEWHERE}', 80))": f"connect to {ELSEWHERE}:80",
        f"socket.socket().connect_ex(('{ELSEWHERE}', 80))": f"connect to {ELSEWHERE}:80",
        "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))": "connect to 2001:db8::1:80",
        f"udp().sendto(b'x', ('{ELSEWHERE}', 53))": f"send to {ELSEWHERE}:53",
        f"udp().sendmsg([b'x'], [], 0, ('{ELSEWHERE}', 53))": f"send to {ELSEWHERE}:53",
        "udp().bind(('', 0))": "be reached at any:0",
        "socket.socket().bind(('0.0.0.0', 0))": "be reached at 0.0.0.0:0",
        "socket.getaddrinfo('example.org', 443)": "look up example.org",
        "socket.getaddrinfo(b'example.org', 443)": "look up example.org",
        "socket.gethostbyname('example.org')": "look up example.org",
        f"socket.gethostbyaddr('{ELSEWHERE}')": f"look up {ELSEWHERE}",
        f"socket.getnameinfo(('{ELSEWHERE}', 80), 0)": f"look up {ELSEWHERE}:80",
        "socket.getaddrinfo('local\\nhost\\x1b[2J', 1)": r"look up local\nhost\x1b[2J",
    }
    found = tried_in_child(*ways)
    for (way, wanted), (kind, message, where, remedy) in zip(ways.items(), found, strict=True):
        assert (kind, message) == (
            "NetworkError",
            f"__main__.<module> wanted to {wanted}, and the network is off",
        ), way
        assert where == "<string>:1"
        assert "offline: true" in remedy


def test_this_machine_stays_reachable():
    ways = [
        "socket.socket().bind(('127.0.0.1', 0))",
        "socket.socket().bind(('localhost', 0))",
        "udp().sendto(b'x', ('127.0.0.1', 9999))",
        "socket.socket(socket.AF_INET6).connect_ex(('::ffff:127.0.0.1', 1)) > 0",
        "socket.getaddrinfo('localhost', 80)[0][0] > 0",
        "socket.getaddrinfo(None, 80)[0][0] > 0",
        "[end.close() for end in socket.socketpair()]",
    ]
    assert [outcome[0] for outcome in tried_in_child(*ways)] == ["done"] * len(ways)


def test_what_would_go_through_a_proxy_is_refused_and_names_the_one_who_asked(tmp_path):
    (tmp_path / "curious.py").write_text(
        "import urllib.request\ndef phone_home():\n    urllib.request.urlopen('http://example.org')\n"
    )
    attempt = f"sys.path.insert(0, {str(tmp_path)!r}) or __import__('curious').phone_home()"
    (outcome,) = tried_in_child(attempt, http_proxy="http://proxy.example.org:3128")
    assert outcome[0] == "NetworkError"
    assert outcome[1] == "curious.phone_home wanted to connect to another machine, and the network is off"
    assert outcome[2] == f"{tmp_path / 'curious.py'}:3"


def test_the_switch_in_the_environment_puts_the_guard_up_with_the_first_model_that_python_opens():
    code = (
        "import mlxtune.inference, socket\n"
        "from mlxtune.errors import NetworkError\n"
        "try:\n    socket.gethostbyname('example.org')\n"
        "except NetworkError as error:\n    print(error.message)\n"
        "import os\nprint(os.environ['HF_HUB_OFFLINE'], os.environ['https_proxy'])"
    )
    environment = os.environ | {"MLXTUNE_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "__main__.<module> wanted to look up example.org, and the network is off",
        f"1 http://{NOWHERE[0]}:{NOWHERE[1]}",
    ], done.stderr


def test_what_the_block_changed_is_as_it_was_after_it(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://mine:1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("MLXTUNE_OFFLINE", raising=False)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before = dict(os.environ)

    with network_off():
        assert is_offline()
        assert {name: os.environ[name] for name in OBEYED} == OBEYED
        assert constants.is_offline_mode()
        with pytest.raises(NetworkError), network_off():
            socket.gethostbyname("example.org")
        assert is_offline()

    assert dict(os.environ) == before
    assert not constants.is_offline_mode()
    assert socket.getaddrinfo("192.0.2.1", 80, flags=socket.AI_NUMERICHOST)  # the guard is up still, and lets it pass


def test_without_the_wish_the_block_changes_nothing():
    before = dict(os.environ)
    with network_off(when=False):
        assert dict(os.environ) == before

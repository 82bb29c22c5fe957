import os
import threading
from pathlib import Path

import pytest

from mlxtune.deployment.server.api_key import VARIABLE, check_host, check_key_header, read_api_key
from mlxtune.deployment.server.errors import ApiError
from mlxtune.errors import UsageError

KEY = "correct-horse-battery"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - not listened on


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_without_file_and_variable_there_is_no_key():
    assert read_api_key(None, {}) is None


def test_a_key_comes_from_a_file_of_its_owners_or_else_from_the_environment(tmp_path):
    path = key_file(tmp_path, f" {KEY}\r\n".encode())
    assert read_api_key(path, {}) == KEY
    assert read_api_key(path, {VARIABLE: "another-key-of-length"}) == KEY
    assert read_api_key(None, {VARIABLE: f"{KEY}\n"}) == KEY


def test_a_key_comes_from_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o644)
    writer = threading.Thread(target=path.write_text, args=(KEY,))
    writer.start()
    assert read_api_key(path, {}) == KEY
    writer.join()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path, mode):
    path = key_file(tmp_path, KEY.encode(), mode)
    with pytest.raises(UsageError, match="others") as caught:
        read_api_key(path, {})
    assert caught.value.remedy == f"chmod 600 {path}"


def test_a_link_is_as_private_as_what_it_leads_to(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(key_file(tmp_path, KEY.encode(), 0o644))
    with pytest.raises(UsageError, match="others"):
        read_api_key(link, {})


@pytest.mark.parametrize("content", [b"", b"\n", b"  "])
def test_an_empty_key_is_refused_wherever_it_comes_from(tmp_path, content):
    for arguments in ((key_file(tmp_path, content), {}), (None, {VARIABLE: content.decode()})):
        with pytest.raises(UsageError, match="empty"):
            read_api_key(*arguments)


@pytest.mark.parametrize(
    "content",
    [
        b"two-lines-of-a-key\nanother-line",
        b"with spaces in the key",
        "schl\u00fcssel-von-l\u00e4nge".encode(),
        b"k" * 1025,
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path, content):
    with pytest.raises(UsageError) as caught:
        read_api_key(key_file(tmp_path, content), {})
    said = f"{caught.value} {caught.value.remedy} {caught.value!r}"
    assert not any(part in said for part in ("another-line", "spaces in the", "von-l", "kkk"))


def test_bytes_that_are_no_text_are_refused_without_their_trace(tmp_path):
    with pytest.raises(UsageError, match="other file") as caught:
        read_api_key(key_file(tmp_path, b"\xff\xfe" * 20), {})
    assert caught.value.__suppress_context__


def test_a_short_key_is_refused_with_a_way_to_make_a_long_one():
    with pytest.raises(UsageError, match="15 characters; it needs 16") as caught:
        read_api_key(None, {VARIABLE: "k" * 15})
    assert "token_urlsafe" in (caught.value.remedy or "")
    assert read_api_key(None, {VARIABLE: "k" * 16}) == "k" * 16


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError) as caught:
            read_api_key(path, {})
        assert caught.value.where == str(path)


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.168.1.5", "mac.local", ""])
def test_others_reach_the_server_only_with_a_key(host):
    with pytest.raises(UsageError, match="no key"):
        check_host(host, None)
    check_host(host, KEY)


def test_loopback_needs_no_key():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, None)


def test_the_key_opens_with_any_spelling_of_the_scheme():
    for value in (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "):
        check_key_header([value.encode()], KEY)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [KEY.encode()],
        [f"Basic {KEY}".encode()],
        [f"Bearer {KEY}x".encode()],
        [f"Bearer {KEY[:-1]}".encode()],
        [f"Bearer {KEY.upper()}".encode()],
        [b"Bearer \xff\xfe\x00"],
        [f"Bearer {KEY}".encode()] * 2,
    ],
)
def test_anything_else_does_not(values):
    with pytest.raises(ApiError) as caught:
        check_key_header(values, KEY)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
    assert KEY not in caught.value.message

"""The server's key: where it comes from, when there has to be one, and whether a request has it.

It comes from a file or the environment, never from the command line, which every user of a machine can list. It is
never part of a message. There is one key, without users or roles: whoever has it may do all that the server does.
"""

import hmac
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from mlxtune.deployment.server.callers import is_loopback
from mlxtune.deployment.server.errors import ApiError
from mlxtune.errors import UsageError

VARIABLE = "MLXTUNE_API_KEY"
SHORTEST, LONGEST = 16, 1024
"""Characters of a key. 16 random ones cannot be guessed over a network; a longer text is some other file."""
RANDOM = "make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


def read_api_key(path: Path | None, environ: Mapping[str, str]) -> str | None:
    """The key in a file, else the one in MLXTUNE_API_KEY; None, where there is neither.

    White space around it is no part of it. A variable that is set to nothing is refused, since whoever set it wanted a
    key.

    Args:
        path: a file that its owner alone may read, or a pipe.

    Raises: UsageError, for a file that cannot be read or that others can, and for what is no key.
    """
    if path is not None:
        return _checked(_read(path), str(path))
    return _checked(environ[VARIABLE], VARIABLE) if VARIABLE in environ else None


def check_host(host: str, api_key: str | None) -> None:
    """Refuse to listen where other machines reach the server, without a key. Raises: UsageError."""
    if api_key is None and not is_loopback(host):
        raise UsageError(
            f"other machines reach a server on {host!r}, and there is no key that they need",
            where="--host",
            remedy=f"give a key with --api-key-file or {VARIABLE}, or listen on 127.0.0.1",
        )


def check_key_header(values: list[bytes], api_key: str) -> None:
    """Refuse a request without ``Authorization: Bearer KEY``; how long that takes says nothing of the key.

    Args:
        values: of the header Authorization.

    Raises: ApiError, 401.
    """
    scheme, _, given = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    is_right = hmac.compare_digest(given.strip(), api_key.encode())
    if not is_right or scheme.lower() != b"bearer":
        said = "this server wants its key; send it as: Authorization: Bearer KEY"
        raise ApiError(401, said, code="invalid_api_key", headers={"WWW-Authenticate": 'Bearer realm="mlxtune"'})


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())  # of the file that is open: a name may mean another one by now
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                raise UsageError("others than you can read or write the key", where=path, remedy=f"chmod 600 {path}")
            return file.read(LONGEST + 3).decode()  # a line end may follow
    except OSError as error:
        raise UsageError(f"the key cannot be read: {error.strerror}", where=path, remedy="name a file") from error
    except UnicodeDecodeError:  # whose message has bytes of the file
        raise UsageError("this is not a key but some other file", where=path, remedy=RANDOM) from None


def _checked(text: str, where: str) -> str:
    """Raises: UsageError, without the text."""
    key = text.strip()
    if not key:
        raise UsageError("the key is empty", where=where, remedy=RANDOM)
    if len(key) > LONGEST or not all("!" <= character <= "~" for character in key):
        raise UsageError(
            f"a key is one line of at most {LONGEST} ASCII characters without spaces", where=where, remedy=RANDOM
        )
    if len(key) < SHORTEST:
        raise UsageError(f"the key has {len(key)} characters; it needs {SHORTEST}", where=where, remedy=RANDOM)
    return key

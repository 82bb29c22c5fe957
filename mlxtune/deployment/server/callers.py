"""Who may call the server: by which name it was reached, and from which web page.

A browser sends requests for any page that it shows. Two headers, which a page cannot forge, tell such requests apart:
Host, the name in the address bar, and Origin, the page's own place. A name that an attacker has pointed at this
machine (DNS rebinding) is in Host, and a page of theirs is in Origin. Programs other than browsers may send what they
like, so this keeps out pages, not programs; the key does that. The price is that a server that is reached by another
name than the one it listens on has to be told that name.
"""

import re
from ipaddress import ip_address

from mlxtune.deployment.server.errors import ApiError
from mlxtune.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names by which a machine means itself."""
ANY = ("0.0.0.0", "::")  # noqa: S104 - told apart from the others here, not listened on
"""Addresses that mean all of the machine's."""
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on ``host``."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_names(hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
    """Refuse names and origins that no browser would send. Raises: UsageError."""
    for host in hosts:
        if not _is_address(host) and not re.fullmatch(r"[0-9A-Za-z._-]+", host):
            raise UsageError(f"{host!r} is not the name of a host", remedy="give a name alone, such as mac.local")
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"{origin!r} is not the origin of a web page",
                remedy="give scheme, host and port in small letters, such as http://localhost:3000",
            )


def check_host_header(values: list[bytes], bound: str, hosts: tuple[str, ...]) -> str:
    """The Host of a request to a server that listens on ``bound``, in lower case.

    Known are the names of loopback, ``bound`` and ``hosts``, each with any port: a tunnel may have another one. Where
    ``bound`` stands for all addresses, any address is known and no name: only names can be pointed elsewhere.

    Args:
        values: of the header; more or fewer than one is refused.

    Raises: ApiError, 400 or 421.
    """
    if len(values) != 1:
        raise ApiError(400, f"a request has one Host header; this one has {len(values)}", code="invalid_host")
    host = values[0].decode("latin-1").lower()
    found = _HOST.fullmatch(host)
    if found is None:
        raise ApiError(400, f"the Host header is not a host: {host!r:.80}", code="invalid_host")
    name = found[1] or found[2]
    if name not in (*LOOPBACK, bound.lower(), *(one.lower() for one in hosts)) and not (
        bound in ANY and _is_address(name)
    ):
        said = f"this server does not go by the name {name!r:.80}; ask it by the address that it told when it started"
        raise ApiError(421, said, code="unknown_host")
    return host


def check_origin_header(values: list[bytes], host: str, origins: tuple[str, ...]) -> None:
    """Refuse a request of a web page that is neither the server's own nor one of ``origins``.

    The server's own pages are those of the request's ``host``, with either scheme, since something that speaks TLS may
    stand in between. A request without the header is none of a page of another site that could read the answer.

    Raises: ApiError, 403.
    """
    if not values:
        return
    origin = values[0].decode("latin-1").lower()
    own = (f"http://{host}", f"https://{host}")
    if len(values) > 1 or origin not in (*own, *origins):
        said = f"a page of {origin!r:.80} may not use this server, which takes requests of its own pages alone"
        raise ApiError(403, said, code="unknown_origin")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

"""The network, put off: Python's sockets refuse and name who tried, native code gets the variables that it obeys.

What stays open is this machine: loopback, and sockets between its processes. The guard is an audit hook of Python's,
which sees every socket however it was made and patches nobody's classes; it is put up when the network is first off,
and since such a hook cannot be taken down it asks each time whether the network is off still. The price is a
microsecond for each of Python's audit events from then on. Knows addresses and frames; what is fetched, and whether
that may be, network.py knows. Native code opens sockets unseen: of what is used here none does but MLX's between the
ranks of one training, which is what a training on several machines is, and hence exempt.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from types import FrameType
from typing import Any

from mlxtune.errors import NetworkError
from mlxtune.network import CLOSED_BY_US, GO_ONLINE, HUB_OFFLINE, HUB_SILENT, OFFLINE, close_hub, is_offline
from mlxtune.printable import printable

NOWHERE = ("127.0.0.1", 9)
"""The address of a proxy that is none: programs that ask it get no further than this machine."""
THROUGH_NOWHERE = f"http://{NOWHERE[0]}:{NOWHERE[1]}"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
THIS_MACHINE = "localhost,127.0.0.1,::1"
OBEYED = {
    **dict.fromkeys((*HUB_OFFLINE, *HUB_SILENT, "HF_DATASETS_OFFLINE", "DO_NOT_TRACK"), "1"),  # Hugging Face's
    "PIP_NO_INDEX": "1",
    "UV_OFFLINE": "1",
    "GIT_ALLOW_PROTOCOL": "file",  # git fetches what a partial clone lacks, even to tell its state
    "AWS_EC2_METADATA_DISABLED": "true",  # Arrow's, of whom it would ask where it runs
    **dict.fromkeys(PROXIES, THROUGH_NOWHERE),  # libcurl's, Rust's and Go's, and those of most that speak HTTP
    **dict.fromkeys(("no_proxy", "NO_PROXY"), THIS_MACHINE),
}
"""What programs and libraries in native code, and child processes, are told by their environment."""

WANTED = {
    "socket.connect": "connect to",
    "socket.bind": "be reached at",
    "socket.sendto": "send to",
    "socket.sendmsg": "send to",
    "socket.getaddrinfo": "look up",
    "socket.gethostbyname": "look up",
    "socket.gethostbyaddr": "look up",
    "socket.getnameinfo": "look up",
}
"""Python's audit events by which a socket reaches out, and what each means."""
HAVE_SOCKETS = ("connect", "bind", "sendto", "sendmsg")
NAMES_OF_THIS_MACHINE = {"localhost", "ip6-localhost"}
WITHIN = {"AF_UNIX", "AF_NETLINK", "AF_SYSTEM"}
"""Families of sockets that end on this machine: other processes, and the kernel of Linux and of macOS."""

PLUMBING = {"anyio", "asyncio", "h11", "h2", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"}
"""Packages that connect on somebody's behalf, beside the standard library."""


def close_network() -> None:
    """Put the network off in this process and its children; nothing here puts it on again."""
    os.environ[OFFLINE] = "1"
    close_hub()  # before the variables below: it notes whether the user had closed the hub
    os.environ.update(OBEYED)
    _put_up_guard()


@contextlib.contextmanager
def network_off(*, when: bool = True) -> Iterator[None]:
    """Within the block the network is off, if ``when`` says so; for the whole process, not this thread alone."""
    if not when:
        yield
        return
    before = {name: os.environ.get(name) for name in (OFFLINE, CLOSED_BY_US, *OBEYED)}
    settings = sys.modules.get("huggingface_hub.constants")
    was_closed = getattr(settings, "HF_HUB_OFFLINE", None)
    close_network()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _give_back_hub(was_closed)


def _give_back_hub(was_closed: bool | None) -> None:
    """Let huggingface_hub do as the environment says again, or as it did before; its session may know our proxy."""
    settings: Any = sys.modules.get("huggingface_hub.constants")
    if settings is None:
        return
    if was_closed is None:  # it was imported meanwhile
        was_closed = any(os.environ.get(name, "").upper() in settings.ENV_VARS_TRUE_VALUES for name in HUB_OFFLINE)
    settings.HF_HUB_OFFLINE = was_closed
    sessions: Any = sys.modules.get("huggingface_hub.utils._http")
    if sessions is not None:
        sessions.close_session()


@functools.cache
def _put_up_guard() -> None:
    import socket

    within = {getattr(socket, name) for name in WITHIN if hasattr(socket, name)}

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WANTED or not is_offline():
            return
        if event.removeprefix("socket.") not in HAVE_SOCKETS:
            address = arguments[0]
        elif arguments[0].family in within:
            return
        else:
            address = arguments[1]
        if not _stays_here(address):
            raise _refusal(WANTED[event], address)

    sys.addaudithook(guard)


def _stays_here(address: Any) -> bool:
    """Whether an address, or the name or number of a host, is this machine's own loopback; None is nobody else's."""
    if isinstance(address, tuple):
        if address[:2] == NOWHERE:
            return False
        address = address[0] if address else None
    if address is None:
        return True
    host = _text(address)
    try:
        number = ip_address(host)
    except ValueError:
        return host.lower() in NAMES_OF_THIS_MACHINE
    return (getattr(number, "ipv4_mapped", None) or number).is_loopback


def _refusal(wanted: str, address: Any) -> NetworkError:
    who, where = _who(sys._getframe(2))  # noqa: SLF001 - past this function and the guard; traceback's walk is slower
    if isinstance(address, tuple) and address[:2] == NOWHERE:
        what = "another machine"
    elif isinstance(address, tuple):
        what = ":".join(printable(_text(part) or "any") for part in address[:2])
    else:
        what = printable(_text(address))
    return NetworkError(f"{who} wanted to {wanted} {what}, and the network is off", where=where, remedy=GO_ONLINE)


def _text(part: Any) -> str:
    return part.decode("utf-8", "backslashreplace") if isinstance(part, (bytes, bytearray)) else str(part)


def _who(frame: FrameType | None) -> tuple[str, str]:
    """The innermost function that is no plumbing, with its module, and its place; without one the innermost."""
    found = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "?"))
        named = (f"{module}.{frame.f_code.co_qualname}", f"{frame.f_code.co_filename}:{frame.f_lineno}")
        found = found or named
        package = module.partition(".")[0]
        if package == "__main__" or (package not in PLUMBING and package not in sys.stdlib_module_names):
            return named
        frame = frame.f_back
    return found or ("?", "?")

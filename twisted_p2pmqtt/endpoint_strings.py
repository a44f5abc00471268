"""What a Twisted server endpoint string says, found out without opening anything.

Twisted parses the string, so that every form it knows, plugins included, is understood here too.  To learn *where* one
of Twisted's own kinds would listen, the endpoint is told to listen on a stand-in reactor that only writes the address
down.  Endpoints of plugins are never told to listen: nobody knows what theirs does.

Must not know the configuration; must not import the reactor.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.internet.protocol import ServerFactory
from twisted.plugin import getPlugins

_IN_ENDPOINTS_PY = ("tcp", "ssl", "unix")  # the kinds that are no plugins
_SAFE_TO_TRY = ("tcp", "tcp6", "ssl", "tls", "unix")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where an endpoint listens.  ``port`` is None, and ``host`` a path, where ``kind`` is ``unix``."""

    kind: str
    host: str
    port: int | None

    @property
    def is_local(self) -> bool:
        """True where only this machine's own processes can connect."""
        if self.kind == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:  # "" (all interfaces) or a name
            return False


def endpoint_kind(description: str) -> str:
    """The part of an endpoint string before its first colon: ``tcp`` of ``tcp:1883``."""
    return description.partition(":")[0]


def known_kinds() -> list[str]:
    """The endpoint kinds that this installation of Twisted can listen on, its plugins included; sorted."""
    plugins = getPlugins(IStreamServerEndpointStringParser)
    return sorted({*_IN_ENDPOINTS_PY, *(plugin.prefix for plugin in plugins)})


def inherits_sockets(environ: Mapping[str, str] = os.environ) -> bool:
    """True where systemd handed listening sockets to this process."""
    return "LISTEN_FDS" in environ


def check_endpoint(description: str) -> None:
    """Raise ValueError, saying what is wrong and what is allowed, unless Twisted can make sense of ``description``.

    Reads the certificate files that an ``ssl:`` endpoint names; opens no socket.  A ``systemd:`` endpoint is only
    looked up where systemd really started this process, as its sockets exist nowhere else.
    """
    kind = endpoint_kind(description)
    kinds = known_kinds()
    if kind not in kinds:
        hint = difflib.get_close_matches(kind, kinds, n=1)
        meant = f"; did you mean {hint[0]!r}?" if hint else ""
        raise ValueError(f"unknown endpoint type {kind!r}, must be one of {', '.join(kinds)}{meant}")
    if kind == "systemd" and not inherits_sockets():
        return
    try:
        serverFromString(_NoReactor(), description)
    except Exception as error:  # the parsers raise whatever their int(), open() or OpenSSL raises
        reason = str(error) or type(error).__name__
        raise ValueError(f"not a valid endpoint string: {description!r} ({reason})") from error
    address = listen_address(description)
    if address is not None and address.port is not None and not 0 <= address.port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {address.port}")


def listen_address(description: str) -> ListenAddress | None:
    """Where ``description`` listens, or None where that cannot be known (plugins, inherited sockets, a bad string).

    ``haproxy:`` is None on purpose: its loopback address says where the proxy is, not where the clients are.
    """
    if endpoint_kind(description) not in _SAFE_TO_TRY:
        return None
    recorder = _NoReactor()
    try:
        serverFromString(recorder, description).listen(ServerFactory()).addErrback(lambda _: None)
    except Exception:
        return None
    return recorder.address


class _NoReactor:
    """Stands where an endpoint expects its reactor; remembers the address and listens nowhere."""

    address: ListenAddress | None = None

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        self.address = ListenAddress("tcp", interface, port)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> None:
        self.address = ListenAddress("tcp", interface, port)

    def listenUNIX(self, address: str, *args: Any, **kwargs: Any) -> None:
        self.address = ListenAddress("unix", address, None)

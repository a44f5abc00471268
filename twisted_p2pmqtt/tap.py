"""``twistd p2pmqtt``: its command line, and the service that it starts.

The configuration is read while the options are parsed, long before a port opens, so that a mistake in it is told on
stderr, every one of them, with exit code 1 and without a traceback.  ``twistd`` itself decides about daemons, pid files
and users; nothing here does.

Knows the settings; must not know how a broker is put together, which is for ``service``.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from twisted.application.service import IService
from twisted.python import usage

from . import __version__
from .config import ConfigError, Override, Settings, anonymous_allowed, load_settings, warnings


class Options(usage.Options):
    """The options of ``twistd p2pmqtt``.  ``settings`` is what they and the configuration come to, once parsed."""

    synopsis = "[options]"
    longdesc = (
        "An MQTT 3.1, 3.1.1 and 5.0 broker with P2P messages. What is given here wins over P2PMQTT__... variables"
        " of the environment, and these win over the file."
    )
    optParameters = [
        ["config", "c", None, "The configuration, a TOML file."],
        ["p2p-mode", None, None, "off, prefix, suffix, both, or package.module:factory of a router of your own."],
        ["store", None, None, "Where to keep sessions and retained messages: sqlite or memory."],
        ["store-path", None, None, "The database file of the sqlite store."],
    ]
    optFlags = [
        ["check", None, "Check the configuration, say what it comes to, and exit: 0 if it is good, else 1."],
        ["recover", None, "Set a damaged store aside and go on with what is readable in it."],
    ]

    settings: Settings

    def opt_listen(self, endpoint: str) -> None:
        """Listen here instead of where the configuration says: an endpoint string such as tcp:1883; repeatable."""
        self.setdefault("listen", []).append(endpoint)

    opt_l = opt_listen

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"twisted_p2pmqtt {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Read the configuration; with --check, report and exit.  SystemExit(1) where it cannot be used."""
        try:
            self.settings = load_settings(self["config"], os.environ, self._overrides())
            if self["check"]:
                from .service import check_files

                check_files(self.settings)
        except ConfigError as error:
            _give_up(error)
        if self["check"]:
            print("\n".join(report(self.settings)))
            raise SystemExit(0)

    def _overrides(self) -> list[Override]:
        overrides = []
        if "listen" in self:
            listeners = [{"endpoint": endpoint} for endpoint in self["listen"]]
            overrides.append(Override(("listener",), listeners, "--listen"))
        if self["p2p-mode"] is not None:
            overrides.append(Override(("p2p", "mode"), self["p2p-mode"], "--p2p-mode"))
        if self["store"] is not None:
            overrides.append(Override(("store", "type"), self["store"], "--store"))
        if self["store-path"] is not None:
            # As with any command: from where it is given, not from where the configuration is.
            path = os.path.abspath(self["store-path"]) if self["store-path"] else ""
            overrides.append(Override(("store", "path"), path, "--store-path"))
        return overrides


def report(settings: Settings) -> list[str]:
    """What ``settings`` come to, for people; one line of text each."""
    lines = ["The configuration is good."]
    for index, listener in enumerate(settings.listeners):
        details = [listener.transport + (f" at {listener.websocket_path}" if listener.transport == "websocket" else "")]
        if listener.tls is not None:
            details.append(f"TLS, client certificate {listener.tls.client_certificate}")
        details.append("anonymous clients " + ("allowed" if anonymous_allowed(listener, settings.auth) else "refused"))
        lines.append(f"listener.{index}: {listener.endpoint}: {', '.join(details)}")
    lines.append(f"p2p: {settings.p2p.mode}, marker {settings.p2p.marker!r}")
    store = settings.store
    lines.append("store: memory" if store.type == "memory" else f"store: sqlite at {store.path}, {store.durability}")
    auth = settings.auth
    ways = {"passwords": auth.password_file, "ACL": auth.acl_file, "JWT": auth.jwt, "HTTP": auth.http}
    lines.append("auth: " + (", ".join(name for name, way in ways.items() if way is not None) or "none"))
    return lines + [f"warning: {warning}" for warning in warnings(settings)]


def makeService(options: Options) -> IService:
    """The broker as a service, made from parsed options, for ``twistd`` to start.

    Where it cannot be made of them, that is told on stderr: SystemExit(1).
    """
    from twisted.internet import reactor

    from .service import MQTTService

    try:
        return MQTTService.from_settings(options.settings, reactor, recover=bool(options["recover"]))
    except ConfigError as error:
        _give_up(error)


def _give_up(error: ConfigError) -> NoReturn:
    for problem in error.problems:
        print(problem, file=sys.stderr)
    raise SystemExit(1)

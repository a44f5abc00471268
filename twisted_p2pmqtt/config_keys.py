"""Every key of the configuration and what it allows, one table of the file after another.

A check takes the value as TOML gave it and returns what the settings keep, or raises ValueError with a text that says
what is wrong and what is allowed.  The names are normative: tools outside the project rely on them; more may be added,
none renamed.  Defaults are not here but in the settings classes, so that each stands in one place.

Knows one value at a time.  What concerns several keys is checked in config.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from .endpoint_strings import check_endpoint

Check = Callable[[Any], Any]

P2P_MODES = ("off", "prefix", "suffix", "both")
_COUNT = 2**31 - 1  # no limit that anyone would reach; keeps a slipped finger from becoming a huge number
_BYTES = 2**40
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")
_HMAC = ("HS256", "HS384", "HS512")
_SIGNED = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA")


def near_miss(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing where no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """A value as an error quotes it: as TOML would have it, and cut where it is long."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _refused(allowed: str, value: object, hint: str = "") -> ValueError:
    return ValueError(f"must be {allowed}, got {shown(value)}{hint}")


# Kinds of values


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refused("true or false", value)
    return value


def whole(low: int, high: int) -> Check:
    """A whole number from ``low`` to ``high``, both included."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:  # True is an int to Python, not to us
            raise _refused(f"a whole number from {low} to {high}", value)
        return value

    return check


def number(low: float, high: float) -> Check:
    """A finite number from ``low`` to ``high``, both included; whole ones become floats."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            raise _refused(f"a number from {low:g} to {high:g}", value)
        return float(value)

    return check


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _refused("a string, not empty", value)
    return value


def choice(*allowed: str) -> Check:
    def check(value: Any) -> str:
        if value not in allowed:
            hint = near_miss(value, allowed) if isinstance(value, str) else ""
            raise _refused("one of " + ", ".join(map(repr, allowed)), value, hint)
        return str(value)

    return check


def list_of(check_one: Check, least: int = 0) -> Check:
    """A list of values that each pass ``check_one``, at least ``least`` of them; the settings keep a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _refused("a list", value)
        if len(value) < least:
            raise _refused(f"a list of at least {least}", value)
        return tuple(check_one(item) for item in value)

    return check


def path_from(base: str) -> Check:
    """A file name, made absolute from the directory ``base``."""

    def check(value: Any) -> str:
        return os.path.normpath(os.path.join(base, text(value)))

    return check


def readable_file(base: str) -> Check:
    def check(value: Any) -> str:
        path = str(path_from(base)(value))
        try:
            with open(path, "rb"):
                return path
        except OSError as error:
            raise ValueError(f"must be a file that can be read, {path!r} is not: {error.strerror}") from error

    return check


def database_file(base: str) -> Check:
    """A file that exists, or could be made: its directory does."""

    def check(value: Any) -> str:
        path = str(path_from(base)(value))
        if os.path.isdir(path):
            raise ValueError(f"must be a file, {path!r} is a directory")
        if not os.path.isdir(os.path.dirname(path)):
            raise ValueError(f"must be in a directory that exists, {os.path.dirname(path)!r} does not")
        return path

    return check


def url(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s/]\S*", value):
        raise _refused("a URL, http://... or https://...", value)
    return value


def require(module: str, extra: str) -> None:
    """Raise ValueError, with the command that helps, where ``module`` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"needs {module}, which is not installed: pip install 'twisted_p2pmqtt[{extra}]'")


# Values of one key only


def endpoint(value: Any) -> str:
    check_endpoint(text(value))
    return str(value)


def transport(value: Any) -> str:
    checked = str(choice("mqtt", "websocket")(value))
    if checked == "websocket":
        require("wsproto", "websocket")
    return checked


def web_path(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s?#]*", value):
        raise _refused("a path that starts with / and has no ? or #", value)
    return value


def origin(value: Any) -> str:
    if not isinstance(value, str) or not (value == "null" or _ORIGIN.fullmatch(value)):
        raise _refused("a list of origins such as 'https://example.org', without a path", value)
    return value


def p2p_mode(value: Any) -> str:
    if isinstance(value, str) and (value in P2P_MODES or _FACTORY.fullmatch(value)):
        return value
    hint = near_miss(value, P2P_MODES) if isinstance(value, str) else ""
    raise _refused("one of 'off', 'prefix', 'suffix', 'both', or 'package.module:factory'", value, hint)


def marker(value: Any) -> str:
    if not isinstance(value, str) or not value or value.startswith("$") or re.search(r"[/+#\x00-\x1f\x7f]", value):
        raise _refused("one topic level: not empty, without / + # or control characters, not starting with $", value)
    return value


# Tables


def listener_keys() -> dict[str, Check]:
    return {
        "endpoint": endpoint,
        "transport": transport,
        "websocket_path": web_path,
        "allowed_origins": list_of(origin),
        "allow_anonymous": boolean,
        "max_connections": whole(1, _COUNT),
    }


def tls_keys(base: str) -> dict[str, Check]:
    return {
        "certificate": readable_file(base),
        "private_key": readable_file(base),
        "client_ca": readable_file(base),
        "client_certificate": choice("none", "optional", "required"),
        "identity": choice("none", "cn", "subject"),
    }


def p2p_keys() -> dict[str, Check]:
    return {
        "mode": p2p_mode,
        "marker": marker,
        "deliver_topic": choice("business", "original", "reply"),
        "on_malformed": choice("reject", "publish"),
        "overflow": choice("reject", "drop_oldest"),
        "max_queued": whole(0, _COUNT),
        "stamp_sender": boolean,
        "check_receive": boolean,
        "hide_presence": boolean,
    }


def limit_keys() -> dict[str, Check]:
    return {
        "connect_timeout": number(0.1, 3600),
        "max_packet_size": whole(64, 268_435_460),  # the largest there is: a 4-byte length and 5 bytes before it
        "max_qos": whole(0, 2),
        "retain_available": boolean,
        "wildcard_subscriptions": boolean,
        "shared_subscriptions": boolean,
        "subscription_identifiers": boolean,
        "validate_payload_format": boolean,
        "receive_maximum": whole(1, 65_535),
        "max_inflight": whole(1, 65_535),
        "topic_alias_maximum": whole(0, 65_535),
        "max_queued_messages": whole(0, _COUNT),
        "max_queued_bytes": whole(0, _BYTES),
        "max_total_queued_bytes": whole(0, _BYTES),
        "max_qos0_pending_bytes": whole(0, _BYTES),
        "max_retained_messages": whole(0, _COUNT),
        "max_retained_bytes": whole(0, _BYTES),
        "max_subscriptions": whole(0, _COUNT),
        "max_topic_levels": whole(1, 65_536),
        "max_topic_bytes": whole(1, 65_535),
        "max_client_id_bytes": whole(23, 65_535),  # [MQTT-3.1.3-5]: 23 bytes must be allowed
        "min_keep_alive": whole(0, 65_535),
        "max_keep_alive": whole(0, 65_535),
        "max_session_expiry": whole(0, 4_294_967_295),
        "max_sessions": whole(1, _COUNT),
        "write_stall_timeout": number(0.1, 3600),
        "connections_per_address": whole(0, _COUNT),
        "connects_per_second_per_address": number(0, _COUNT),
        "publish_rate": number(0, _COUNT),
        "publish_burst": whole(0, _COUNT),
    }


def store_keys(base: str) -> dict[str, Check]:
    return {
        "type": choice("sqlite", "memory"),
        "path": database_file(base),
        "durability": choice("commit", "full"),
    }


def auth_keys(base: str) -> dict[str, Check]:
    return {
        "password_file": readable_file(base),
        "acl_file": readable_file(base),
        "client_id_prefix_of_user": boolean,
    }


def jwt_keys(base: str) -> dict[str, Check]:
    return {
        "algorithms": algorithms,
        "key_file": readable_file(base),
        "jwks_url": url,
        "audience": text,
    }


def algorithms(value: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = list_of(choice(*_SIGNED, *_HMAC), least=1)(value)
    # One key for both kinds lets anyone who knows the public key sign with it.
    if any(name in _HMAC for name in names) and any(name in _SIGNED for name in names):
        raise _refused("either signatures (RS, ES, PS, EdDSA) or secrets (HS), not both", value)
    return names


def http_keys() -> dict[str, Check]:
    return {"url": url, "timeout": number(0.01, 60)}

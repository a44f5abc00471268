"""The brokers as processes of their own: configure, start, wait until ready, stop.

Each has a directory of its own that goes with it, listens on the loopback interface only, and is held to one core.

`BrokerSpec` says what a row needs; a broker that cannot do it, or is not installed, raises `NotAvailable`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import ipaddress
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.probes import NotAvailable, check_acl, check_connection, check_store

ROOT = Path(__file__).resolve().parent.parent
NODE = Path(__file__).resolve().parent / "node"
BROKER_CORE, LOAD_CORE = 0, 1
START_TIMEOUT = 20.0
STOP_TIMEOUT = 20.0
STORE_FILE = "store.db"
LOTS = 100_000_000  # a limit that no row reaches


@dataclasses.dataclass(frozen=True)
class BrokerSpec:
    """`store`: none; for ours commit or full (sqlite's durability); for mosquitto persistence. `acl`: with an ACL file.
    `deep_queues`: the bounds on what may wait for an offline client are raised out of the way. `hide_presence`: ours
    does not tell who is there."""

    name: str = "ours"
    transport: str = "tcp"
    store: str = "none"
    acl: bool = False
    deep_queues: bool = False
    hide_presence: bool = False


@dataclasses.dataclass(frozen=True)
class Running:
    """A broker that accepts connections."""

    port: int
    pid: int
    version: str


@contextlib.contextmanager
def child_conditions(core: int) -> Iterator[None]:
    """While the block runs, this thread is as its children shall be: on one core, where there is such a core, and
    allowed to open as many files as may be. Children inherit both, from their first instruction on."""
    cores = os.sched_getaffinity(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if core in cores:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to outgoing connections."""
    for _ in range(100):
        port = random.randrange(20000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port
    raise NotAvailable("no free port")


@contextlib.contextmanager
def running(spec: BrokerSpec) -> Iterator[Running]:
    """The broker while the block runs. Raises NotAvailable, with its last words, where it ends before it is ready, and
    where it does not do what the spec asks for, though it did not refuse to start."""
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="p2pmqtt-bench-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(temporary))
        # mosquitto, started by root, drops to a user of its own, who must reach its certificate and its store.
        directory.chmod(0o777)
        port, log = free_port(), directory / "log"
        process = start(spec, port, directory)
        stack.callback(stop, process)
        _wait_until_ready(process, port, log)
        check_connection(spec.transport, port)
        if spec.acl:
            check_acl(port)
        yield Running(port, process.pid, version(spec.name))
        if process.poll() is not None:
            raise RuntimeError(f"{spec.name} ended with {process.returncode}: {_last_words(log)}")
        if spec.name == "ours" and spec.store != "none":
            check_store(directory / STORE_FILE)


def start(spec: BrokerSpec, port: int, directory: Path) -> subprocess.Popen[bytes]:
    """The broker's process, not waited for; its output is in the directory's file `log`."""
    command, log = _COMMANDS[spec.name](spec, port, directory), directory / "log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("P2PMQTT_")}
    with log.open("wb") as output, child_conditions(BROKER_CORE):
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotAvailable(_last_words(log) or f"ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise NotAvailable(f"not ready after {START_TIMEOUT:.0f} s: {_last_words(log)}")


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-200:] if lines else ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it, in order if it does."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# Ours


def _ours(spec: BrokerSpec, port: int, directory: Path) -> list[str]:
    config = directory / "p2pmqtt.toml"
    config.write_text(ours_config(spec, port, directory))
    # Not the twistd script: it may be another interpreter's. The empty first entry that -c puts on sys.path is the
    # checkout, so that twistd finds the plugin whether or not the package is installed.
    twistd = "from twisted.scripts.twistd import run; run()"
    options = ["--nodaemon", f"--pidfile={directory / 'pid'}", "p2pmqtt", "--config", str(config)]
    return [sys.executable, "-c", twistd, *options]


def ours_config(spec: BrokerSpec, port: int, directory: Path) -> str:
    """Shipped defaults, anonymous clients, and what the row asks for."""
    transport = "websocket" if spec.transport == "websocket" else "mqtt"
    lines = ["[[listener]]", f'endpoint = "tcp:{port}:interface=127.0.0.1"', f'transport = "{transport}"']
    lines.append("allow_anonymous = true")
    if spec.transport == "tls":
        certificate, key = make_certificate(directory)
        lines += ["[listener.tls]", f'certificate = "{certificate}"', f'private_key = "{key}"']
    if spec.store == "none":
        lines += ["[store]", 'type = "memory"']
    else:
        lines += ["[store]", 'type = "sqlite"', f'path = "{directory / STORE_FILE}"', f'durability = "{spec.store}"']
    if spec.acl:
        lines += ["[auth]", f'acl_file = "{_acl_file(directory)}"']
    lines += ["[p2p]", f"hide_presence = {str(spec.hide_presence).lower()}"]
    if spec.deep_queues:
        lines += [f"max_queued = {LOTS}", "[limits]", f"max_queued_messages = {LOTS}"]
        lines += [f"max_queued_bytes = {LOTS * 100}", f"max_total_queued_bytes = {LOTS * 100}"]
    return "\n".join(lines) + "\n"


def _acl_file(directory: Path) -> Path:
    """What a site may have: rules for everybody, of which the last one matters here, and users of its own."""
    path = directory / "acl"
    lines = ["topic deny p2p/+/secret/#"]
    lines += [f"topic read site/{k}/#" for k in range(50)]
    lines += ["topic readwrite p2p/#", "pattern readwrite clients/%c/#"]
    for k in range(100):
        lines += [f"user user{k}", f"topic readwrite users/{k}/#"]
    path.write_text("\n".join(lines) + "\n")
    return path


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, good for a day."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise NotAvailable("no certificate: the package cryptography is not installed") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(address, critical=False)
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(1))
    certificate_path, key_path = directory / "server.pem", directory / "server.key"
    pem = serialization.Encoding.PEM
    certificate_path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return certificate_path, key_path


# Others


def _mosquitto(spec: BrokerSpec, port: int, directory: Path) -> list[str]:
    config = directory / "mosquitto.conf"
    config.write_text(mosquitto_config(spec, port, directory))
    return [_executable("mosquitto", "/usr/sbin/mosquitto"), "-c", str(config)]


def mosquitto_config(spec: BrokerSpec, port: int, directory: Path) -> str:
    """Its bounds on queues off, for it would drop where others hold back; log lines only for errors."""
    lines = [f"listener {port} 127.0.0.1"]
    if spec.transport == "websocket":
        # 2.0 does not start with WebSocket listeners alone, and these take any IPv6 address unless told.
        lines = [f"listener {free_port()} 127.0.0.1", *lines, "protocol websockets", "socket_domain ipv4"]
    if spec.transport == "tls":
        certificate, key = make_certificate(directory)
        key.chmod(0o644)
        lines += [f"certfile {certificate}", f"keyfile {key}"]
    lines += ["allow_anonymous true", "max_inflight_messages 0", "max_queued_messages 0", "set_tcp_nodelay true"]
    lines.append("log_type error")
    if spec.store == "none":
        lines.append("persistence false")
    else:
        lines += ["persistence true", f"persistence_location {directory}/"]
    if spec.acl:
        lines.append(f"acl_file {_acl_file(directory)}")
    return "\n".join(lines) + "\n"


def _aedes(spec: BrokerSpec, port: int, directory: Path) -> list[str]:
    if not (NODE / "node_modules" / "aedes").is_dir():
        raise NotAvailable("aedes is not installed: npm install in benchmarks/node")
    return [_executable("node"), str(NODE / "aedes.js"), str(port)]


def _amqtt(spec: BrokerSpec, port: int, directory: Path) -> list[str]:
    config = directory / "amqtt.yaml"
    config.write_text(
        f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
    )
    return [_amqtt_script(), "-c", str(config)]


def _amqtt_script() -> str:
    return _executable("amqtt", os.environ.get("AMQTT", ""), str(Path(sys.executable).with_name("amqtt")))


def _executable(name: str, *elsewhere: str) -> str:
    for candidate in (*elsewhere, name):
        found = shutil.which(candidate) if candidate else None
        if found:
            return found
    raise NotAvailable(f"{name} is not installed")


_COMMANDS: dict[str, Callable[[BrokerSpec, int, Path], list[str]]] = {
    "ours": _ours,
    "mosquitto": _mosquitto,
    "aedes": _aedes,
    "amqtt": _amqtt,
}


@functools.lru_cache
def version(name: str) -> str:
    """The broker's own word for its version, or `?`."""
    try:
        if name == "ours":
            import twisted_p2pmqtt

            return str(getattr(twisted_p2pmqtt, "__version__", "?"))
        if name == "mosquitto":
            return _first_line([_executable("mosquitto", "/usr/sbin/mosquitto"), "-h"]).split()[-1]
        if name == "aedes":
            return _first_line(
                [_executable("node"), "-p", "JSON.parse(fs.readFileSync('node_modules/aedes/package.json')).version"]
            )
        return _first_line([_amqtt_script(), "--version"]).split()[-1]
    except (ImportError, IndexError, NotAvailable, OSError, subprocess.SubprocessError):
        return "?"


def _first_line(command: Sequence[str]) -> str:
    cwd = NODE if NODE.is_dir() else None
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0]

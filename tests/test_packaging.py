"""What a user installs: the sdist, the wheel, the tree itself and an editable install each bring ``twistd p2pmqtt``.

All in a fresh virtual environment, from a copy of the tree, with a working directory elsewhere, as only that shows what
is missing from a package.  Needs a package index for Twisted and setuptools.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from twisted_p2pmqtt import __version__

pytestmark = [pytest.mark.packaging, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
SOURCES = (
    "setup.cfg",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "p2pmqtt.example.toml",
)
FOLDERS = ("twisted_p2pmqtt", "twisted", "tests", "docs")
LEFTOVERS = shutil.ignore_patterns("__pycache__", "dropin.cache", "node_modules", "*.egg-info")

CONNECT = bytes.fromhex("10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61")  # MQTT 3.1.1, clean session, client id "a"
CONNACK = bytes.fromhex("20 02 00 00")


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """Run a command without what this process was told for itself, give what it prints; fails unless it exits so."""
    own = ("PYTHONPATH", "PYTHONHOME", "P2PMQTT_MYPYC")
    environ = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environ, text=True, capture_output=True, timeout=300
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, f"{command} exited with {done.returncode}:\n{output}"
    return output


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without what building, running and testing it leaves behind."""
    tree = tmp_path_factory.mktemp("packaging") / "tree"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=LEFTOVERS)
    return tree


@pytest.fixture(scope="module")
def dist(tree: Path) -> Path:
    """The sdist, and the wheel that is built from it."""
    run(sys.executable, "-m", "build", "--outdir", tree.parent / "dist", tree, cwd=tree.parent)
    return tree.parent / "dist"


@pytest.fixture(scope="module")
def bin_directory(dist: Path) -> Path:
    """A virtual environment's commands; the wheel is installed, with what it depends on and nothing else."""
    venv.create(dist.parent / "venv", with_pip=True, symlinks=True)
    bin_directory = dist.parent / "venv" / "bin"
    run(bin_directory / "pip", "install", "-q", next(dist.glob("*.whl")), cwd=dist)
    return bin_directory


def package_files(tree: Path) -> set[str]:
    files = {path for suffix in ("*.py", "*.sql", "py.typed") for path in tree.rglob(suffix)}
    return {str(path.relative_to(tree)) for path in files}


def test_names_and_version(dist: Path) -> None:
    assert {path.name for path in dist.iterdir()} == {
        f"twisted_p2pmqtt-{__version__}.tar.gz",
        f"twisted_p2pmqtt-{__version__}-py3-none-any.whl",
    }


def test_wheel_holds_the_package_and_nothing_else(tree: Path, dist: Path) -> None:
    expected = {name for name in package_files(tree) if name.startswith(("twisted_p2pmqtt/", "twisted/"))}
    assert {"twisted/plugins/p2pmqtt_plugin.py", "twisted_p2pmqtt/py.typed"} <= expected
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = wheel.read(f"twisted_p2pmqtt-{__version__}.dist-info/METADATA").decode()
    assert names == expected
    for line in ("Requires-Python: >=3.10", "License-Expression: MIT", "License-File: LICENSE"):
        assert line in metadata.splitlines() or line.replace("-Expression", "") in metadata.splitlines()


def test_sdist_holds_its_tests(tree: Path, dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert package_files(tree) <= names
    assert {"LICENSE", "p2pmqtt.example.toml", "pyproject.toml"} <= names
    assert not any("__pycache__" in name or name.endswith("dropin.cache") for name in names)


def test_wheel_runs(bin_directory: Path, tmp_path: Path) -> None:
    assert f"twisted_p2pmqtt {__version__}" in run(bin_directory / "twistd", "p2pmqtt", "--version", cwd=tmp_path)
    assert "--listen" in run(bin_directory / "twistd", "p2pmqtt", "--help", cwd=tmp_path)
    assert "configuration is good" in run(bin_directory / "twistd", "p2pmqtt", "--check", cwd=tmp_path)
    (tmp_path / "bad.toml").write_text("[limits]\nmax_qos = 3\n[store]\ntype = 'x'\n")
    output = run(bin_directory / "twistd", "-n", "p2pmqtt", "-c", "bad.toml", cwd=tmp_path, code=1)
    assert [line.split(": ")[0] for line in output.splitlines()] == ["bad.toml:2", "bad.toml:4"]


def test_wheel_serves(bin_directory: Path, tmp_path: Path) -> None:
    """From the installed wheel: a client gets its CONNACK, and SIGTERM ends the broker in good order."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        broker = subprocess.Popen(
            [str(bin_directory / "twistd"), "-n", "--pidfile=", "p2pmqtt", "--listen", "unix:mqtt.sock"],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "mqtt.sock").exists():
            assert broker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "it neither listens nor ends"
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(tmp_path / "mqtt.sock"))
            client.sendall(CONNECT)
            assert client.recv(100) == CONNACK, log.read_text()
            broker.send_signal(signal.SIGTERM)
            # Once all is stopped, twistd ends by the signal that it was sent.
            assert broker.wait(15) == -signal.SIGTERM, log.read_text()
    finally:
        broker.kill()
        broker.wait()
    assert "Server Shut Down" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("way", ["sdist", "directory", "editable"])
def test_other_ways_to_install(bin_directory: Path, dist: Path, tree: Path, tmp_path: Path, way: str) -> None:
    run(bin_directory / "pip", "uninstall", "-q", "-y", "twisted_p2pmqtt", cwd=tmp_path)
    run(bin_directory / "twistd", "p2pmqtt", "--help", cwd=tmp_path, code=1)  # so that the next one proves something
    what = next(dist.glob("*.tar.gz")) if way == "sdist" else tree
    options = ["-e"] if way == "editable" else []
    run(bin_directory / "pip", "install", "-q", "--no-deps", *options, what, cwd=tmp_path)
    assert "--listen" in run(bin_directory / "twistd", "p2pmqtt", "--help", cwd=tmp_path)

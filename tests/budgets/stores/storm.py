"""Processes on one ledger while everything else goes wrong: a script, so that workers can fork without threads.

    python storm.py ADDRESS FOLDER [--seeds 1 2 3] [--server PID]

Each seed is one schedule in a budget of its own. Six workers make calls of up to $0.10. Meanwhile two of them are
killed with SIGKILL, others are stopped with SIGSTOP for longer than their lease; the store hangs (SQLite: another
process holds its lock; Redis: the server itself is stopped, `--server`) for longer than workers wait for it; an
operator sets the cap below what is spent and unsets it, and reconciles what is uncertain with the bill. What a call
costs is written to an independent record before the call runs. Prints one JSON object per schedule.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio

from streamguard.budgets.ledger import Denied, Ledger, LedgerLost, Store
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores.sqlite import SqliteStore

T = TypeVar("T")

CAP, MOST = 6_000_000, 100_000
"""Micro-USD of the budget, and of one call at the most."""
WORKERS, KILLED = 6, 2
SECONDS = 2.4
LEASE = 0.25
STOPPED = 0.5
"""Seconds that a worker is stopped: twice its lease."""
PATIENCE = 0.06
"""Seconds that a worker waits for a store."""
HANG = (0.1, 0.5)
SURE = 1.2
"""Seconds after which what is uncertain belongs to nobody who still runs, so that it may be reconciled."""


def open_store(address: str) -> Store:
    """A store of which nobody waits long for an answer."""
    kind, _, rest = address.partition(":")
    if kind == "sqlite":
        return SqliteStore(Path(rest), busy=PATIENCE)
    from streamguard.budgets.stores import redis

    redis.TIMEOUT, redis.LONGEST_PAUSE = PATIENCE / 4, 0.01
    return redis.RedisStore.at(address)


def patiently(verb: Callable[[], T]) -> T:
    """Ask a store until it answers."""
    until = time.monotonic() + 20
    while True:
        try:
            return verb()
        except LedgerLost:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


async def work(address: str, scope: str, seed: int, number: int, record: int) -> None:
    """One worker: calls, one after the other, each as the engine makes it."""
    chance = random.Random(seed * 1000 + number)
    ledger: Ledger | None = None
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        await anyio.sleep(chance.uniform(0.005, 0.03))
        try:
            ledger = ledger or Ledger(open_store(address))
            began = time.monotonic()
            hold = await ledger.reserve({scope: MOST}, lease=LEASE)
            if isinstance(hold, Denied):
                continue
            granted = time.monotonic()
            # As before a request is sent: the process may have been stopped since.
            if anyio.current_time() >= hold.heartbeat_due:
                await ledger.heartbeat(hold)
        except LedgerLost:
            continue
        cost = chance.randint(1, MOST)
        os.write(record, f"sent {hold.id} {cost} {began} {granted}\n".encode())
        await anyio.sleep(chance.uniform(0.0, 0.02))
        known = chance.random() > 0.15
        try:
            await ledger.settle(hold, {scope: Settlement(cost) if known else Settlement(0, MOST)})
        except LedgerLost:
            known = False
        if known:
            os.write(record, f"known {hold.id} 0 0 0\n".encode())


class Calls:
    """What the provider's record says."""

    def __init__(self, record: Path) -> None:
        self.sent: dict[str, tuple[int, float, float]] = {}
        """Hold → what it cost, when it was asked for, and when it was granted."""
        self.known: set[str] = set()
        for line in record.read_text().splitlines():
            what, hold, cost, began, granted = line.split()
            if what == "sent":
                self.sent[hold] = (int(cost), float(began), float(granted))
            else:
                self.known.add(hold)

    @property
    def true(self) -> int:
        return sum(cost for cost, _, _ in self.sent.values())


class Weather:
    """Everything that goes wrong in one schedule."""

    def __init__(self, address: str, scope: str, record: Path, pids: list[int], seed: int, server: int | None) -> None:
        self._address, self._scope, self._record, self._pids = address, scope, record, pids
        self._chance = random.Random(seed)
        self._server = server
        self._store = patiently(lambda: open_store(address))
        self._reconciled: set[str] = set()
        self._doomed = self._chance.sample(pids, KILLED)
        self._threads: list[threading.Thread] = []
        self.did: Counter[str] = Counter()
        self.low: list[tuple[float, float]] = []
        """Times between which the cap stood below what was taken."""

    def blow(self) -> None:
        """Do one thing after the other until the workers are done."""
        until = time.monotonic() + SECONDS
        acts = (self._stop, self._stop, self._hang, self._set, self._reconcile, self._sweep, self._sweep)
        while time.monotonic() < until:
            time.sleep(self._chance.uniform(0.02, 0.12))
            try:
                self._chance.choice(acts)()
            except LedgerLost:
                self.did["lost"] += 1
            if self._doomed and self._chance.random() < 0.15:
                os.kill(self._doomed.pop(), signal.SIGKILL)
        while self._doomed:
            os.kill(self._doomed.pop(), signal.SIGKILL)
        for thread in self._threads:
            thread.join()

    def _later(self, seconds: float, pid: int) -> None:
        def wake() -> None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)

        self._threads.append(threading.Thread(target=wake))
        self._threads[-1].start()

    def _stop(self) -> None:
        self.did["stopped"] += 1
        pid = self._chance.choice(self._pids)
        os.kill(pid, signal.SIGSTOP)
        self._later(STOPPED, pid)

    def _hang(self) -> None:
        self.did["hung"] += 1
        seconds = self._chance.uniform(*HANG)
        if self._server is not None:
            os.kill(self._server, signal.SIGSTOP)
            self._later(seconds, self._server)
            return
        db = sqlite3.connect(self._address.partition(":")[2], timeout=1.0, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
        except sqlite3.OperationalError:
            self.did["locked"] += 1
        finally:
            db.close()

    def _set(self) -> None:
        """Set the cap to half of what is spent, for a moment. Only what was asked for and granted in that time counts."""
        balance = self._store.balance(self._scope)
        if not (spent := balance.settled + balance.uncertain):
            return
        self._store.set_cap(self._scope, max(1, spent // 2))
        began = time.monotonic()
        time.sleep(0.08)
        self.low.append((began, time.monotonic()))
        self.did["set"] += 1
        patiently(lambda: self._store.set_cap(self._scope, None))

    def _reconcile(self) -> None:
        """Replace what has been uncertain for long by what the bill says: all that no settlement is known of."""
        calls = Calls(self._record)
        open_ = calls.sent.keys() - calls.known - self._reconciled
        bill = sum(calls.sent[hold][0] for hold in open_)
        if self._store.reconcile_scope(self._scope, bill, before=time.time() - SURE):
            self._reconciled |= open_
            self.did["reconciled"] += 1

    def _sweep(self) -> None:
        self.did["swept"] += self._store.sweep()


def schedule(address: str, folder: Path, seed: int, server: int | None) -> dict[str, Any]:
    """Run one seed and say what came of it."""
    record, scope = folder / f"storm-{seed}.txt", f"storm{seed}"
    file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    store = patiently(lambda: open_store(address))
    patiently(lambda: store.configure([Scope(key=scope, unit="micro_usd", cap=CAP)]))
    store.close()
    pids = []
    for number in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            try:
                anyio.run(work, address, scope, seed, number, file)
            except BaseException as error:
                os.write(2, f"worker {number}: {type(error).__name__}: {error}\n".encode())
                os._exit(1)
            os._exit(0)
        pids.append(pid)
    weather = Weather(address, scope, record, pids, seed, server)
    weather.blow()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os.close(file)
    calls, store = Calls(record), patiently(lambda: open_store(address))
    balance = patiently(lambda: store.balance(scope))
    repairs = len(patiently(store.rebuild))
    store.close()
    return {
        "seed": seed,
        "calls": len(calls.sent),
        "true": calls.true,
        "taken": balance.taken,
        "past": sum(low < a and b < high for _, a, b in calls.sent.values() for low, high in weather.low),
        "killed": codes.count(-signal.SIGKILL),
        "failed": sum(code > 0 for code in codes),
        "repairs": repairs,
        **weather.did,
    }


def main() -> None:
    """See the top."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--server", type=int)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for seed in options.seeds:
        sys.stdout.write(json.dumps(schedule(options.address, options.folder, seed, options.server)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

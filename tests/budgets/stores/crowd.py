"""Many processes on one ledger, some of them killed: a script, so that workers can fork from a process without threads.

    python crowd.py ADDRESS FOLDER [--mode reserve|check|hammer] [--workers 16] [--seeds 1 2 3] [--kill 2]

Each seed is one schedule, in a budget of its own: workers make calls of up to $0.10 until $5 are used up, while some
workers are killed with SIGKILL at random moments. What a call costs is written to an independent record *before* the
call runs, as a provider would bill it. `--mode check` is the mistake to compare with: look at the balance, run, then
add. Prints one JSON object per schedule.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from streamguard.budgets.ledger import Denied, Store
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores import open_ledger

CAP = 5_000_000
MOST = 100_000
"""Micro-USD of the budget, and of one call at the most."""
LEASE = 30.0
PATIENCE = 25
"""Denials in a row after which a worker stops."""

Bill = Callable[[int], None]


def reserve_and_settle(store: Store, scope: str, chance: random.Random, bill: Bill, name: str) -> bool:
    """One call as it should be; False if there was no room."""
    if isinstance(store.reserve(name, {scope: MOST}, LEASE), Denied):
        return False
    cost = chance.randint(1, MOST)
    bill(cost)
    os.sched_yield()
    # One call in eight is aborted, and nobody knows what it cost.
    store.settle(name, {scope: Settlement(0, MOST) if chance.random() < 0.125 else Settlement(cost)})
    return True


def check_then_add(store: Store, scope: str, chance: random.Random, bill: Bill, name: str) -> bool:
    """One call as it is often made: the balance is right when it is read, and wrong when it is used."""
    if store.balance(scope).settled + MOST > CAP:
        return False
    cost = chance.randint(1, MOST)
    bill(cost)
    os.sched_yield()
    store.reserve(name, {scope: cost}, LEASE)
    store.settle(name, {scope: Settlement(cost)})
    return True


def hammer(store: Store, scope: str, chance: random.Random, bill: Bill, name: str) -> bool:
    """As often and as fast as possible, forty times."""
    store.reserve(name, {scope: 1}, LEASE)
    store.settle(name, {scope: Settlement(1)})
    bill(1)
    return not name.endswith("-39")


CALLS = {"reserve": reserve_and_settle, "check": check_then_add, "hammer": hammer}


def work(address: str, mode: str, seed: int, number: int, record: Path, *, doomed: bool) -> None:
    """One worker, from its first call to its last. One that is to be killed does not stop before."""
    store = open_ledger(address).store
    chance = random.Random(seed * 1000 + number)
    file = os.open(record, os.O_WRONLY | os.O_APPEND)
    denied = count = 0
    while denied < PATIENCE or doomed:
        ok = CALLS[mode](
            store,
            f"seed{seed}",
            chance,
            lambda cost: (os.write(file, b"%d\n" % cost), None)[1],
            f"{seed}-{number}-{count}",
        )
        count += 1
        denied = 0 if ok else denied + 1 if mode != "hammer" else PATIENCE


def billed(record: Path) -> list[int]:
    """What the provider billed so far, call by call."""
    return [int(line) for line in record.read_bytes().splitlines()]


def schedule(address: str, folder: Path, mode: str, seed: int, workers: int, kill: int) -> dict[str, object]:
    """Run one seed and say what came of it."""
    record = folder / f"{mode}-{seed}.txt"
    record.touch()
    store = open_ledger(address).store
    # What the naive way adds up must not be refused, or it could not show what it lets through.
    cap = CAP if mode == "reserve" else 2**50
    store.configure([Scope(key=f"seed{seed}", unit="micro_usd", cap=cap)])
    pids = []
    chance = random.Random(seed)
    doomed = chance.sample(range(workers), kill)
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            try:
                work(address, mode, seed, number, record, doomed=number in doomed)
            except BaseException as error:
                os.write(2, f"worker {number}: {type(error).__name__}: {error}\n".encode())
                os._exit(1)
            os._exit(0)
        pids.append(pid)
    # Fifty calls fit into the budget whatever they cost, so every moment comes.
    moments = sorted(chance.randint(1, 45) for _ in doomed)
    for number, moment in zip(doomed, moments, strict=True):
        until = time.monotonic() + 10
        while len(billed(record)) < moment and time.monotonic() < until:
            os.sched_yield()
        os.kill(pids[number], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    balance = store.balance(f"seed{seed}")
    repairs = len(store.rebuild())
    store.close()
    return {
        "seed": seed,
        "calls": len(billed(record)),
        "true": sum(billed(record)),
        "settled": balance.settled,
        "held": balance.held,
        "uncertain": balance.uncertain,
        "killed": codes.count(-signal.SIGKILL),
        "failed": sum(code > 0 for code in codes),
        "repairs": repairs,
        "sdk": "anthropic" in sys.modules,
    }


def main() -> None:
    """See the top."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", choices=sorted(CALLS), default="reserve")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    for seed in options.seeds:
        found = schedule(options.address, options.folder, options.mode, seed, options.workers, options.kill)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

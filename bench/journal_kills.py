"""The row journal under kill -9: `python -m bench.journal_kills [--only TEXT]`. Real processes, servers and signals.

A driver runs two workers on the same forty rows, as an engine does: it starts a worker again that died. At a moment of
a worker's row somebody is killed: the worker, its driver, the server of the journal, or that of the ledger. For each
store of the journal. Then a worker is stopped for longer than its lease, two drivers run one job, a driver asks another
question, and a row kills whoever asks it.

What is counted, by a provider that logs each request and answers none like another: rows `lost`, rows that were shown
two results (`doubled`) or another row's (`wrong`), what the bill has beyond the budget or beyond the ledger's account
(`over`), and requests sent `again`, beside the most that may have been under way. Ends with exit code 1 at any fault.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic.resources.messages  # noqa: F401  loaded before the forks
import msgspec

from bench.light_provider import LightProvider, light_provider
from streamguard.adapters.anthropic import source as _source  # noqa: F401
from streamguard.batch import Extractor, JournalLost, Stopped
from streamguard.batch.journal import open_journal
from streamguard.batch.journal.postgres import PostgresJournal
from streamguard.batch.journal.redis import RedisJournal
from streamguard.batch.journal.sqlite import SqliteJournal
from streamguard.budgets.ledger import LedgerLost
from streamguard.budgets.stores import open_ledger
from streamguard.errors import ConfigError
from streamguard.jobs.asking import LocalAsker
from streamguard.policy.file import loads_policy
from tests.postgres import PostgresServer
from tests.redis_servers import KEEPS

ROWS = 40
WORKERS = 2
CONCURRENCY = 4
LEASE = 2.0
DELAY = 0.2
"""Seconds that an answer takes; its first byte comes after half of them."""
AWAY = 1.0
"""Seconds after which a server that was killed is started again."""
ORPHANS = 0.5
"""Seconds that workers live on without their driver, beside the next one's."""
AT = {"before claim": 2, "claimed": 2, "before finish": 2, "after finish": 2}
"""The how-manieth time of a moment is hit: verbs are of some rows at once."""
AT_ROW = 6
"""The same for moments of one row."""

STORES = {"sqlite": SqliteJournal, "redis": RedisJournal, "postgres": PostgresJournal}
VICTIMS = ("worker", "driver", "journal server", "ledger server")
MOMENTS = ("before claim", "claimed", "sent", "first byte", "whole", "before finish", "after finish", "before emit")
LATER = {"sent": 0.0, "first byte": 0.7 * DELAY}
"""Seconds after the provider has the request."""

BILL = 28
"""Tokens that the provider counts for a request."""
CAP = 12_000
"""Tokens; all rows take 1,120, and each call holds some hundreds while it runs."""

POLICY = f"""
version: 1
timeouts: {{total: 60}}
pace: off
json:
  schema:
    type: object
    properties: {{n: {{type: integer}}, by: {{type: integer}}}}
    required: [n, by]
    additionalProperties: false
retry: {{attempts: 3, rules: [{{when: [transport.*], wait: none}}]}}
budgets: [{{name: b, tokens: {CAP}, ledger: '%s'}}]
"""


class Place(msgspec.Struct, frozen=True):
    """Where a scenario keeps things."""

    folder: str
    url: str
    job: str
    journal: str
    ledger: str

    @property
    def out(self) -> Path:
        """The rows that were shown."""
        return Path(self.folder) / "out"

    @property
    def pids(self) -> Path:
        """The workers that were started."""
        return Path(self.folder) / "pids"


class Fault(msgspec.Struct, frozen=True):
    """Who is killed at a moment of a worker's."""

    moment: str
    kill: Callable[[], None]


def request(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's request."""
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": f"row {row['id']}"}]}


def other_request(row: Mapping[str, Any]) -> dict[str, Any]:
    """Another question for the same row."""
    return {**request(row), "system": "another question"}


# One worker


def work(
    place: Place,
    fault: Fault | None = None,
    poison: int | None = None,
    asks: Callable[..., Any] = request,
    first: int = 0,
) -> None:
    """Ask for all rows, and write each as it comes.

    :param first: the row to begin with.
    """
    policy = loads_policy(POLICY % place.ledger)
    extract = Extractor(
        policy,
        request=asks,
        job=place.job,
        journal=place.journal,
        base_url=place.url,
        concurrency=CONCURRENCY,
        lease=LEASE,
    )
    hit = arm(place, fault, poison)
    out = os.open(place.out, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for _ in range(40):  # an engine tries again
        try:
            for row in extract.rows({"id": (first + n) % ROWS} for n in range(ROWS)):
                hit("before emit")
                said = {name: row[name] for name in ("id", "output", "reason", "asked")}
                os.write(out, json.dumps(said).encode() + b"\n")
            break
        except (JournalLost, LedgerLost, Stopped):
            time.sleep(0.5)
    else:
        raise AssertionError("the rows do not come to an end")
    extract.close()


def arm(place: Place, fault: Fault | None, poison: int | None) -> Callable[[str], None]:
    """Put the fault where its moment is; returns what is told of the moments outside."""
    counted = 0

    def later(key: str, kill: Callable[[], None], after: float) -> None:
        log = Path(place.folder) / "asked"
        while key not in log.read_text().split():
            time.sleep(0.001)
        time.sleep(after)
        kill()

    def hit(moment: str, key: str = "") -> None:
        nonlocal counted
        if fault is None or moment != fault.moment:
            return
        counted += 1
        if counted != AT.get(moment, AT_ROW):
            return
        if moment in LATER:
            threading.Thread(target=later, args=(key, fault.kill, LATER[moment]), daemon=True).start()
        else:
            fault.kill()

    store = STORES[place.journal.partition(":")[0].replace("postgresql", "postgres")]
    claim, finish, ask = store.claim, store.finish, LocalAsker.ask

    def claimed(self: Any, asks: Any, owner: str, lease: float) -> Any:
        hit("before claim")
        found = claim(self, asks, owner, lease)
        hit("claimed")
        return found

    def finished(self: Any, results: Any) -> Any:
        hit("before finish")
        found = finish(self, results)
        hit("after finish")
        return found

    async def asked(self: Any, request: Any, sent: Any = None) -> Any:
        if request.entry.custom_id == str(poison):
            die()
        hit("sent", request.entry.custom_id)
        hit("first byte", request.entry.custom_id)
        came = await ask(self, request, sent)
        hit("whole")
        return came

    store.claim, store.finish, LocalAsker.ask = claimed, finished, asked  # type: ignore[method-assign]
    return hit


def die() -> None:
    """As the kernel does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def forked(body: Callable[[], None]) -> int:
    """Run it in a process of its own."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        body()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def drive(place: Place, fault: Fault | None = None, poison: int | None = None) -> None:
    """A driver: two workers, and another for each that dies. The first one has the fault."""
    alive, deaths = {forked(lambda: work(place, fault, poison))}, 0
    while len(alive) < WORKERS:
        alive.add(forked(lambda: work(place, poison=poison, first=ROWS * len(alive) // WORKERS)))
    place.pids.write_text(" ".join(map(str, alive)))
    while alive:
        pid, status = os.wait()
        alive.discard(pid)
        if status:
            deaths += 1
            assert os.WIFSIGNALED(status), "a worker failed"
            assert deaths < 12, "workers die for ever"
            alive.add(forked(lambda: work(place, poison=poison)))
    (Path(place.folder) / "deaths").write_text(str(deaths))


def ended(pid: int) -> bool:
    """Wait for a process; returns whether it was killed. It must not have failed."""
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, "a process failed"
    return os.WIFSIGNALED(status)


# What came of it


class Counts(msgspec.Struct):
    """What a scenario came to."""

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    over: int = 0
    again: int = 0
    under_way: int = 0
    """The most that may be asked again."""
    poison: bool = False
    refused: bool = True
    """Whether another question was refused, where one was asked."""

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        bad = self.lost or self.doubled or self.wrong or self.over or not self.refused
        return not bad and self.again <= self.under_way


def look(place: Place, provider: LightProvider, deaths: int, poison: int | None = None) -> Counts:
    """Count, once everything is over."""
    shown: dict[int, set[str]] = {}
    for line in place.out.read_text().splitlines():
        row = json.loads(line)
        shown.setdefault(row["id"], set()).add(row["output"] or row["reason"])
    with closing(open_journal(place.journal, place.job)) as journal, closing(open_ledger(place.ledger).store) as ledger:
        failures = {failure.key: failure.reason for failure in journal.failures()}
        balance = ledger.balance(ledger.scopes()[0].key)
    asked = provider.asked
    good = {n: next(iter(found)) for n, found in shown.items() if n != poison}
    bill = sum(asked.values()) * BILL
    unaccounted = bill - balance.settled - balance.uncertain - balance.held
    return Counts(
        lost=sum(n not in shown for n in range(ROWS)),
        doubled=sum(len(found) > 1 for found in shown.values()),
        wrong=sum(not text.startswith(f'{{"n":{n},') for n, text in good.items()),
        over=max(0, balance.taken - CAP) + max(0, bill - CAP) + max(0, unaccounted),
        again=sum(asked.values()) - len(asked),
        under_way=deaths * CONCURRENCY,
        poison=shown.get(-1 if poison is None else poison) == {"job.poison"} and set(failures) == {str(poison)},
    )


# Scenarios


def killed(place: Place, provider: LightProvider, servers: Servers, victim: str, moment: str) -> Counts:
    """Somebody is killed at a moment of a worker's."""
    server = servers.of(place, victim)
    deaths = {"worker": 1}.get(victim, WORKERS)
    if victim == "worker":
        assert not ended(forked(lambda: drive(place, Fault(moment, die))))
        died = (Path(place.folder) / "deaths").read_text()
        assert died == "1", f"{died} workers died at {moment!r}"
    elif victim == "driver":
        assert ended(forked(lambda: drive(place, Fault(moment, lambda: os.kill(os.getppid(), signal.SIGKILL)))))
        orphans = list(map(int, place.pids.read_text().split()))
        after = forked(lambda: drive(place))
        time.sleep(ORPHANS)
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not ended(after)
    else:
        assert server is not None
        both = forked(lambda: drive(place, Fault(moment, server.kill)))
        server.gone()
        time.sleep(AWAY)
        server.start()
        assert not ended(both)
    return look(place, provider, deaths)


def stopped(place: Place, provider: LightProvider, servers: Servers) -> Counts:  # noqa: ARG001
    """A worker is stopped for longer than its lease, and wakes as a zombie."""
    zombie, other = (forked(lambda: work(place)) for _ in range(2))
    while provider.asked.total() < 10:
        time.sleep(0.02)
    os.kill(zombie, signal.SIGSTOP)
    time.sleep(3 * LEASE)
    os.kill(zombie, signal.SIGCONT)
    assert not ended(zombie)
    assert not ended(other)
    return look(place, provider, 1)


def two_drivers(place: Place, provider: LightProvider, servers: Servers) -> Counts:  # noqa: ARG001
    """Two drivers on one job, and nobody dies: each row is asked once."""
    for pid in [forked(lambda: drive(place)) for _ in range(2)]:
        assert not ended(pid)
    return look(place, provider, 0)


def another_question(place: Place, provider: LightProvider, servers: Servers) -> Counts:  # noqa: ARG001
    """A worker asks another question for rows that have a result: it is refused, and nothing changes."""
    assert not ended(forked(lambda: drive(place)))
    before = provider.asked

    def ask() -> None:
        try:
            work(place, asks=other_request)
        except ConfigError:
            os.kill(os.getpid(), signal.SIGUSR1)

    refused = os.waitpid(forked(ask), 0)[1] == signal.SIGUSR1
    assert not ended(forked(lambda: drive(place)))
    counts = look(place, provider, 0)
    counts.refused = refused and provider.asked == before
    return counts


def poisoned(place: Place, provider: LightProvider, servers: Servers) -> Counts:  # noqa: ARG001
    """A row kills whoever asks it."""
    assert not ended(forked(lambda: drive(place, poison=7)))
    counts = look(place, provider, int((Path(place.folder) / "deaths").read_text()), poison=7)
    counts.refused = counts.poison
    return counts


# Servers


class Server(msgspec.Struct, frozen=True):
    """A server that a worker kills and this process starts again, on its port."""

    process: Callable[[], Any]
    start: Callable[[], None]

    def kill(self) -> None:
        """kill -9 of the process and of all its children."""
        parent = self.process().pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def gone(self) -> None:
        """Wait until somebody has killed it."""
        self.process().wait(timeout=30)


class Servers:
    """The servers of a campaign: Valkey and PostgreSQL, which keep what they say that they keep."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from tests.redis_servers import start_server

        self._redis = start_server(folder / "redis", {**KEEPS, "appendfsync": "always"})
        self._redis._desired_port = self._redis.port
        stack.callback(lambda: self._redis.is_running() and self._redis.stop())
        self._postgres = PostgresServer(folder / "postgres")
        self._postgres.start()
        stack.callback(self._postgres.stop)
        self.redis_address = f"redis://127.0.0.1:{self._redis.port}/0"
        self.postgres_address = self._postgres.address
        self._redis_server = Server(lambda: self._redis._process, self._start_redis)
        self._postgres_server = Server(lambda: self._postgres._process, self._postgres.start)

    def _start_redis(self) -> None:
        self._redis._process = None
        self._redis.start()

    def of(self, place: Place, victim: str) -> Server | None:
        """The server that is the victim."""
        address = {"journal server": place.journal, "ledger server": place.ledger}.get(victim, "")
        return {"redis": self._redis_server, "postgresql": self._postgres_server}.get(address.partition(":")[0])


Scenario = Callable[[Place, LightProvider, Servers], Counts]


def scenarios() -> Iterator[tuple[str, str, Scenario]]:
    """Each with its store."""
    for store in STORES:
        for victim in VICTIMS:
            if (store, victim) == ("sqlite", "journal server"):
                continue  # there is none
            for moment in MOMENTS:
                yield (
                    store,
                    f"{victim} killed: {moment}",
                    lambda *said, victim=victim, moment=moment: killed(*said, victim, moment),
                )
        yield store, "worker stopped past its lease", stopped
        yield store, "two drivers on one job", two_drivers
        yield store, "another question for the same rows", another_question
        yield store, "a row that kills", poisoned


@contextmanager
def placed(servers: Servers, store: str, number: int, title: str) -> Iterator[tuple[Place, LightProvider]]:
    """A place of its own for a scenario."""
    with tempfile.TemporaryDirectory() as name, light_provider(Path(name), delay=DELAY) as provider:
        redis = servers.redis_address
        journal = {
            "sqlite": f"sqlite:{name}/rows",
            "redis": f"{redis}?journal=k{number}",
            "postgres": servers.postgres_address,
        }[store]
        far = store != "sqlite" or title.startswith("ledger server")
        ledger = f"{redis}?ledger=k{number}" if far else f"sqlite:{name}/ledger"
        yield Place(name, provider.url, f"kills {number}", journal, ledger), provider


def main() -> None:
    """Run all of it and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="scenarios whose name contains this, or one of these with | between")
    wanted = parser.parse_args().only.split("|")
    logging.disable()  # of settlements that a ledger's server could not take
    clean, began = True, time.monotonic()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        Path(name).chmod(0o755)
        servers = Servers(Path(name), stack)
        print(f"{'':>52} {'lost':>5} {'doubled':>8} {'wrong':>6} {'over':>5} {'asked again':>12}")
        done = 0
        for number, (store, title, scenario) in enumerate(scenarios()):
            if not any(one in f"{store}: {title}" for one in wanted):
                continue
            with placed(servers, store, number, title) as (place, provider):
                found = scenario(place, provider, servers)
            again = f"{found.again} of {found.under_way}"
            counts = f"{found.lost:>5} {found.doubled:>8} {found.wrong:>6} {found.over:>5} {again:>12}"
            print(f"{store + ': ' + title:>52} {counts}{'' if found.clean else '  NOT CLEAN'}", flush=True)
            clean, done = clean and found.clean, done + 1
        print(f"{done} scenarios, {time.monotonic() - began:.0f} s")
    sys.exit(not clean or not done)


if __name__ == "__main__":
    main()

"""A job that dies at any of its operations goes on with its batches: nothing is submitted, paid or written twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from streamguard.budgets.ledger import Balance
from streamguard.budgets.stores import open_ledger
from streamguard.jobs.batches import holds, log, taking
from streamguard.jobs.batches.lane import Order
from streamguard.jobs.store.journal import Journal, read_journal
from streamguard.jobs.store.output import Output
from streamguard.testing import BACKENDS, answer, run_virtual
from streamguard.testing.batches import BatchProvider, ScriptedDesk
from tests.jobs.batches.lanes import EPOCH, INPUT, MODEL, OUTPUT, answers, errored, lines, message, run_lane
from tests.jobs.jobs import GOOD, POLICY, Provider, batch_line, results, write_job

STREAMS = 2 * (12 + 2), 2 * 44
"""Tokens and micro-USD of two streamed answers, which name another model: they are billed at the dearer of both."""

BUDGET = (
    POLICY
    + """
budgets:
  - {name: night, per: job, cost_usd: "1.00", tokens: 1000000}
"""
)


class Killed(BaseException):
    """The process is gone."""


class Killer:
    """Ends the process at its N-th operation: before it, or right after it."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.names: list[str] = []

    def spare(self) -> None:
        """Kill nothing from now on."""
        self.left = 0

    def before(self, name: str) -> bool:
        """Count an operation; returns whether it is the last one."""
        self.names.append(name)
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed(name)
        return self.left == 0


OPERATIONS = {
    *("BatchLog.note", "BatchLog.change", "BatchHolds.reserve", "BatchHolds.settle", "ScriptedDesk.create"),
    *("ScriptedDesk.retrieve", "Judge.judge", "Journal.finish", "Output.append"),
}


@pytest.fixture
def killer(monkeypatch):
    """Operations on journal, ledger, output and provider; returns a setter of the killer that counts them."""
    current: list[Killer] = [Killer(0, after=False)]

    def deadly(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def method(self, *args, **options):
            last = current[0].before(f"{owner.__name__}.{name}")
            result = real(self, *args, **options)
            if last:
                raise Killed(name)
            return result

        monkeypatch.setattr(owner, name, method)

    def slow(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        async def method(self, *args, **options):
            last = current[0].before(f"{owner.__name__}.{name}")
            result = await real(self, *args, **options)
            if last:
                raise Killed(name)
            return result

        monkeypatch.setattr(owner, name, method)

    for name in ("note", "change"):
        deadly(log.BatchLog, name)
    deadly(Journal, "finish")
    deadly(Output, "append")
    for name in ("reserve", "settle"):
        slow(holds.BatchHolds, name)
    for name in ("create", "retrieve"):
        slow(ScriptedDesk, name)
    slow(taking.Judge, "judge")

    def use(new: Killer) -> Killer:
        current[0] = new
        return new

    return use


def job(folder):
    """Six rows, two batches, one bad answer and one refusal."""
    return write_job(
        folder, *(batch_line(name, model=MODEL) for name in ("a", "b", "bad", "c", "failed", "d")), policy=BUDGET
    )


async def through(folder, batches, calls) -> int:
    """Run the job again and again, until it is through; returns how often it died."""
    for deaths in range(3):
        died = True
        try:
            await run_lane(job(folder), batches, calls, order=Order(most_rows=3))
            died = False
        except* Killed:
            await anyio.sleep(1.0)
        if not died:
            return deaths
    raise AssertionError("it does not end")


def play_killed(folder, killer: Killer, backend: str = "asyncio") -> tuple[BatchProvider, Provider, int]:
    """A whole job with one death at most, before its first stream; returns its provider, its streams and its deaths."""
    good = answers(other=message(GOOD), bad=message('{"n": "x"}'), failed=errored())
    batches = BatchProvider(good, epoch=EPOCH)
    calls = Provider(other=[answer(GOOD)])
    calls.on_made = lambda name: killer.spare()
    return batches, calls, run_virtual(through, folder, batches, calls, backend=backend)


def balances(folder) -> dict[str, Balance]:
    """The ledger's accounts, by unit."""
    ledger = open_ledger(f"sqlite:{folder}/out.jsonl.ledger").store
    found = {scope.unit: ledger.balance(scope.key) for scope in ledger.scopes()}
    ledger.close()
    return found


@pytest.mark.parametrize("first", range(1, 10))
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_death_at_any_operation_costs_nothing_twice(tmp_path, killer, first, after, backend) -> None:
    """Each row is in one batch and in one line, the bad ones are asked by one stream, and the ledger has the bill."""
    died_at = set()
    for at in range(first, 100, 9):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        batches, calls, deaths = play_killed(folder, one := killer(Killer(at, after=after)), backend)
        if not deaths:
            break
        where = f"{'after' if after else 'before'} {one.names[at - 1]} ({at})"
        died_at.add(one.names[at - 1])
        submitted = Counter(
            one["params"]["messages"][0]["content"] for batch in batches.batches.values() for one in batch.requests
        )
        assert set(submitted.values()) == {1}, where
        assert set(submitted) == {"a", "b", "bad", "c", "failed", "d"}, where
        assert set(results(folder).values()) == {"succeeded"}, where
        assert len(lines(folder)) == 6, where
        asked = Counter(calls.asked)
        assert asked == {"bad": 1, "failed": 1}, where
        found = balances(folder)
        answered = batches.usage["output_tokens"] // OUTPUT
        assert found["micro_usd"].held == found["tokens"].held == 0, where
        due = answered * (INPUT + OUTPUT) + STREAMS[0], answered * 100 + STREAMS[1]
        assert (found["tokens"].settled, found["micro_usd"].settled) == due, where
        assert (found["tokens"].uncertain, found["micro_usd"].uncertain) == (0, 0), where
    assert set() < died_at <= OPERATIONS


def test_the_journal_says_of_every_batch_what_became_of_it(tmp_path, killer) -> None:
    """A batch that was submitted is taken in the end."""
    play_killed(tmp_path, none := killer(Killer(0, after=False)))
    assert set(none.names) == OPERATIONS
    journal = read_journal(str(tmp_path / "out.jsonl"))
    assert journal is not None
    with journal:
        assert sorted((one.id, one.state, len(one.members)) for one in log.BatchLog(journal).all()) == [
            ("msgbatch_000001", "taken", 3),
            ("msgbatch_000002", "taken", 3),
        ]

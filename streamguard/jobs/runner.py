"""The runner: a job's rows through the guard, so many at a time, each result journaled as it comes.

In charge of admission and of ending: when everything is done, when a budget is empty, when a mistake would fail every
row, when somebody says stop. It asks for each row once: retries are the policy's. It knows neither terminal nor SDK,
and not where calls are made: that is an `Asker`'s business.

A row's result is in the journal before its worker takes the next row, without a point in between at which anything else
could happen. So whatever is killed, at most the calls under way at that moment are asked again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Literal

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import msgspec

from streamguard.budgets.ledger import Balance, LedgerError, LedgerLost
from streamguard.budgets.spec import BudgetSpec, Scope
from streamguard.engine.runtime import Runtime
from streamguard.jobs.admission import LOOK_EVERY, Admission, Holds, Kind
from streamguard.jobs.asking import Asker, Denial, Ended
from streamguard.jobs.batches.lane import BatchLane, LaneStopped
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.report.budget_stop import budget_stop
from streamguard.jobs.store.journal_records import How, JournalError, Sample
from streamguard.jobs.store.output import OutputError
from streamguard.jobs.store.resume import ALONE_FROM, POISON, own_fault
from streamguard.pace.spec import PaceSpec

CONCURRENCY = 8
"""Calls at a time, by default: few enough for any account's rate limits, enough to hide a provider's latency."""

SYNC_EVERY = 5.0
"""Seconds between waits for the disk. A kill loses nothing either way; a power cut loses at most this."""

SAMPLE_EVERY = 0.1
"""Seconds between notes of the run's state, doubled whenever there are `SAMPLES` of them."""

SAMPLES = 600

HOLD_LOOK = 1.0
"""Seconds between looks for how long an outage lasts."""

STOP_ON = 20
"""Rows in a row that fail by the provider's or the line's fault, until the job stops, by default."""

FUTILE_ON = 3
"""The same for reasons that nobody but a person can mend. More than one, since a row may name a model of its own."""

StopKind = Literal["signal", "budget", "refused", "failing", "ledger"]


class Stop(msgspec.Struct, frozen=True):
    """Why a job ended before its last row."""

    kind: StopKind
    """`signal`: somebody said so. `budget`: no room in a budget, or in the provider's own limit. `refused`: the
    provider takes no request with these credentials, for this model or at this address. `failing`: it only fails.
    `ledger`: nobody counts any more what is spent."""
    why: str


HOPELESS: Mapping[str, StopKind] = {
    "provider.spend_limit": "budget",
    "provider.billing": "budget",
    "provider.authentication": "refused",
    "budget.lost": "ledger",
}
"""Reasons that will be every other row's too: the job stops instead of asking a thousand times more."""


FUTILE = frozenset({"provider.not_found", "provider.permission", "transport.connect"})
"""Reasons that soon are every other row's too: no such model, no right to it, nobody at that address."""

OUTAGE = ("provider.", "transport.", "timeout.")
"""How reasons begin that speak of the provider or of the line, not of an answer."""

_HOW: Mapping[StopKind, How] = {
    "signal": "signal",
    "budget": "budget",
    "refused": "refused",
    "failing": "failed",
    "ledger": "failed",
}


class _Once:
    """A place of a semaphore, released once."""

    def __init__(self, semaphore: anyio.Semaphore | None) -> None:
        self._semaphore = semaphore

    def release(self) -> None:
        """Give the place back; again is nothing."""
        semaphore, self._semaphore = self._semaphore, None
        if semaphore is not None:
            semaphore.release()


def most_rows(pace: PaceSpec | None, said: int | None) -> int:
    """Return how many rows are asked at a time, at the most.

    :param pace: the policy's; `None` for none.
    :param said: what the job says; `None` for nothing.
    """
    return said or (CONCURRENCY if pace is None else pace.most)


class Runner:
    """One run of a job, on one event loop.

    :param asker: makes the calls.
    :param runtime: has the ledgers of the job's budgets.
    :param concurrency: calls at a time at most, from 1. `None`: as many as the policy's pace lets begin, `CONCURRENCY`
        without one.
    :param ended: told of each row's line, by its key, once it is journaled.
    :param stop_on: rows in a row that fail by the provider's or the line's fault, until the job stops; 0 for never.
    :param endpoint: the URL that is asked, for messages.
    :param lane: asks what it can before the first call is made; `None` for nothing.
    """

    def __init__(
        self,
        job: Job,
        asker: Asker,
        *,
        tally: Tally,
        runtime: Runtime,
        concurrency: int | None = None,
        ended: Callable[[str, bytes], None] | None = None,
        stop_on: int = STOP_ON,
        endpoint: str | None = None,
        lane: BatchLane | None = None,
    ) -> None:
        self.stopped: Stop | None = None
        """Why it ended early, if it did."""
        self._job = job
        self._asker = asker
        self._tally = tally
        self._runtime = runtime
        self._concurrency = most_rows(job.policy.pace, concurrency)
        self._begin = None if asker.ahead is None else anyio.Semaphore(asker.ahead)
        """Held by each row that has begun and was not sent yet; `None` where any number may have."""
        self._ended = ended
        self._stop_on = stop_on
        self._endpoint = endpoint
        self._lane = lane
        self._lane_scope = anyio.CancelScope()
        self._failing: list[str] = []
        """The reasons of the latest rows, as long as each failed by the provider's or the line's fault."""
        self._interrupted: str | None = None
        self._drain = anyio.Event()
        self._drain_until, self._drained_by = math.inf, ""
        self._failure: Exception | None = None
        self._looks = anyio.Lock()
        """Held by the worker that looks whether a row may begin."""
        self._over = anyio.Event()
        """No more rows begin."""
        self._holds = Holds()
        self._denied: Denial | None = None
        """The first denial that stopped the job."""

    async def run(self) -> None:
        """Ask for every row that is left to do, until done or stopped. Finished rows are in journal and output.

        :raises JobError: the input changed meanwhile.
        :raises JournalError: the journal cannot be written any more.
        :raises OutputError: the output cannot be written any more.
        :raises LedgerError: a budget's ledger refuses to be used.
        """
        job = self._job
        job.start()
        try:
            await self._open_ledgers()
            async with anyio.create_task_group() as background:
                background.start_soon(self._sync)
                background.start_soon(self._note_states)
                background.start_soon(self._drained)
                background.start_soon(self._watch_hold)
                await self._ask_in_batches()
                await self._ask_all()
                background.cancel_scope.cancel()
            await self._explain_stop()
            with suppress(JournalError):  # if it matters, it was said before
                job.journal.sample(self._state())
                if seen := self._tally.limits.entries:
                    job.journal.say(limits_seen=msgspec.to_builtins(seen))
            if self._failure is not None:
                raise self._failure
            job.finish()
        except Exception:
            with suppress(OutputError, JournalError):  # then the next run finds out, and makes up for it
                job.restore()
                job.journal.end("failed")
            raise
        how: How = "finished" if self.stopped is None else _HOW[self.stopped.kind]
        job.journal.end(how, msgspec.to_builtins(self._tally.summary(self.stopped)))

    def interrupt(self, by: str, drain: float = 0.0) -> None:
        """End soon: begin no more rows, write what is there. From any task of the same loop.

        :param drain: seconds that what runs may still take before it is aborted. Said again, with fewer, it is those.
        """
        self._stop(Stop("signal", by))
        if drain <= 0:
            self._abort(by)
        elif self._interrupted is None and (until := anyio.current_time() + drain) < self._drain_until:
            self._drain_until, self._drained_by = until, by
            self._drain.set()

    def _stop(self, stop: Stop) -> None:
        if self.stopped is None or stop.kind == "signal":
            self.stopped = stop
        self._over.set()
        if stop.kind == "signal":
            self._lane_scope.cancel()
        self._asker.withdraw(stop.kind)  # what waits for its turn or for room: its row has not begun

    def _abort(self, by: str) -> None:
        self._interrupted = by
        self._asker.interrupt(by)

    def _fail(self, error: Exception) -> None:
        """Something that no row is to blame for: the run cannot go on."""
        if self._failure is None:
            self._failure = error
        self._over.set()
        self._abort("an error of the job")

    async def _open_ledgers(self) -> None:
        """Open what balances there are, and let go of what crashed processes held."""
        accounts = self._runtime.accounts
        for address in dict.fromkeys(spec.ledger for spec in self._job.policy.budgets if spec.per != "call"):
            await accounts.ledger(address)
        await accounts.sweep()

    # Asking

    async def _ask_in_batches(self) -> None:
        """What the batch lane takes, before the first call. What it leaves is asked by calls."""
        if self._lane is None:
            return
        with self._lane_scope:
            try:
                await self._lane.run()
            except LaneStopped as error:
                self._stop(Stop(HOPELESS.get(error.reason, "refused"), f"{error}{self._asked}"))
            except LedgerLost as error:
                self._stop(Stop("ledger", str(error)))
            except Exception as error:
                self._fail(error)

    async def _ask_all(self) -> None:
        """Every row, so many at a time; then, one by one, those that are suspected of having killed the process."""
        requests = self._job.requests()
        suspects: list[RowRequest] = []
        unsuspected = Admission(self._admit(requests, suspects), self._waits)
        async with anyio.create_task_group() as workers:
            for _ in range(min(self._concurrency, self._job.todo)):
                workers.start_soon(self._work, unsuspected)
        if suspects:
            await self._work(Admission(self._admit(chain(suspects, requests), None), self._waits))

    def _waits(self, kind: Kind) -> bool:
        """Whether rows wait: their endpoint is down, or another row writes the prefix that they share."""
        now = self._tally.clock()
        down = self._holds.waits(self._asker.down(now), kind.model, now)
        return down or (bool(kind.shared) and self._asker.warming(kind.shared))

    def _admit(self, requests: Iterator[RowRequest], suspects: list[RowRequest] | None) -> Iterator[RowRequest]:
        """The rows that may begin, until the job ends."""
        while self.stopped is None and self._failure is None:
            request = next(requests, None)
            if request is None:
                return
            if suspects is not None and request.turn >= ALONE_FROM:
                suspects.append(request)
                return
            yield request

    async def _work(self, requests: Admission) -> None:
        """Ask one row after the other. What ends and what begins is journaled in one step, where the next may begin."""
        try:
            while (request := await self._first(requests)) is not None:
                while request is not None:
                    self._tally.began()
                    begun = _Once(self._begin)
                    try:
                        came = await self._asker.ask(request, begun.release)
                    finally:
                        begun.release()
                    request = self._took(request, came, requests)
        except Exception as error:
            self._fail(error)

    async def _first(self, requests: Admission) -> RowRequest | None:
        """Wait until a row may begin, and begin it; `None` if none is left."""
        async with self._looks:  # one worker looks for all of them
            while not self._over.is_set():
                if self._begin is not None:
                    await self._begin.acquire()
                taken: RowRequest | Literal["later"] | None = None
                try:
                    taken = requests.take()
                    if isinstance(taken, RowRequest):
                        self._job.journal.begin(taken.entry.custom_id)
                        return taken
                finally:
                    if not isinstance(taken, RowRequest) and self._begin is not None:
                        self._begin.release()
                if taken is None:
                    return None
                with anyio.move_on_after(LOOK_EVERY):
                    await self._over.wait()
        return None

    def _took(self, request: RowRequest, came: Ended, requests: Admission) -> RowRequest | None:
        """Write a row's result, see what it means for the others, and begin the next row, if there is one."""
        back = self._interrupted is not None or (came.type == "canceled" and self.stopped is not None)
        if came.denied is not None:
            if back := self._ends_job(came.denied):
                self._denied = self._denied or came.denied
                self._stop(Stop("budget", came.message))
        elif came.reason is not None and came.reason in HOPELESS:
            self._stop(Stop(HOPELESS[came.reason], f"{came.message}{self._asked}"))
            back = back or came.reason.startswith("budget.")
        else:
            self._watch_for_outage(came)
        following, problem = self._next(requests)
        if back and came.unsent:  # as if the row had never begun
            self._job.journal.put_back(request.entry.custom_id)
            self._tally.put_back()
        else:
            self._write(request, came, following)
            self._tally.took(request.entry.custom_id, came)
        if problem is not None:
            raise problem
        return following

    @property
    def _asked(self) -> str:
        return "" if self._endpoint is None else f" (asked {self._endpoint})"

    def _watch_for_outage(self, came: Ended) -> None:
        """Stop the job where it only fails, instead of failing every row that is left."""
        if came.type == "canceled":
            return
        if came.reason is None or not came.reason.startswith(OUTAGE):
            self._failing.clear()
            return
        if self._tally.succeeded and self._asker.down(self._tally.clock()):
            return  # the hold of the breaker bounds an outage, and rows do not begin meanwhile
        self._failing.append(came.reason)
        latest = self._failing[-FUTILE_ON:]
        # Once it has answered in this run, the same failure may pass.
        if self._stop_on and not self._tally.succeeded and latest == [came.reason] * FUTILE_ON and latest[0] in FUTILE:
            self._stop(Stop("refused", f"{FUTILE_ON} rows in a row failed alike: {came.message}{self._asked}"))
        elif 0 < self._stop_on <= len(self._failing):
            why = f"{len(self._failing)} rows in a row failed by the provider or the line (stop_on), the last: "
            self._stop(Stop("failing", f"{why}{came.message}{self._asked}"))

    def _next(self, requests: Admission) -> tuple[RowRequest | None, Exception | None]:
        """The next row, if it may begin at once; what is wrong with it is no reason to lose the one that ended."""
        if self._begin is not None:
            try:
                self._begin.acquire_nowait()
            except anyio.WouldBlock:
                return None, None
        request: RowRequest | None = None
        try:
            taken = requests.take()
            request = taken if isinstance(taken, RowRequest) else None
        except Exception as error:
            return None, error
        finally:
            if request is None and self._begin is not None:
                self._begin.release()
        return request, None

    def _write(self, request: RowRequest, came: Ended, following: RowRequest | None) -> None:
        entry, job = request.entry, self._job
        try:
            job.journal.finish(
                entry.custom_id,
                came.line,
                type=came.type,
                reason=came.reason or next(iter(came.marked), None),
                fingerprint=entry.fingerprint,
                # A row that is given up for the deaths of its process keeps them: it stays dead.
                spent=None if came.reason == POISON else came.spent,
                failed=came.reason is not None and own_fault(came.reason),
                detail=came.detail,
                begin=None if following is None else following.entry.custom_id,
            )
        except JournalError:
            # It was paid for: the next run takes it from the output, if that can still be written.
            job.output.append(came.line)
            raise
        if not isinstance(self._failure, OutputError):
            job.output.append(came.line)
        if self._ended is not None:
            self._ended(entry.custom_id, came.line)

    def _ends_job(self, denied: Denial) -> bool:
        """Whether the budget that has no room is one that all rows share."""
        name = denied.scope.partition("/")[0]
        shared = {spec.name: spec.per != "call" and "{" not in spec.per for spec in self._job.policy.budgets}
        return shared.get(name, True)

    async def _explain_stop(self) -> None:
        """Say of a budget that stopped the job what became of its money, now that no call holds any of it."""
        denied = self._denied
        if denied is None or self.stopped is None or self.stopped.kind != "budget":
            return
        balance, spec = await self._balance(denied.scope)
        if balance is not None and spec is not None:
            self.stopped = Stop("budget", budget_stop(denied.asked, balance, spec))

    async def _balance(self, key: str) -> tuple[Balance | None, BudgetSpec | None]:
        for spec in self._job.policy.budgets:
            if any(scope.key == key for scope in self._shared_scopes(spec)):
                with suppress(LedgerError, LedgerLost):  # what is known already says enough
                    return await (await self._runtime.accounts.ledger(spec.ledger)).ledger.balance(key), spec
        return None, None

    def _shared_scopes(self, spec: BudgetSpec) -> Sequence[Scope]:
        return spec.scopes(job=self._job.name) if spec.per != "call" and "{" not in spec.per else ()

    # Beside it

    async def _drained(self) -> None:
        while True:
            with anyio.CancelScope(deadline=self._drain_until):
                await self._drain.wait()
                self._drain = anyio.Event()  # said again, with fewer seconds
                continue
            self._abort(self._drained_by)
            return

    async def _watch_hold(self) -> None:
        """Stop the job where an outage lasts for too long."""
        breaker = self._job.policy.breaker
        while breaker is not None and self.stopped is None:
            await anyio.sleep(HOLD_LOOK)
            views = self._asker.down(self._tally.clock()).values()
            longest = max(views, key=lambda view: view.seconds, default=None)
            self._tally.looked(longest, HOLD_LOOK)
            if longest is not None and longest.seconds > breaker.hold:
                why = f"{self._endpoint or 'the endpoint'} is down for longer than {breaker.hold:g} s (breaker.hold)"
                self._stop(Stop("failing", why))

    async def _sync(self) -> None:
        while True:
            await anyio.sleep(SYNC_EVERY)
            try:
                await anyio.to_thread.run_sync(self._job.journal.sync)
            except JournalError as error:
                self._fail(error)
                return

    async def _note_states(self) -> None:
        """The run's state now and then, for the report; rarer the longer it takes."""
        every, noted = SAMPLE_EVERY, 0
        journal = self._job.journal
        try:
            await anyio.lowlevel.checkpoint()  # so that the first one sees rows under way
            while True:
                journal.sample(self._state())
                noted += 1
                if noted >= SAMPLES:
                    journal.thin_samples()
                    every, noted = every * 2, noted // 2
                await anyio.sleep(every)
        except JournalError as error:
            self._fail(error)

    def _state(self) -> Sample:
        tally, now = self._tally, self._tally.clock()
        return Sample(
            run=self._job.journal.run,
            at=time.time(),
            running=tally.running,
            done=tally.done,
            failed=tally.failed.total(),
            retries=tally.retries.total(),
            cooling=self._asker.cooling(now),
            cost=None if tally.cost.pair is None else tally.cost.pair[1],
        )

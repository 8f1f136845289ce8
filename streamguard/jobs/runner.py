"""The runner: a job's rows through the guard, so many at a time, each result written as it comes.

In charge of admission and of ending: when everything is done, when a budget is empty, when a mistake would fail every
row, when somebody says stop. It asks for each row once: retries are the policy's. It knows neither terminal nor SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import anyio
import anyio.to_thread
import msgspec

from streamguard.engine import Call
from streamguard.errors import BudgetExhausted, CallError, ConfigError, GaveUp
from streamguard.jobs.input import RowRequest
from streamguard.jobs.job import Job
from streamguard.jobs.output import OutputError
from streamguard.jobs.results import About, result_line
from streamguard.jobs.summary import Tally
from streamguard.outcome import CallRecord, Outcome
from streamguard.runtime import Runtime
from streamguard.source import Source
from streamguard.usage import UsageRange

CONCURRENCY = 8
"""Calls at a time, by default: few enough for any account's rate limits, enough to hide a provider's latency."""

SYNC_EVERY = 5.0
"""Seconds between waits for the disk. A kill loses nothing either way; a power cut loses at most this."""

StopKind = Literal["signal", "budget", "refused"]


class Stop(msgspec.Struct, frozen=True):
    """Why a job ended before its last row."""

    kind: StopKind
    """`signal`: somebody said so. `budget`: no room in a budget, or in the provider's own limit. `refused`: the
    provider takes no request with these credentials."""
    why: str


HOPELESS: Mapping[str, StopKind] = {
    "provider.spend_limit": "budget",
    "provider.billing": "budget",
    "provider.authentication": "refused",
}
"""Reasons that will be every other row's too: the job stops instead of asking a thousand times more."""


class Runner:
    """One run of a job, on one event loop.

    :param source: makes a source of a request; each call asks it again and again as the policy says.
    :param runtime: what the calls share; `tally.hook` belongs among its hooks.
    :param concurrency: calls at a time, from 1.
    """

    def __init__(
        self,
        job: Job,
        source: Callable[[Mapping[str, Any]], Source],
        *,
        tally: Tally,
        runtime: Runtime,
        concurrency: int = CONCURRENCY,
        partials: bool = False,
    ) -> None:
        self.stopped: Stop | None = None
        """Why it ended early, if it did."""
        self._job = job
        self._source = source
        self._tally = tally
        self._runtime = runtime
        self._concurrency = concurrency
        self._about = About(policy=job.spec.policy, partials=partials)
        self._running: set[Call] = set()
        self._interrupted: str | None = None
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Ask for every row that is left to do, until done or stopped. Finished rows are in the output file.

        :raises JobError: the input changed meanwhile.
        :raises OutputError: the output cannot be written any more.
        """
        requests = self._admit(self._job.input.requests(self._job.todo))
        async with anyio.create_task_group() as background:
            background.start_soon(self._sync)
            async with anyio.create_task_group() as workers:
                for _ in range(min(self._concurrency, len(self._job.todo))):
                    workers.start_soon(self._work, requests)
            background.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    def interrupt(self, by: str) -> None:
        """End soon: start no more rows, abort what runs, write what is there. From any task of the same loop."""
        self._stop(Stop("signal", by))
        self._abort(by)

    def _stop(self, stop: Stop) -> None:
        if self.stopped is None or stop.kind == "signal":
            self.stopped = stop

    def _abort(self, by: str) -> None:
        self._interrupted = by
        for call in self._running:
            call.interrupt(by)

    def _fail(self, error: Exception) -> None:
        """Something that no row is to blame for: the run cannot go on."""
        if self._failure is None:
            self._failure = error
        self._abort("an error of the job")

    def _admit(self, requests: Iterator[RowRequest]) -> Iterator[RowRequest]:
        """Shared by all workers: each row goes to one of them."""
        while self.stopped is None and self._failure is None:
            request = next(requests, None)
            if request is None:
                return
            yield request

    async def _work(self, requests: Iterator[RowRequest]) -> None:
        try:
            for request in requests:
                self._tally.began()
                came = await self._ask(request.params, {"custom_id": request.entry.custom_id})
                self._took(request, came)
        except Exception as error:
            self._fail(error)

    async def _ask(self, params: Mapping[str, Any], labels: Mapping[str, Any]) -> Outcome | CallError:
        try:
            call = Call(self._source(params), self._job.policy, self._runtime, keep=False, labels=labels)
            self._running.add(call)
            try:
                while await call.next() is not None:
                    pass
            finally:
                self._running.discard(call)
        except CallError as error:
            return error
        except ConfigError as error:
            # The policy and this one request do not fit: known before it was sent, and no other row's business.
            record = CallRecord(usage=UsageRange.nothing(), labels=labels)
            return GaveUp(f"not sent: {'; '.join(map(str, error.problems))}", reason="source.error", record=record)
        assert call.outcome is not None
        return call.outcome

    def _took(self, request: RowRequest, came: Outcome | CallError) -> None:
        """Write a row's result, and see what it means for the others."""
        reason = came.reason if isinstance(came, CallError) else None
        if isinstance(came, BudgetExhausted) and self._ends_job(came):
            self._stop(Stop("budget", str(came)))
            if not came.attempts:  # nothing was sent: as if the row had never begun
                self._tally.put_back()
                return
        elif reason is not None and reason in HOPELESS:
            self._stop(Stop(HOPELESS[reason], str(came)))
        if self._interrupted is not None and isinstance(came, CallError) and not came.attempts:
            self._tally.put_back()
            return
        line = result_line(request.entry.custom_id, came, self._about, request.entry.fingerprint)
        if not isinstance(self._failure, OutputError):
            self._job.output.append(line)
        self._tally.took(came)

    def _ends_job(self, denied: BudgetExhausted) -> bool:
        """Whether the budget that has no room is one that all rows share."""
        name = denied.scope.partition("/")[0]
        shared = {spec.name: spec.per != "call" and "{" not in spec.per for spec in self._job.policy.budgets}
        return shared.get(name, True)

    async def _sync(self) -> None:
        while True:
            await anyio.sleep(SYNC_EVERY)
            try:
                await anyio.to_thread.run_sync(self._job.output.sync)
            except OutputError as error:
                self._fail(error)
                return

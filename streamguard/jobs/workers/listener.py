"""What a job's worker processes tell, put where the parent keeps such things: tally, journal, runtime."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence

from streamguard.engine.attempt import RunningAttempt
from streamguard.engine.runtime import Runtime
from streamguard.engine.snapshot import CallSnapshot
from streamguard.engine.telemetry import Record
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.workers.frames import Happened
from streamguard.policy.model import Policy


class RemoteCall:
    """A call that runs in another process, as it was when that process last told."""

    running: RunningAttempt | None = None

    def __init__(self, look: CallSnapshot, policy: Policy, interrupt: Callable[[str], None]) -> None:
        self.id = look.call
        self.policy = policy
        self.look = look
        self._interrupt = interrupt

    def snapshot(self) -> CallSnapshot:
        """Return the latest look at the call."""
        return self.look

    def interrupt(self, by: str) -> None:
        """End the call as soon as possible."""
        self._interrupt(by)


class JobListener:
    """Listens for one job.

    :param runtime: the parent's, which makes no calls; a live view looks at it.
    """

    def __init__(self, job: Job, tally: Tally, runtime: Runtime) -> None:
        self.interrupt_call: Callable[[int, str, str], None] | None = None
        """Interrupts a call of a process."""
        self._job, self._tally, self._runtime = job, tally, runtime
        self._calls: dict[int, set[str]] = {}

    @property
    def paused(self) -> str | None:
        """Who paused the job, if somebody did."""
        return self._runtime.paused

    def happened(self, happened: Happened) -> None:
        """Count what happened inside of calls."""
        self._tally.happened(happened.attempts, happened.retries, happened.first_tokens)
        for one in happened.limits:
            self._tally.limits.take(pickle.loads(one), self._tally.start)  # noqa: S301  our own process's

    def died(self, key: str) -> int:
        """Note the death of a row's process; returns how many the row was under way at."""
        self._tally.lost()
        return self._job.journal.died(key)

    def seen(self, process: int, calls: Sequence[CallSnapshot], records: Sequence[Record]) -> None:
        """Show the calls of a process where a live view looks."""
        running = self._runtime.calls
        now = {look.call for look in calls}
        for look in calls:
            known = running.get(look.call)
            if isinstance(known, RemoteCall):
                known.look = look
            else:
                running[look.call] = RemoteCall(look, self._job.policy, self._interrupter(process, look.call))
        for record in records:
            self._runtime.emit(record)
        for gone in self._calls.get(process, set()) - now:
            running.pop(gone, None)
        self._calls[process] = now

    def _interrupter(self, process: int, call: str) -> Callable[[str], None]:
        def interrupt(by: str) -> None:
            if self.interrupt_call is not None:
                self.interrupt_call(process, call, by)

        return interrupt

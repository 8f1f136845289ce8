"""Ask for one row: the seam between a job's runner and whatever makes the calls. `LocalAsker` makes them on this loop.

In charge of one row's call and of what came of it, as plain data (`Ended`), so that a call may as well have run in
another process. It does not know journal, output or other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from streamguard.budgets.ledger import LedgerError
from streamguard.engine.call import Call
from streamguard.engine.runtime import Runtime
from streamguard.errors import BudgetExhausted, CallError, ConfigError, GaveUp
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.report.excerpt import excerpts
from streamguard.jobs.store.journal_records import Spent
from streamguard.jobs.store.results import About, outcome_of, result_line
from streamguard.outcome import CallRecord, Outcome
from streamguard.pace.warmup import Prefix
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.retry.breaker import BreakerView
from streamguard.retry.rules import elsewhere
from streamguard.source import Source
from streamguard.usage import UsageRange
from streamguard.verdict import Trip


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """A budget without room for a row."""

    scope: str
    asked: int | None
    """What the request could have cost at the most, in the scope's unit."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a row: its result line, and what the job needs to know beside it."""

    line: bytes
    """The result line, with its line end."""
    type: str
    """`succeeded`, `errored` or `canceled`."""
    reason: str | None = None
    """Why it failed."""
    message: str = ""
    """The whole error in words; empty for a success."""
    words: str = ""
    """What ended the last attempt, without what was decided after it; of a marked answer, what is wrong with it."""
    completed: str | None = None
    """How the answer was accepted."""
    marked: tuple[str, ...] = ()
    """The reasons that an answer is marked with."""
    unsent: bool = False
    """Whether no attempt got as far as the provider."""
    denied: Denial | None = None
    detail: bytes | None = None
    """What only the journal keeps, as JSON."""
    spent: Spent = Spent()
    saved: tuple[int | None] | None = None
    """≈ Output tokens that aborts avoided, `(None,)` if nobody knows; `None` without an abort."""
    seconds: float = 0.0
    """From the entry of the call to its end."""
    lag: float = 0.0
    """Seconds by which the latest of the call's timers was late."""


AHEAD: Final = 8
"""Rows of a paced job that may have begun before their first attempt is sent: the wait for the provider's limits is
before a row, not in it, so that a kill loses few and `timeouts.total` counts none of it."""


class Asker(Protocol):
    """Makes the calls of a job."""

    ahead: int | None
    """Rows that may have begun and not been sent, at a time; `None` for any number."""

    async def ask(self, request: RowRequest, sent: Callable[[], None] | None = None) -> Ended:
        """Ask for one row, and return what came of it.

        :param sent: called when the first attempt of the row is about to be sent.
        :raises LedgerError: a budget's ledger refuses to be used.
        """

    def withdraw(self, by: str) -> None:
        """Interrupt the calls that wait before their first attempt. Nothing of them has been sent."""

    def interrupt(self, by: str) -> None:
        """Interrupt every call that runs, as soon as possible."""

    def down(self, now: float) -> Mapping[str | None, BreakerView]:
        """Return the models whose endpoint is down, and that no rule asks elsewhere.

        :param now: on the running backend's clock, in seconds.
        """

    def warming(self, shared: Sequence[Prefix]) -> bool:
        """Return whether a row with these prefixes waits for another row's answer to begin."""

    def cooling(self, now: float) -> float:
        """Return for how many seconds the provider is to be left alone.

        :param now: on the running backend's clock, in seconds.
        """


class LocalAsker:
    """Makes the calls on this event loop.

    :param source: makes a source of a request's parameters; each call asks it again as the policy says.
    :param runtime: what the calls share.
    :param about: what stands in each result line.
    :param shared: whether other processes ask under the same budgets: a call then waits for what they hold, too.
    """

    def __init__(
        self,
        source: Callable[[Mapping[str, Any]], Source],
        policy: Policy,
        runtime: Runtime,
        about: About,
        *,
        shared: bool = False,
    ) -> None:
        self._source = source
        self._policy = policy
        self._runtime = runtime
        self._about = about
        self._options: dict[str, Any] = {"keep": False, "patient": True, "shared": shared}
        self._running: set[Call] = set()
        self._ending: tuple[str | None, str | None] = (None, None)
        """Who withdrew, and who interrupted: calls that begin afterwards are told, too."""
        self.ahead = None if policy.pace is None else AHEAD

    async def ask(self, request: RowRequest, sent: Callable[[], None] | None = None) -> Ended:
        """See `Asker.ask`."""
        entry = request.entry
        came = await self._call(request.params, {"custom_id": entry.custom_id}, request.row, sent)
        return ended(entry.custom_id, came, self._about, entry.fingerprint, request.params, self._policy)

    def withdraw(self, by: str) -> None:
        """See `Asker.withdraw`."""
        self._ending = (by, self._ending[1])
        for call in self._running:
            if call.unsent:
                call.interrupt(by)

    def interrupt(self, by: str) -> None:
        """See `Asker.interrupt`."""
        self._ending = (self._ending[0], by)
        for call in self._running:
            call.interrupt(by)

    def down(self, now: float) -> Mapping[str | None, BreakerView]:
        """See `Asker.down`."""
        retry = self._policy.retry
        found = (view for view in self._runtime.down(now) if view.base_url is None)
        return {view.model: view for view in found if elsewhere(retry, view.reason) is None}

    def warming(self, shared: Sequence[Prefix]) -> bool:
        """See `Asker.warming`."""
        return self._policy.warm_up and self._runtime.row_waits(shared)

    def cooling(self, now: float) -> float:
        """See `Asker.cooling`."""
        return self._runtime.cooling(now)

    async def _call(
        self,
        params: Mapping[str, Any],
        labels: Mapping[str, Any],
        row: Mapping[str, Any] | None,
        sent: Callable[[], None] | None,
    ) -> Outcome | CallError:
        how = {**self._options, "labels": labels, "source_text": row, "sent": sent}
        try:
            call = Call(self._source(params), self._policy, self._runtime, **how)
            self._running.add(call)
            if (by := self._ending[1] or self._ending[0]) is not None:
                call.interrupt(by)
            try:
                return await call.run()
            finally:
                self._running.discard(call)
        except CallError as error:
            return error
        except LedgerError:
            raise
        except ConfigError as error:
            # The policy and this one request do not fit: known before it was sent, and no other row's business.
            record = CallRecord(usage=UsageRange.nothing(), labels=labels)
            return GaveUp(f"not sent: {'; '.join(map(str, error.problems))}", reason="source.error", record=record)


def ended(
    key: str, came: Outcome | CallError, about: About, fingerprint: str, params: Mapping[str, Any], policy: Policy
) -> Ended:
    """Return what came of a row as plain data.

    :param params: the row's request.
    """
    record = came.record if isinstance(came, CallError) else came
    kind, reason = outcome_of(came)
    found = excerpts(record, policy.json_document, Request(params).prefill) if record.reasons else {}
    aborted = any(isinstance(attempt.ended, Trip) for attempt in record.attempts)
    return Ended(
        line=result_line(key, came, about, fingerprint),
        type=kind,
        reason=reason,
        message=str(came) if isinstance(came, CallError) else "",
        words=_words(came),
        completed=came.completed if isinstance(came, Outcome) else None,
        marked=tuple(trip.reason for trip in came.marked) if isinstance(came, Outcome) else (),
        unsent=isinstance(came, CallError) and nothing_sent(record),
        denied=Denial(scope=came.scope, asked=came.asked) if isinstance(came, BudgetExhausted) else None,
        detail=msgspec.json.encode(found) if found else None,
        spent=Spent(
            attempts=len(record.attempts),
            tokens=(record.usage.low.output_tokens, record.usage.high.output_tokens),
            cost=(record.cost.low, record.cost.high),
        ),
        saved=(record.saved_tokens,) if aborted else None,
        seconds=record.seconds,
        lag=record.lag,
    )


def _words(came: Outcome | CallError) -> str:
    """What ended the last attempt, without what was decided after it; of a marked answer, what is wrong with it."""
    if isinstance(came, Outcome):
        return came.marked[0].message if came.marked else ""
    last = came.attempts[-1].ended if came.attempts else None
    return str(came) if last is None else last.message


def nothing_sent(record: CallRecord) -> bool:
    """Whether no attempt of a call got as far as the provider."""
    return all(attempt.times.head is None and attempt.times.end == 0.0 for attempt in record.attempts)

"""The rows of one process: so many at a time, each claimed right before it is asked, its result kept right after.

In charge of what a journal's answer and a row's end mean: who asks, who waits, what is kept, what ends the work. It
makes no calls itself, and knows neither columns nor engines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec

from streamguard.batch.claims import Claims
from streamguard.batch.journal.contract import Busy, Done, JournalLost, Mine, Other, Result
from streamguard.budgets.ledger import LedgerLost
from streamguard.errors import ConfigError, StreamguardError
from streamguard.jobs.asking import Asker, Denial, Ended
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.runner import HOPELESS
from streamguard.jobs.store.results import poison_line
from streamguard.jobs.store.resume import ALONE_FROM, MAX_ROW_FAILURES, POISON, own_fault

FIRST_LOOK = 0.1
LAST_LOOK = 2.0
"""Seconds between looks at a row that another process asks: doubled from the first to the last."""

AGAIN = "Extractor.forget()"


class Stopped(StreamguardError):
    """Nothing can be asked any more: a shared budget has no room, or the provider takes no request. Rows that were not
    asked are not in the journal."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        """Why, as a key of `verdict.REASONS`."""


class Came(msgspec.Struct, frozen=True):
    """What came of a row."""

    line: bytes
    asked: bool
    """Whether this process asked; else the result is another's, or an earlier one."""


class Work:
    """The rows of this process.

    :param claims: its claims in the row journal; `None` without one.
    :param concurrency: calls at a time.
    :param stops: whether a denial is of a budget that ends the work; other denials are results.
    """

    def __init__(
        self,
        asker: Asker,
        claims: Claims | None,
        *,
        concurrency: int,
        stops: Callable[[Denial], bool] = lambda denial: True,  # noqa: ARG005
    ) -> None:
        self._asker = asker
        self._claims = claims
        self._stops = stops
        self._turns = _Turns(concurrency)
        self._keys: dict[str, anyio.Event] = {}
        """The rows that are under way here, each with its end."""

    async def one(self, request: RowRequest) -> Came:
        """Return what came of a row.

        :raises Stopped: nothing can be asked any more.
        :raises ConfigError: the journal has the result of another question for this row.
        :raises JournalLost: the row journal cannot be reached, or was emptied.
        :raises LedgerLost: a budget's ledger cannot be reached.
        """
        if self._claims is None:
            async with self._turns.one():
                return Came(self._checked(await self._asker.ask(request)).line, asked=True)
        key = request.entry.custom_id
        while (ends := self._keys.get(key)) is not None:
            await ends.wait()
        ends = self._keys[key] = anyio.Event()
        try:
            return await self._claimed(self._claims, request)
        finally:
            del self._keys[key]
            ends.set()

    async def _claimed(self, claims: Claims, request: RowRequest) -> Came:
        entry, look, alone = request.entry, FIRST_LOOK, False
        while True:
            async with self._turns.all() if alone else self._turns.one():
                answer = await claims.claim(entry.custom_id, entry.fingerprint)
                if isinstance(answer, Done):
                    return Came(answer.line, asked=False)
                if isinstance(answer, Other):
                    raise _other(entry.custom_id)
                if isinstance(answer, Mine):
                    if alone or not ALONE_FROM <= answer.deaths < MAX_ROW_FAILURES:
                        return await self._mine(claims, request, answer)
                    # A suspect: the next death must tell whether it is to blame.
                    claims.put_back(entry.custom_id)
                    alone = True
            if isinstance(answer, Busy):
                await anyio.sleep(min(look, answer.seconds + 0.01))
                look = min(LAST_LOOK, look * 2)

    async def _mine(self, claims: Claims, request: RowRequest, answer: Mine) -> Came:
        entry, asked = request.entry, answer.deaths < MAX_ROW_FAILURES
        try:
            if asked:
                came = self._checked(await self._asker.ask(request))
                line, reason = came.line, came.reason
                keep = came.type == "succeeded" or (reason is not None and own_fault(reason))
            else:
                line = poison_line(entry.custom_id, answer.deaths, entry.fingerprint, again=AGAIN)
                reason, keep = POISON, True
        except BaseException:
            claims.put_back(entry.custom_id)
            raise
        if not keep:
            claims.put_back(entry.custom_id)
            return Came(line, asked=True)
        stands = await claims.finish(Result(entry.custom_id, entry.fingerprint, line, reason))
        if isinstance(stands, Other):
            raise _other(entry.custom_id)
        return Came(stands.line, asked=asked and stands.line == line)

    def _checked(self, came: Ended) -> Ended:
        """:raises StreamguardError: it is no result of the row, but the end of the work."""
        if came.denied is not None and self._stops(came.denied):
            raise Stopped(came.message, reason=came.reason or "budget.denied")
        if came.reason == "budget.lost":
            raise LedgerLost(came.message)
        if came.denied is None and came.reason is not None and came.reason in HOPELESS:
            raise Stopped(came.message, reason=came.reason)
        return came

    def lost(self, error: JournalLost) -> None:
        """The journal is lost: what runs is not covered by it any more."""
        self._asker.interrupt(str(error))


def _other(key: str) -> ConfigError:
    return ConfigError(
        f"the row journal has a result of {key!r} for another request or schema than is asked now; name another job, "
        "or ask what was asked before (clocks, caps, retries and budgets may change)"
    )


class _Turns:
    """So many at a time, or one alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = anyio.Semaphore(most)
        self._alone = anyio.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Beside others."""
        async with self._free:
            yield

    @asynccontextmanager
    async def all(self) -> AsyncIterator[None]:
        """While nobody else has a turn."""
        taken = 0
        async with self._alone:
            try:
                while taken < self._most:
                    await self._free.acquire()
                    taken += 1
                yield
            finally:
                for _ in range(taken):
                    self._free.release()

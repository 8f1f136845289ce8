"""The batch lane: a job's rows as Message Batches first, and as guarded streams what is left.

In charge of order. A batch is noted in the journal before anything is held or submitted, its holds have its name, and
every row of it carries it, so that whatever is killed, the next run finds what the provider took and submits nothing
twice. A row's result is judged and journaled one by one; what is bad, expired or failed stays to be asked by a stream.
It knows neither terminal nor SDK.

What becomes of a batch::

    noted → held → submitted → sent (the provider has named it) → ended → every result journaled → settled → taken

Where the submission broke off, nobody knows whether it was taken: the provider's list of batches is asked, and a batch
as large as ours, created since, is ours if its results have our ids.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

import anyio
import msgspec

from streamguard.budgets.ledger import Denied
from streamguard.jobs.batches.holds import BatchHolds
from streamguard.jobs.batches.judging import Judge
from streamguard.jobs.batches.log import Batch, BatchLog, Member
from streamguard.jobs.batches.taking import TRIES, Desk, Results, Seen, parsed_line
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import BatchProgress, Tally
from streamguard.jobs.store.output import decode_head
from streamguard.jobs.store.resume import ALONE_FROM
from streamguard.source import SourceFailed

MOST_ROWS: Final = 10_000
MOST_BYTES: Final = 32 * 1024 * 1024
"""Of one batch. The provider takes 100,000 rows and 256 MB; smaller ones need less memory and hold less of a budget."""

FIRST_LOOK, LAST_LOOK, SLOWER = 2.0, 60.0, 1.5
"""Seconds between looks at a batch: the first, the longest, and by how much each is longer. Most batches take minutes
to an hour."""

GRACE: Final = 10.0
"""Seconds after a submission that broke off, before its absence from the list means that it was not taken."""

SKEW: Final = 300.0
"""Seconds by which the provider's clock may be behind ours."""

REFUSED: Final = frozenset(
    {"provider.authentication", "provider.permission", "provider.billing", "provider.spend_limit"}
)
"""Reasons that end the job: no stream would fare better."""

FOR_NOW: Final = frozenset({"provider.rate_limited", "provider.overloaded", "transport.connect", "timeout.connect"})
"""Reasons that may pass."""

NOT_BATCHED: Final = frozenset({"betas", "speed", "stream", "base_url"})
"""Fields of a request that no batch takes as they are: rows with any are asked by streams."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How the lane is to run."""

    deadline: float | None = None
    """Seconds after which what is not done is canceled and left to streams; `None` for as long as batches take."""
    most_rows: int = MOST_ROWS
    most_bytes: int = MOST_BYTES
    first_look: float = FIRST_LOOK
    grace: float = GRACE


class LaneStopped(Exception):
    """The provider takes nothing with these credentials, or its limit is reached: the job ends."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Open:
    """A batch whose results are still to come."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.seen: Seen | None = None
        self.canceled = False
        self.waits = False
        """Whether a batch of the provider's may be this one, and does not say before it ends."""
        self.others: set[str] = set()
        """Batches that are not this one."""


class BatchLane:
    """Sends the rows of one run that a batch takes, and takes their results.

    :param job: started, so that its journal has a run.
    :param desk: where batches are submitted; opened for the run.
    :param say: told what is worth knowing, in sentences.
    """

    def __init__(
        self,
        job: Job,
        desk: Desk,
        judge: Judge,
        holds: BatchHolds,
        *,
        tally: Tally,
        order: Order | None = None,
        say: Callable[[str], None] = lambda _: None,
        log: BatchLog | None = None,
        submits: bool = True,
    ) -> None:
        self._job = job
        self._desk = desk
        self._holds = holds
        self._tally = tally
        self._order = order or Order()
        self._say = say
        self._log = log or BatchLog(job.journal)
        self._submits = submits
        self._results = Results(job, desk, judge, tally, first_look=self._order.first_look)
        self._open: list[_Open] = []
        self._until = math.inf
        self._look = self._order.first_look
        self._streams = False
        """Whether batches are given up, and the rest is left to streams."""
        self._complained = False
        self._kept: dict[str, int] = {}
        """Rows of this run that are in an open batch, with their lines in the input."""

    async def run(self) -> None:
        """Submit what a batch takes, and wait until every batch is taken. What is left is the plan's.

        :raises LaneStopped: the provider takes nothing from us.
        :raises JournalError: the journal cannot be written any more.
        :raises OutputError: the output cannot be written any more.
        :raises LedgerLost: a ledger cannot be reached; nothing may be sent on its account.
        :raises LedgerError: a ledger refuses to be used.
        """
        if self._order.deadline is not None:
            self._until = anyio.current_time() + self._order.deadline
        try:
            await self._attach()
            if self._submits:
                for part in self._parts():
                    await self._send(part)
                    if self._gives_up:
                        break
            while self._open:
                await self._wait()
        except anyio.get_cancelled_exc_class():
            if self._open:
                named = ", ".join(self.running) or "not named yet"
                self._say(f"{_batches(len(self._open))} go on at the provider ({named}): run again to take the results")
            raise
        finally:
            self._told()

    @property
    def running(self) -> list[str]:
        """The provider's ids of batches whose results are still to come."""
        return [one.batch.id for one in self._open if one.batch.id is not None]

    @property
    def _gives_up(self) -> bool:
        return self._streams or anyio.current_time() >= self._until

    # What there is from before

    async def _attach(self) -> None:
        """Go on with the batches of earlier runs. Their rows are asked by nothing else meanwhile."""
        for batch in self._log.open():
            if batch.state == "noted" and await self._holds.reserve(batch) is not None:
                # It was killed before its hold was made, so nothing was submitted.
                self._change(batch, state="refused")
                continue
            self._keep(batch.members)
            self._open.append(_Open(batch))
        if self._open:
            count = sum(len(one.batch.members) for one in self._open)
            self._say(f"{count:,} rows are in {_batches(len(self._open))} of an earlier run: waiting for their results")
        self._told()
        for one in [one for one in self._open if one.batch.id is None]:
            # Rows that no batch has can go into one of this run.
            while one in self._open and one.batch.id is None and not one.waits:
                await self._wait([one])

    # Submitting

    def _parts(self) -> Iterator[list[RowRequest]]:
        """The rows that a batch takes, some at a time."""
        part: list[RowRequest] = []
        size = 0
        for request in self._job.requests():
            if request.turn >= ALONE_FROM or NOT_BATCHED & request.params.keys() or self._was_in_one(request):
                continue
            length = len(msgspec.json.encode(request.params)) + 100
            if part and (len(part) >= self._order.most_rows or size + length > self._order.most_bytes):
                yield part
                part, size = [], 0
            part.append(request)
            size += length
        if part:
            yield part

    def _was_in_one(self, request: RowRequest) -> bool:
        """Whether a batch has answered this row already, badly: no row is paid for by batches twice."""
        written = self._job.journal.line(request.entry.custom_id)
        return written is not None and decode_head(written).streamguard.batch is not None

    async def _send(self, part: Sequence[RowRequest]) -> None:
        """Submit some rows, in smaller parts where a budget has no room for all of them."""
        todo = [list(part)]
        while todo and not self._gives_up:
            rows = todo.pop()
            denied = await self._submit(rows)
            if denied is None:
                continue
            if self._open:  # what they hold comes back
                await self._wait()
                todo.append(rows)
            elif len(rows) > 1:
                half = len(rows) // 2
                todo += [rows[half:], rows[:half]]
            else:
                self._streams = True  # where the job ends for want of money, as it does without this lane

    async def _submit(self, rows: Sequence[RowRequest]) -> Denied | None:
        held = [(row, member) for row in rows if (member := self._holds.member(row)) is not None]
        if not held:
            return None
        members = tuple(member for _, member in held)
        batch = Batch(
            token=f"sg{secrets.token_hex(8)}",
            members=members,
            holds=self._holds.amounts(members),
            noted=self._log.clock(),
        )
        self._log.note(batch)
        if (denied := await self._holds.reserve(batch)) is not None:
            self._change(batch, state="refused")
            return denied
        requests = [{"custom_id": batch.custom_id(at), "params": row.params} for at, (row, _) in enumerate(held)]
        self._keep(members)
        one = _Open(batch)
        self._open.append(one)
        self._told()
        for tried in range(TRIES):
            try:
                one.seen = await self._desk.create(requests)
            except SourceFailed as error:
                failed = error.failed
                if failed.billable:
                    self._say(f"a batch of {len(members):,} rows was submitted, and {failed.message}: looking for it")
                    return None
                if failed.reason in FOR_NOW and tried < TRIES - 1 and not self._gives_up:
                    await anyio.sleep(failed.retry_after or min(LAST_LOOK, self._order.first_look * 2**tried))
                    continue
                await self._refused(one)
                if failed.reason in REFUSED:
                    raise LaneStopped(failed.reason, failed.message) from error
                self._streams = True
                self._say(f"no batch was taken ({failed.message}): the rows are asked one by one")
                return None
            one.batch = self._change(batch, state="sent", id=one.seen.id)
            self._say(f"batch {one.seen.id}: {len(members):,} rows submitted")
            return None
        return None

    async def _refused(self, one: _Open) -> None:
        """A batch that the provider took at no time: its rows are as they were."""
        await self._holds.settle(one.batch, {})
        self._change(one.batch, state="refused")
        self._give_back(one.batch.members)
        self._close(one)

    # Waiting

    async def _wait(self, some: Sequence[_Open] | None = None) -> None:
        """Look at every open batch, or at some, take those that ended, and wait a while if none had."""
        before = len(self._open)
        for one in list(self._open if some is None else some):
            try:
                await self._look_at(one)
            except SourceFailed as error:
                if error.failed.reason in REFUSED:
                    raise LaneStopped(error.failed.reason, error.failed.message) from error
                if not self._complained:
                    self._say(f"batches cannot be looked at for now: {error.failed.message}")
                self._complained = True
            else:
                self._complained = False
        self._told()
        if len(self._open) < before:
            self._look = self._order.first_look
            return
        wait = min(self._look, max(0.0, self._until - anyio.current_time()) or self._look)
        self._look = min(LAST_LOOK, self._look * SLOWER)
        await anyio.sleep(wait)

    async def _look_at(self, one: _Open) -> None:
        if one.batch.id is None and not await self._find(one):
            return
        assert one.batch.id is not None
        try:
            one.seen = await self._desk.retrieve(one.batch.id)
            if not one.seen.ended and not one.canceled and anyio.current_time() >= self._until:
                one.canceled = True
                one.seen = await self._desk.cancel(one.batch.id)
                self._say(f"batch {one.batch.id}: canceled at the deadline; what it has not done is asked one by one")
        except SourceFailed as error:
            if error.failed.reason == "provider.not_found":
                self._gone(one, error.failed.message)
                return
            raise
        one.batch = self._change(one.batch, counts=dict(one.seen.counts))
        if one.seen.ended:
            await self._take(one)

    async def _find(self, one: _Open) -> bool:
        """Whether the provider has a batch whose submission broke off; if it surely has not, the batch is given up."""
        known = {batch.id for batch in self._log.all()}
        one.waits = False
        async with aclosing(self._desk.since(one.batch.noted - SKEW)) as found:
            async for seen in found:
                if seen.id in known or seen.id in one.others or seen.total != len(one.batch.members):
                    continue
                if not seen.ended:
                    one.waits = True  # nothing but its results says whose it is
                elif await self._is_ours(one.batch, seen.id):
                    one.batch = self._change(one.batch, state="sent", id=seen.id)
                    return True
                else:
                    one.others.add(seen.id)
        if not one.waits and self._log.clock() >= one.batch.noted + self._order.grace:
            await self._refused(one)
            self._say(f"a batch of {len(one.batch.members):,} rows was submitted, and the provider has not taken it")
        return False

    async def _is_ours(self, batch: Batch, name: str) -> bool:
        async with aclosing(self._desk.results(name)) as lines:
            async for line in lines:
                parsed = parsed_line(line)
                if parsed is not None:
                    return batch.member(parsed.get("custom_id")) is not None
        return False

    def _gone(self, one: _Open, message: str) -> None:
        """The provider does not know a batch any more: what it cost stays uncertain."""
        self._change(one.batch, state="gone")
        self._give_back(one.batch.members)
        self._close(one)
        self._say(
            f"batch {one.batch.id} is gone ({message}): its rows are asked again, and what it had cost is unknown"
        )

    # Taking

    async def _take(self, one: _Open) -> None:
        """Judge and journal every result, then settle what the batch held."""
        batch = one.batch
        taken = await self._results.take(batch, max(0.0, self._log.clock() - batch.noted))
        self._give_back([*taken.bad, *taken.missing])
        if taken.missing:
            why = f" ({taken.broken})" if taken.broken else ""
            count = len(taken.missing)
            self._say(f"batch {batch.id}: {count:,} results did not come{why}; their rows are asked one by one")
        with anyio.CancelScope(shield=True):
            await self._holds.settle(batch, taken.spent)
        self._change(batch, state="taken")
        self._close(one)
        self._say(f"batch {batch.id}: {taken.good:,} of {len(batch.members):,} rows succeeded")

    # Notes

    def _change(self, batch: Batch, **changed: Any) -> Batch:
        batch = msgspec.structs.replace(batch, **changed)
        self._log.change(batch)
        return batch

    def _keep(self, members: Sequence[Member]) -> None:
        """Let streams leave a batch's rows alone. A row that has changed since is another one."""
        for member in members:
            entry = self._job.plan.entry(member.key)
            if entry is not None and entry.fingerprint == member.fingerprint and self._job.plan.is_chosen(member.key):
                self._kept[member.key] = entry.line
        self._job.plan.choose((self._kept[member.key], None) for member in members if member.key in self._kept)

    def _give_back(self, members: Sequence[Member]) -> None:
        """Let streams ask rows that a batch did not answer, if this run is about them."""
        lines = [line for member in members if (line := self._kept.get(member.key)) is not None]
        self._job.plan.choose((line, 0) for line in lines)

    def _close(self, one: _Open) -> None:
        self._open.remove(one)
        for member in one.batch.members:
            self._kept.pop(member.key, None)

    def _told(self) -> None:
        self._tally.batches = (
            BatchProgress(batches=len(self._open), rows=sum(len(one.batch.members) for one in self._open))
            if self._open
            else None
        )


def _batches(count: int) -> str:
    return "1 batch" if count == 1 else f"{count:,} batches"

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

import json
import math
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol

import anyio
import msgspec

from streamguard.budgets.ledger import Denied
from streamguard.jobs.batches.holds import BatchHolds
from streamguard.jobs.batches.judging import Judge, Judged
from streamguard.jobs.batches.log import Batch, BatchLog, Member
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

TRIES: Final = 5
"""Times that a submission is refused for now, or results break off, before the rows are left to streams."""

REFUSED: Final = frozenset(
    {"provider.authentication", "provider.permission", "provider.billing", "provider.spend_limit"}
)
"""Reasons that end the job: no stream would fare better."""

FOR_NOW: Final = frozenset({"provider.rate_limited", "provider.overloaded", "transport.connect", "timeout.connect"})
"""Reasons that may pass."""

NOT_BATCHED: Final = frozenset({"betas", "speed", "stream", "base_url"})
"""Fields of a request that no batch takes as they are: rows with any are asked by streams."""


class Seen(Protocol):
    """A batch as the provider describes it."""

    @property
    def id(self) -> str: ...
    @property
    def created(self) -> float: ...
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def total(self) -> int: ...
    @property
    def ended(self) -> bool: ...


class Desk(Protocol):
    """Where batches are submitted."""

    async def create(self, requests: Sequence[Mapping[str, Any]]) -> Seen: ...
    async def retrieve(self, batch: str) -> Seen: ...
    async def cancel(self, batch: str) -> Seen: ...
    def since(self, created: float) -> AsyncGenerator[Seen]: ...
    def results(self, batch: str) -> AsyncGenerator[bytes]: ...


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
        self._judge = judge
        self._holds = holds
        self._tally = tally
        self._order = order or Order()
        self._say = say
        self._log = log or BatchLog(job.journal)
        self._submits = submits
        self._open: list[_Open] = []
        self._until = math.inf
        self._look = self._order.first_look
        self._streams = False
        """Whether batches are given up, and the rest is left to streams."""
        self._complained = False

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
            self._choose(batch.members, None)
            self._open.append(_Open(batch))
        if self._open:
            count = sum(len(one.batch.members) for one in self._open)
            self._say(f"{count:,} rows are in {_batches(len(self._open))} of an earlier run: waiting for their results")
        self._told()

    # Submitting

    def _parts(self) -> Iterator[list[RowRequest]]:
        """The rows that a batch takes, some at a time."""
        part: list[RowRequest] = []
        size = 0
        for request in self._job.requests():
            if request.turn >= ALONE_FROM or NOT_BATCHED & request.params.keys():
                continue
            length = len(msgspec.json.encode(request.params)) + 100
            if part and (len(part) >= self._order.most_rows or size + length > self._order.most_bytes):
                yield part
                part, size = [], 0
            part.append(request)
            size += length
        if part:
            yield part

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
        self._choose(members, None)
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
        self._choose(one.batch.members, 0)
        self._close(one)

    # Waiting

    async def _wait(self) -> None:
        """Look at every open batch, take those that ended, and wait a while if none had."""
        before = len(self._open)
        for one in list(self._open):
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
        waiting = False
        async with aclosing(self._desk.since(one.batch.noted - SKEW)) as found:
            async for seen in found:
                if seen.id in known or seen.id in one.others or seen.total != len(one.batch.members):
                    continue
                if not seen.ended:
                    waiting = True  # nothing but its results says whose it is
                elif await self._is_ours(one.batch, seen.id):
                    one.batch = self._change(one.batch, state="sent", id=seen.id)
                    return True
                else:
                    one.others.add(seen.id)
        if not waiting and self._log.clock() >= one.batch.noted + self._order.grace:
            await self._refused(one)
            self._say(f"a batch of {len(one.batch.members):,} rows was not taken: they are asked one by one")
        return False

    async def _is_ours(self, batch: Batch, name: str) -> bool:
        async with aclosing(self._desk.results(name)) as lines:
            async for line in lines:
                parsed = _parsed(line)
                if parsed is not None:
                    return batch.member(parsed.get("custom_id")) is not None
        return False

    def _gone(self, one: _Open, message: str) -> None:
        """The provider does not know a batch any more: what it cost stays uncertain."""
        self._change(one.batch, state="gone")
        self._choose(one.batch.members, 0)
        self._close(one)
        self._say(
            f"batch {one.batch.id} is gone ({message}): its rows are asked again, and what it had cost is unknown"
        )

    # Taking

    async def _take(self, one: _Open) -> None:
        """Judge and journal every result, then settle what the batch held."""
        batch = one.batch
        assert batch.id is not None and one.seen is not None  # noqa: PT018
        seconds = max(0.0, self._log.clock() - batch.noted)
        spent: dict[str, tuple[int | None, int | None]] = {}
        done: set[str] = set()
        tried, broken = 0, ""
        while len(done) < len(batch.members) and tried < TRIES:
            tried += 1
            try:
                async with aclosing(self._desk.results(batch.id)) as lines:
                    async for line in lines:
                        parsed = _parsed(line)
                        member = None if parsed is None else batch.member(parsed.get("custom_id"))
                        if parsed is None or member is None or member.key in done:
                            continue
                        took = await self._result(batch, member, parsed.get("result"), seconds)
                        if took is not None:
                            spent[member.key] = took
                        done.add(member.key)
            except SourceFailed as error:
                broken = error.failed.message
            if len(done) < len(batch.members) and tried < TRIES:
                await anyio.sleep(min(LAST_LOOK, self._order.first_look * 2**tried))
        missing = [member for member in batch.members if member.key not in done]
        if missing:
            self._choose(missing, 0)
            spent |= {member.key: (None, None) for member in missing}
            why = f" ({broken})" if broken else ""
            self._say(f"batch {batch.id}: {len(missing):,} results did not come{why}; their rows are asked one by one")
        with anyio.CancelScope(shield=True):
            await self._holds.settle(batch, spent)
        self._change(batch, state="taken")
        self._close(one)
        good = sum(not self._job.plan.is_chosen(member.key) for member in batch.members)
        self._say(f"batch {batch.id}: {good:,} of {len(batch.members):,} rows succeeded")

    async def _result(
        self, batch: Batch, member: Member, result: Any, seconds: float
    ) -> tuple[int | None, int | None] | None:
        """One row's result: in the journal, if it is not there, and to be asked again if it is no good.

        :returns: what it took, in micro-USD and tokens; `None` for a request that was not worked on.
        """
        entry = self._job.plan.entry(member.key)
        if entry is None or entry.fingerprint != member.fingerprint:
            return None, None  # the row has changed since: it is the answer to no row of today's
        request = next(self._job.input.requests([(entry, 0)]))
        assert batch.id is not None
        told = result if isinstance(result, Mapping) else {}
        judged = await self._judge.judge(request, told, batch.id, seconds)
        if judged is None or judged.ended.type != "succeeded":
            self._job.plan.choose([(entry.line, 0)])
        if judged is None:
            return None
        written = self._job.journal.line(member.key)
        if written is None or decode_head(written).streamguard.batch != batch.id:  # else by a run that was killed
            self._write(request, judged)
        return judged.micro_usd, judged.tokens

    def _write(self, request: RowRequest, judged: Judged) -> None:
        entry, came, job = request.entry, judged.ended, self._job
        job.journal.finish(
            entry.custom_id,
            came.line,
            type=came.type,
            reason=came.reason,
            fingerprint=entry.fingerprint,
            spent=came.spent,
            detail=came.detail,
        )
        if came.type == "succeeded":
            job.output.append(came.line)
            self._tally.began()
            self._tally.took(entry.custom_id, came)
            self._tally.happened(came.spent.attempts, {}, ())
        else:
            self._tally.returned(came)

    # Notes

    def _change(self, batch: Batch, **changed: Any) -> Batch:
        batch = msgspec.structs.replace(batch, **changed)
        self._log.change(batch)
        return batch

    def _choose(self, members: Sequence[Member], turn: int | None) -> None:
        """Say of a batch's rows whether streams ask them."""
        entries = (self._job.plan.entry(member.key) for member in members)
        self._job.plan.choose((entry.line, turn) for entry in entries if entry is not None)

    def _close(self, one: _Open) -> None:
        self._open.remove(one)

    def _told(self) -> None:
        self._tally.batches = (
            BatchProgress(batches=len(self._open), rows=sum(len(one.batch.members) for one in self._open))
            if self._open
            else None
        )


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of results; `None` for one that is blank or cut."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _batches(count: int) -> str:
    return "1 batch" if count == 1 else f"{count:,} batches"

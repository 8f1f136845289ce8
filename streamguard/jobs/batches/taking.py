"""Take the results of a batch that has ended: each judged, and journaled with its row.

In charge of reading results, again where they break off, and of writing each row once, whatever was killed in between.
What the batch held, and what becomes of rows without a good answer, is `lane`'s business.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol

import anyio
import msgspec

from streamguard.jobs.batches.judging import Judge, Judged
from streamguard.jobs.batches.log import Batch, Member
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import Tally
from streamguard.jobs.store.output import decode_head
from streamguard.source import SourceFailed

TRIES: Final = 5
"""Times that a submission is refused for now, or results break off, before the rows are left to streams."""

LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries, at the most."""


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


class Taken(msgspec.Struct, kw_only=True):
    """What came of a batch."""

    spent: dict[str, tuple[int | None, int | None]] = {}
    """Micro-USD and tokens by row, `None` where nobody knows. Rows that were not worked on are not in it."""
    bad: list[Member] = []
    """Rows without a good answer."""
    missing: list[Member] = []
    """Rows whose results did not come."""
    broken: str = ""
    """Why not."""
    good: int = 0


class Results:
    """Takes the results of one run's batches.

    :param first_look: seconds of the first pause between two tries.
    """

    def __init__(self, job: Job, desk: Desk, judge: Judge, tally: Tally, *, first_look: float) -> None:
        self._job = job
        self._desk = desk
        self._judge = judge
        self._tally = tally
        self._first_look = first_look

    async def take(self, batch: Batch, seconds: float) -> Taken:
        """Judge and journal every result of a batch. Again is harmless: no row is written twice.

        :param seconds: from the batch's submission to its end.
        """
        assert batch.id is not None
        taken = Taken()
        done: set[str] = set()
        for tried in range(TRIES):
            if tried:
                await anyio.sleep(min(LONGEST_PAUSE, self._first_look * 2**tried))
            try:
                async with aclosing(self._desk.results(batch.id)) as lines:
                    async for line in lines:
                        found = parsed_line(line)
                        member = None if found is None else batch.member(found.get("custom_id"))
                        if found is not None and member is not None and member.key not in done:
                            await self._result(batch, member, found.get("result"), seconds, taken)
                            done.add(member.key)
            except SourceFailed as error:
                taken.broken = error.failed.message
            if len(done) == len(batch.members):
                break
        taken.missing = [member for member in batch.members if member.key not in done]
        taken.spent |= {member.key: (None, None) for member in taken.missing}
        return taken

    async def _result(self, batch: Batch, member: Member, result: Any, seconds: float, taken: Taken) -> None:
        """One row's result: into the journal, if it is not there."""
        entry = self._job.plan.entry(member.key)
        if entry is None or entry.fingerprint != member.fingerprint:
            # The row has changed since: this is the answer to no row of today's, and was paid for all the same.
            taken.spent[member.key] = None, None
            return
        request = next(self._job.input.requests([(entry, 0)]))
        assert batch.id is not None
        told = result if isinstance(result, Mapping) else {}
        judged = await self._judge.judge(request, told, batch.id, seconds)
        if judged is None or judged.ended.type != "succeeded":
            taken.bad.append(member)
        if judged is None:
            return
        taken.spent[member.key] = judged.micro_usd, judged.tokens
        taken.good += judged.ended.type == "succeeded"
        written = self._job.journal.line(member.key)
        if written is None or decode_head(written).streamguard.batch != batch.id:  # else by a run that was killed
            self._write(request, judged)

    def _write(self, request: RowRequest, judged: Judged) -> None:
        entry, came, job = request.entry, judged.ended, self._job
        job.journal.finish(
            entry.custom_id,
            came.line,
            type=came.type if came.type == "succeeded" else "canceled",  # its row is asked again, by whatever run
            reason=came.reason,
            fingerprint=entry.fingerprint,
            spent=came.spent,
            detail=came.detail,
            done=came.type == "succeeded",
        )
        if came.type == "succeeded":
            job.output.append(came.line)
            self._tally.began()
            self._tally.took(entry.custom_id, came)
            self._tally.happened(came.spent.attempts, {}, ())
        else:
            self._tally.returned(came)


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """Parse a line of results; `None` for one that is blank or cut."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

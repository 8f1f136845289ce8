"""The worker processes of a job, seen from the parent: an `Asker` whose calls run elsewhere.

In charge of the processes' lives and of who asks which row. Rows of a process that died go to others, and the death
counts: a row that was under way at two deaths is asked with a process to itself, and at the last it is given up
(`job.poison`). A process is started again, unless processes die and die without a row that ended in between.
"""

from __future__ import annotations

import itertools
import json
import math
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from streamguard.budgets.ledger import LedgerError
from streamguard.engine.snapshot import CallSnapshot
from streamguard.engine.telemetry import Record
from streamguard.errors import JobError, StreamguardError
from streamguard.jobs.asking import Ended
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.store.journal_records import Spent
from streamguard.jobs.store.results import poison_line
from streamguard.jobs.store.resume import ALONE_FROM, POISON
from streamguard.jobs.workers.frames import (
    Answered,
    Ask,
    Begin,
    Broke,
    Frames,
    Happened,
    Interrupt,
    Message,
    Pause,
    Ready,
    Seen,
    Sent,
    Withdraw,
)
from streamguard.pace.warmup import Prefix
from streamguard.retry.breaker import BreakerView

STARTS: Final = 3
"""Times in a row that a process is started again without a row that ended in between."""

END_LIMIT: Final = 2.0
"""Seconds that a process has to end in, once its socket is closed."""

LOOK_EVERY: Final = 0.2
"""Seconds between looks at whether somebody paused the job."""


class Listener(Protocol):
    """Who is told what happens in the processes."""

    def happened(self, happened: Happened) -> None:
        """Something happened inside of calls."""

    def died(self, key: str) -> int:
        """The process of a row died; returns how many deaths the row was under way at."""

    def seen(self, process: int, calls: Sequence[CallSnapshot], records: Sequence[Record]) -> None:
        """The calls of a process at this moment, and its telemetry since the last time."""

    @property
    def paused(self) -> str | None:
        """Who paused the job, if somebody did."""


class _Row:
    """A row that a process asks."""

    def __init__(self, key: str, sent: Callable[[], None] | None) -> None:
        self.key = key
        self.sent = sent
        self.over = anyio.Event()
        self.ended: Ended | None = None
        """`None` after its process died."""


class _Child:
    """One process."""

    def __init__(self, number: int, share: int) -> None:
        self.number = number
        self.share = share
        self.rows: dict[int, _Row] = {}
        self.frames: Frames | None = None
        """`None` before it is ready, and after its end."""
        self.alone: _Row | None = None
        """The row that is to have the process to itself."""
        self.fruitless = 0
        """Starts without a row that ended."""
        self.process: subprocess.Popen[bytes] | None = None
        self.cooling = 0.0
        self.down: dict[str | None, BreakerView] = {}
        """What it said last that is down, by model."""
        self.told_at = 0.0
        """When it said so."""

    def wait(self, model: str | None) -> tuple[bool, float]:
        """Return for how long a row of this model would wait here: whether it would, and the seconds to the next
        look."""
        view = self.down.get(model)
        return (False, 0.0) if view is None else (True, math.inf if view.looking else view.next_look - self.told_at)


class WorkerPool:
    """The processes. `begin` them in a task group, and `close` them.

    :param begin: what each process is told first.
    :param count: processes.
    :param concurrency: calls at a time in all of them together.
    :param max_deaths: deaths from which on a row is given up.
    :param ahead: see `Asker.ahead`.
    """

    def __init__(
        self,
        begin: Begin,
        listener: Listener,
        *,
        count: int,
        concurrency: int,
        max_deaths: int,
        ahead: int | None = None,
    ) -> None:
        self.ahead = ahead
        self.endpoint: str | None = None
        """The URL that is asked, once a process is ready."""
        self._begin = begin
        self._listener = listener
        self._max_deaths = max_deaths
        used = min(count, concurrency)
        self._children = [_Child(i, concurrency // used + (i < concurrency % used)) for i in range(used)]
        self._numbers = itertools.count(1)
        self._changed = anyio.Event()
        self._error: StreamguardError | None = None
        self._ending: str | None = None
        """Why no more rows are asked."""
        self._closing = False
        self._paused: str | None = None

    async def begin(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start the processes, and wait until one takes rows.

        :raises JobError: they cannot be started.
        """
        for child in self._children:
            tasks.start_soon(self._keep, child)
        tasks.start_soon(self._watch_pause)
        while self.endpoint is None:
            self._raise()
            await self._change()

    async def ask(self, request: RowRequest, sent: Callable[[], None] | None = None) -> Ended:
        """See `Asker.ask`. A row whose process dies is asked again by another.

        :param sent: called when the first attempt of the row is about to be sent.
        """
        entry, deaths = request.entry, request.turn
        params = json.dumps(request.params).encode()
        data = None if request.row is None else json.dumps(request.row).encode()
        while True:
            row = _Row(entry.custom_id, sent)
            child = await self._child(row, request.params.get("model"), alone=deaths >= ALONE_FROM)
            if child is None or child.frames is None:
                return Ended(line=b"", type="canceled", unsent=True, message=self._ending or "")
            number = next(self._numbers)
            child.rows[number] = row
            self._notify()
            child.frames.send(Ask(number, entry.custom_id, entry.fingerprint, params, data))
            try:
                await row.over.wait()
            finally:
                child.rows.pop(number, None)
                if child.alone is row:
                    child.alone = None
                self._notify()
            if row.ended is not None:
                return row.ended
            self._raise()
            deaths = self._listener.died(entry.custom_id)
            if deaths >= self._max_deaths:
                return Ended(
                    line=poison_line(entry.custom_id, deaths, entry.fingerprint),
                    type="errored",
                    reason=POISON,
                    message=f"not asked again: its process died {deaths} times",
                    words=f"not asked again: its process died {deaths} times",
                    spent=Spent(tokens=(None, None), cost=(None, None)),
                )

    def withdraw(self, by: str) -> None:
        """See `Asker.withdraw`."""
        self._end(by)
        self._tell(Withdraw(by))

    def interrupt(self, by: str) -> None:
        """See `Asker.interrupt`."""
        self._end(by)
        self._tell(Interrupt(by))

    def interrupt_call(self, process: int, call: str, by: str) -> None:
        """Interrupt one call of a process."""
        frames = self._children[process].frames
        if frames is not None:
            frames.send(Interrupt(by, call))

    def down(self, now: float) -> Mapping[str | None, BreakerView]:
        """See `Asker.down`: what is down for every process, as the one knows that may look first."""
        children = [child for child in self._children if child.frames is not None]
        found: dict[str | None, BreakerView] = {}
        for model in set.intersection(*(set(child.down) for child in children)) if children else ():
            first = min(children, key=lambda child: child.wait(model))
            view, ago = first.down[model], max(0.0, now - first.told_at)
            longest = max(child.down[model].seconds + now - child.told_at for child in children)
            found[model] = msgspec.structs.replace(view, seconds=longest, next_look=max(0.0, view.next_look - ago))
        return found

    def warming(self, shared: Sequence[Prefix]) -> bool:  # noqa: ARG002  each process warms up by itself
        """See `Asker.warming`: nothing waits here."""
        return False

    def cooling(self, now: float) -> float:  # noqa: ARG002  clocks of the processes
        """See `Asker.cooling`: as the processes said last."""
        return max((child.cooling for child in self._children), default=0.0)

    async def close(self) -> None:
        """End the processes."""
        self._closing = True
        self._end("the job is over")
        with anyio.CancelScope(shield=True):
            for child in self._children:
                if child.process is not None:
                    await anyio.to_thread.run_sync(_ended, child.process)

    # Who asks

    async def _child(self, row: _Row, model: str | None, *, alone: bool) -> _Child | None:
        """Wait for a process with room; `None` if no more rows are asked.

        :param model: the row's: a process for which it is down is asked last.
        :param alone: whether the row wants the process to itself.
        """
        while True:
            self._raise()
            if self._ending is not None:
                return None
            ready = [child for child in self._children if child.frames is not None]
            if alone:
                mine = next((child for child in ready if child.alone is row), None)
                if mine is None:
                    mine = min(
                        (child for child in ready if child.alone is None), key=lambda one: len(one.rows), default=None
                    )
                if mine is not None:
                    mine.alone = row
                    if not mine.rows:
                        return mine
            else:
                roomy = [child for child in ready if child.alone is None and _room(child) > 0]
                if roomy:
                    return min(roomy, key=lambda child: (child.wait(model), -_room(child)))
            await self._change()

    async def _change(self) -> None:
        await self._changed.wait()

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _fail(self, error: StreamguardError) -> None:
        self._error = self._error or error
        for child in self._children:
            self._leave(child)
        self._notify()

    def _end(self, by: str) -> None:
        self._ending = self._ending or by
        self._notify()

    def _tell(self, message: Message) -> None:
        for child in self._children:
            if child.frames is not None:
                child.frames.send(message)

    # Processes

    async def _keep(self, child: _Child) -> None:
        """Start a process, and start it again after its death, until the job is over."""
        while not self._closing and self._error is None:
            try:
                await self._serve(child)
            except OSError as error:
                self._fail(JobError(f"a worker process cannot be started: {error}"))
            self._leave(child)
            if self._ending is not None or self._error is not None:
                return
            child.fruitless += 1
            if child.fruitless > STARTS:
                code = child.process.returncode if child.process is not None else None
                self._fail(
                    JobError(
                        f"a worker process died {child.fruitless} times without finishing a row, at last with exit "
                        f"code {code}; what it said stands above"
                    )
                )
            self._notify()

    async def _serve(self, child: _Child) -> None:
        here, there = socket.socketpair()
        with there:
            child.process = _started(there.fileno())
        async with await anyio.abc.UNIXSocketStream.from_socket(here) as stream, anyio.create_task_group() as beside:
            frames = Frames(stream)
            beside.start_soon(frames.write)
            frames.send(self._begin)
            while not self._closing and (found := await frames.receive()):
                for message in found:
                    self._take(child, frames, message)
            beside.cancel_scope.cancel()
        await anyio.to_thread.run_sync(_ended, child.process)

    def _take(self, child: _Child, frames: Frames, message: Message) -> None:
        match message:
            case Answered():
                child.fruitless = 0
                if (row := child.rows.get(message.number)) is not None:
                    row.ended = message.ended
                    row.over.set()
            case Sent():
                if (row := child.rows.get(message.number)) is not None and row.sent is not None:
                    row.sent()
            case Happened():
                child.cooling, child.told_at = message.cooling, anyio.current_time()
                child.down = {view.model: view for view in message.down}
                self._listener.happened(message)
            case Ready():
                child.frames = frames
                self.endpoint = message.endpoint or ""
                frames.send(Pause(self._paused))
                self._notify()
            case Broke():
                known = {"ledger": LedgerError}
                self._fail(known.get(message.kind, JobError)(message.message))
            case Seen():
                calls: list[CallSnapshot] = pickle.loads(message.calls)  # noqa: S301  our own process's
                records: list[Any] = [pickle.loads(one) for one in message.records]  # noqa: S301
                self._listener.seen(child.number, calls, records)

    def _leave(self, child: _Child) -> None:
        """The process is gone, and with it the calls that it made."""
        child.frames, child.alone, child.down = None, None, {}
        self._listener.seen(child.number, (), ())
        for row in list(child.rows.values()):
            row.over.set()

    async def _watch_pause(self) -> None:
        while True:
            await anyio.sleep(LOOK_EVERY)
            if self._listener.paused != self._paused:
                self._paused = self._listener.paused
                self._tell(Pause(self._paused))


def _started(fd: int) -> subprocess.Popen[bytes]:
    """Start a process at the other end of a socket."""
    return subprocess.Popen(  # noqa: S603  this interpreter, this package
        [sys.executable, "-P", "-m", "streamguard.jobs.worker", str(fd)],
        pass_fds=[fd],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        process_group=0,  # a terminal's signals are for the parent
    )


def _room(child: _Child) -> int:
    return child.share - len(child.rows)


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process whose socket is closed; kill it if that takes too long."""
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()

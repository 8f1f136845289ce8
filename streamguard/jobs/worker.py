"""A worker process of a job: makes the calls that its parent asks for. `python -m streamguard.jobs.worker FD`.

In charge of one end of a socket: a row in, what came of it out. It reads the policy as its parent did, writes no file
of the job, and ends with its parent. Signals are the parent's business: those of a terminal or a service manager,
which reach both, are ignored here.
"""

from __future__ import annotations

import json
import pickle
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final

import anyio
import anyio.abc
import msgspec

from streamguard.adapters.anthropic.environment import has_uvloop, make_client
from streamguard.adapters.anthropic.source import messages
from streamguard.budgets.ledger import LedgerError
from streamguard.budgets.reservation import Accounts
from streamguard.engine.clock import backend_clock
from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry import AttemptAborted, AttemptStarted, CallCompleted, LimitsSeen, RetryScheduled
from streamguard.errors import JobError, StreamguardError
from streamguard.jobs.asking import Ended, LocalAsker
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.input.plan import Entry
from streamguard.jobs.opening import job_policy
from streamguard.jobs.store.results import About
from streamguard.jobs.workers.collecting import rare_collections
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
from streamguard.source import Source

REPORT_EVERY: Final = 0.2
"""Seconds between two reports of what happens inside of calls."""

ORPHANED: Final = 0.8
"""Seconds that calls have to end once the parent is gone: their budgets are settled."""


class Worker:
    """The calls of one process.

    :param frames: the socket.
    """

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._happened = Happened()
        self._was_down = False
        self._view = False
        self._records: list[bytes] = []
        self._asker: LocalAsker
        self._runtime: Runtime
        self._tasks: anyio.abc.TaskGroup
        self._orphaned = False

    async def run(self) -> None:
        """Serve until the parent is gone."""
        first = await self._frames.receive()
        if not first or not isinstance(first[0], Begin):
            return
        begin = first[0]
        try:
            policy, question = job_policy(pickle.loads(begin.spec))  # noqa: S301  the parent's own
            if question.digest != begin.question:
                raise JobError("template, schema or policy changed while the job began")
            client = make_client(begin.options["base_url"])
        except StreamguardError as error:
            self._frames.send(Broke("job", str(error)))
            await self._frames.flush()
            return
        bound = {name: begin.options[name] for name in ("max_event_bytes",) if begin.options[name] is not None}

        def source(params: Mapping[str, Any]) -> Source:
            return messages(client, **bound, **params)

        self._view = begin.view
        self._runtime = Runtime(accounts=Accounts(), job=begin.job, hooks=[self._hook])
        spec = pickle.loads(begin.spec)  # noqa: S301
        about = About(policy=spec.policy, partials=begin.options["partials"])
        self._asker = LocalAsker(source, policy, self._runtime, about, shared=True)
        try:
            async with client, anyio.create_task_group() as beside:
                beside.start_soon(self._frames.write)
                beside.start_soon(self._report)
                self._frames.send(Ready(str(client.base_url).rstrip("/")))
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    for message in first[1:]:
                        self._take(message)
                    await self._serve()
                beside.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._runtime.aclose(until=anyio.current_time() + ORPHANED)

    async def _serve(self) -> None:
        while found := await self._frames.receive():
            for message in found:
                self._take(message)
        self._orphaned = True
        self._asker.interrupt("the parent process is gone")
        self._tasks.cancel_scope.deadline = anyio.current_time() + ORPHANED

    def _take(self, message: Message) -> None:
        match message:
            case Ask():
                self._tasks.start_soon(self._ask, message)
            case Withdraw():
                self._asker.withdraw(message.by)
            case Interrupt(call=None):
                self._asker.interrupt(message.by)
            case Interrupt():
                if (call := self._runtime.calls.get(message.call or "")) is not None:
                    call.interrupt(message.by)
            case Pause():
                self._runtime.paused = message.by

    async def _ask(self, ask: Ask) -> None:
        row = None if ask.row is None else json.loads(ask.row)
        request = RowRequest(Entry(ask.key, 0, 0, 0, 0, ask.fingerprint), json.loads(ask.params), row=row)
        try:
            ended = await self._asker.ask(request, lambda: self._frames.send(Sent(ask.number)))
        except LedgerError as error:
            self._frames.send(Broke("ledger", str(error)))
        except StreamguardError as error:
            self._frames.send(Broke("job", str(error)))
        else:
            self._tell()
            self._frames.send(Answered(ask.number, _sendable(ended)))

    # What happens inside

    def _hook(self, record: Any) -> None:
        happened = self._happened
        if isinstance(record, AttemptStarted):
            happened.attempts += 1
        elif isinstance(record, RetryScheduled):
            reason = record.decision.reason
            happened.retries[reason] = happened.retries.get(reason, 0) + 1
        elif isinstance(record, LimitsSeen):
            happened.limits.append(pickle.dumps(record))
        elif isinstance(record, AttemptAborted):
            self._first_token(record.attempt.times.first_token)
        elif isinstance(record, CallCompleted):
            self._first_token(record.outcome.attempts[-1].times.first_token)
        if self._view:
            self._records.append(pickle.dumps(record))

    def _first_token(self, seconds: float | None) -> None:
        if seconds is not None:
            self._happened.first_tokens.append(seconds)

    def _tell(self) -> None:
        happened = self._happened
        now = backend_clock()()
        happened.down = list(self._asker.down(now).values())
        news = happened.attempts or happened.retries or happened.first_tokens or happened.limits
        if news or happened.down or self._was_down:
            happened.cooling, self._was_down = self._runtime.cooling(now), bool(happened.down)
            self._frames.send(happened)
            self._happened = Happened(retries={}, first_tokens=[], limits=[])

    async def _report(self) -> None:
        while True:
            await anyio.sleep(REPORT_EVERY)
            self._tell()
            if self._view:
                records, self._records = self._records, []
                calls = [call.snapshot() for call in self._runtime.calls.values()]
                self._frames.send(Seen(pickle.dumps(calls), records))


def _sendable(ended: Ended) -> Ended:
    """The same without lone surrogates, which no message can carry; the result line has them escaped."""
    texts = {name: getattr(ended, name).encode("utf-8", "replace").decode() for name in ("message", "words")}
    return msgspec.structs.replace(ended, **texts)


async def _main(sock: socket.socket) -> None:
    async with await anyio.abc.UNIXSocketStream.from_socket(sock) as stream:
        await Worker(Frames(stream)).run()


def main(fd: int) -> None:
    """Serve on an inherited socket."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    with rare_collections():
        anyio.run(_main, sock, backend_options={"use_uvloop": has_uvloop()})


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The ways into the package that the matrix tries, each one small function."""

from __future__ import annotations

import anyio

from streamguard import doors
from streamguard.events import Event
from streamguard.outcome import Outcome
from streamguard.policy import Deliver
from streamguard.runtime import Runtime
from streamguard.testing.scripted import ScriptedSource
from tests.matrix.cells import JITTER, Question, Seen, Surface, Tasks, asked, balances


def _source(question: Question) -> ScriptedSource:
    return ScriptedSource(
        question.script,
        request=dict(question.request),
        chunk=question.chunk,
        max_event_bytes=question.event_bytes,
    )


async def _in_memory(question: Question, deliver: Deliver | None) -> Seen:
    """`run`, or `stream` in one of its modes, on a source in memory."""
    source, tasks, told = _source(question), Tasks(), []
    runtime = Runtime(jitter=lambda: JITTER, hooks=[told.append])
    events: list[Event] = []

    async def ask() -> Outcome | None:
        if deliver is None:
            return await doors.run(source, policy=question.policy, runtime=runtime)
        async with doors.stream(source, policy=question.policy, deliver=deliver, runtime=runtime) as stream:
            async for event in stream:
                events.append(event)
        return stream.outcome

    began = anyio.current_time()
    outcome, error = await asked(ask)
    seconds = anyio.current_time() - began
    leaks = tasks.leaks()
    return Seen(outcome, error, events, source.exchanges, seconds, leaks, runtime, told, await balances(runtime))


def _memory(name: str, deliver: Deliver | None) -> Surface:
    async def ask(question: Question) -> Seen:
        return await _in_memory(question, deliver)

    door = "run" if deliver is None else "stream"
    return Surface(name, ask, door, deliver, fits=lambda fault, config: not fault.sockets)


RUN = _memory("run", None)
COMMITTED = _memory("stream committed", "committed")
LIVE = _memory("stream live", "live")
RESTARTING = _memory("stream restarting", "restarting")
IN_MEMORY = (RUN, COMMITTED, LIVE, RESTARTING)

"""Doors at which two requests of a call race: one of them, or each, meets the fault.

The first request is late, so that a second one is sent beside it. Which of the two the fault meets, and which is
faster, differs from surface to surface.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from streamguard import api
from streamguard.engine.runtime import Runtime
from streamguard.events import Event
from streamguard.outcome import Outcome
from streamguard.pace.hedge import HedgeSpec
from streamguard.policy.model import Deliver, Policy
from streamguard.source import Attempt, SourceFailed
from streamguard.testing.scripted import ScriptedSource
from tests.matrix.cells import JITTER, Question, Seen, Surface, Tasks, asked, balances
from tests.matrix.configs import AGAIN
from tests.matrix.surfaces import no_sockets

HEDGE = HedgeSpec()
USUAL, LATE = 0.02, 0.2
"""Seconds to a first token, and of a late one: a second request is sent after three times the first."""


class LateSource:
    """A scripted source whose attempts say nothing for so long, whatever they say then.

    :param seconds: by the number of the attempt; none for those that come later.
    """

    def __init__(self, source: ScriptedSource, seconds: Sequence[float]) -> None:
        self._source = source
        self._seconds = seconds
        self.request = source.request
        self.sees_bytes = source.sees_bytes

    @asynccontextmanager
    async def open(self, attempt: Attempt) -> AsyncIterator[Any]:
        late = self._seconds[attempt.number - 1] if attempt.number <= len(self._seconds) else 0.0
        try:
            stream = await self._source.open(attempt).__aenter__()
        except SourceFailed:
            await anyio.sleep(late)
            raise
        try:
            yield _Late(stream, late)
        finally:
            await stream.__aexit__(None, None, None)


class _Late:
    def __init__(self, stream: Any, late: float) -> None:
        self._stream = stream
        self._late = late

    @property
    def limits(self) -> Any:
        return self._stream.limits

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        return self

    async def __anext__(self) -> Sequence[Event]:
        late, self._late = self._late, 0.0
        if late:
            await anyio.sleep(late)
        return await anext(self._stream)

    def message(self) -> Any:
        return self._stream.message()


def hedged(policy: Policy) -> Policy:
    """A policy under which a second request may be sent: `live` is refused beside it."""
    retry = policy.retry if policy.retry.attempts > 1 else AGAIN
    return policy.model_copy(update={"hedge": HEDGE, "retry": retry, "deliver": None})


def _race(name: str, seconds: Sequence[float], deliver: Deliver | None, *, second: bool = False) -> Surface:
    async def ask(question: Question) -> Seen:
        inner = ScriptedSource(
            question.script,
            request=dict(question.request),
            chunk=question.chunk,
            max_event_bytes=question.event_bytes,
        )
        source, tasks = LateSource(inner, seconds), Tasks()
        told: list[Any] = []
        runtime = Runtime(jitter=lambda: JITTER, hooks=[told.append])
        hedges = runtime.hedges(HEDGE, question.request["model"])
        assert hedges is not None
        for _ in range(200):
            hedges.began()
            hedges.first_token(USUAL)
        events: list[Event] = []

        async def call() -> Outcome | None:
            if deliver is None:
                return await api.run(source, policy=question.policy, runtime=runtime)
            async with api.stream(source, policy=question.policy, deliver=deliver, runtime=runtime) as stream:
                async for event in stream:
                    events.append(event)
            return stream.outcome

        began = anyio.current_time()
        outcome, error = await asked(call)
        took = anyio.current_time() - began
        leaks = tasks.leaks()
        leaks += [f"I12: {view.inflight} turns are left" for view in runtime.paces(0.0).values() if view.inflight]
        return Seen(outcome, error, events, inner.exchanges, took, leaks, runtime, told, await balances(runtime))

    door = "run" if deliver is None else "stream"
    return Surface(name, ask, door, deliver, adapt=hedged, fits=no_sockets, races=True, swaps=second)


RACES = (
    _race("race, the second is faster", (LATE, 0.0), None),
    _race("race, the first is faster", (LATE, 2 * LATE), "restarting"),
    _race("race, the second meets the fault", (LATE, 0.0), "committed", second=True),
)
"""Not among the doors of the matrix: their question is another one."""

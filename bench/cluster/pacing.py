"""Pace in a cluster: the real `SharedPacer` of each process, a store that all of them step, a provider with limits.

In charge of the way to the store: the pacer asks in a thread that may be left behind, and that thread is simulated. It
may be slow, find nobody, or have its answer lost; and what hangs in the server is done when that wakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import anyio
import anyio.to_thread

from bench.cluster.world import Node, World
from streamguard.engine.pacing.shared import SharedPacer
from streamguard.pace.limits import Limits
from streamguard.pace.sharing import Step
from streamguard.pace.spec import PaceSpec
from streamguard.pace.stores.base import PaceLost
from streamguard.testing.rate_limits import RateLimits

TIMEOUT = 0.5
"""Seconds after which a client does not wait for the pace's store any more."""

KEY = "account/pool"


class Limited:
    """The provider's side: limits that it states, or room for some calls at a time.

    :param per_minute: requests; `None` for a provider that states nothing.
    :param room: calls that it serves at once; more are refused.
    """

    def __init__(self, per_minute: int | None, room: int) -> None:
        self._limits = None if per_minute is None else RateLimits({"requests": per_minute}, holds=10.0)
        self._room = room
        self.per_minute = per_minute
        self.busy = 0

    @property
    def states_limits(self) -> bool:
        """Whether answers state limits."""
        return self._limits is not None

    def admit(self) -> tuple[bool, Limits | None]:
        """Whether a request is served, and what its answer states."""
        if self._limits is None:
            return self.busy < self._room, None
        found = self._limits.admit(anyio.current_time(), input_tokens=0, max_tokens=0)
        return found.retry_after is None, found.limits


class SimClock:
    """Stands where a call has its clock."""

    def now(self) -> float:
        """Virtual seconds."""
        return anyio.current_time()


class SimPaceStore:
    """The store as one process has it open."""

    blocks = True

    def __init__(self, node: Node) -> None:
        self._node = node
        self.way = ""
        """Of the step that comes: `lost` before it was done, `unheard` after it; empty for neither."""

    def step(self, key: str, knobs: Any, **said: Any) -> Step:
        """See `PaceStore.step`."""
        world = self._node.world
        if self.way == "lost":
            raise PaceLost("no answer")
        step = world.paces.step(key, knobs, **said)
        state = world.paces.states[key]
        out = state.pace.inflight, sum(program.inflight for program in state.programs.values())
        world.note("paced", self._node.name, value=(*out, state.programs[self._node.name].inflight))
        if self.way == "unheard":
            raise PaceLost("no answer")
        return step

    def close(self) -> None:
        """Nothing to close."""


class _Thread:
    """The one thread of a pacer that asks the store."""

    def __init__(self, node: Node, store: SimPaceStore) -> None:
        self.node, self.store = node, store
        self.free = anyio.Semaphore(1)


class SimPacer(SharedPacer):
    """The pacer of one process."""

    def __init__(self, node: Node) -> None:
        store = SimPaceStore(node)
        super().__init__(store, KEY, PaceSpec(first=4))
        self._program = node.name
        self._thread = _Thread(node, store)

    @property
    def _one(self) -> Any:
        return self._thread


async def in_thread(errand: Any, *, limiter: _Thread, abandon_on_cancel: bool) -> Any:
    """Stands in for `anyio.to_thread.run_sync`: done beside, whoever waits."""
    assert abandon_on_cancel
    await limiter.free.acquire()
    done, found = anyio.Event(), []
    # A real thread has begun now, and blocks in the store; here the way to the store comes before the errand.
    cells = dict(zip(errand.__code__.co_freevars, errand.__closure__ or (), strict=True))
    cells["started"].cell_contents.set()

    async def run() -> None:
        node, world, dice = limiter.node, limiter.node.world, limiter.node.world.dice
        try:
            await node.awake()
            await anyio.sleep(dice.choice((0.0, 0.001, 0.01)))
            limiter.store.way = ""
            until, how = node.cut.get("pace", (0.0, ""))
            wait = world.hangs["pace"] - anyio.current_time()
            if until > anyio.current_time():
                await anyio.sleep(dice.uniform(0.0, TIMEOUT))
                limiter.store.way = "unheard" if how == "arrives" else "lost"
            elif wait > TIMEOUT:
                await anyio.sleep(TIMEOUT)
                limiter.store.way = dice.choice(("unheard", "lost"))
            elif wait > 0:
                await anyio.sleep(wait)
            await node.awake()
            if not node.alive:
                limiter.store.way = "lost"
            try:
                found.append(errand())
            except PaceLost as error:
                found.append(error)
            await anyio.sleep(dice.choice((0.0, 0.001, 0.01)))
        finally:
            limiter.free.release()
            done.set()

    limiter.node.world.tasks.start_soon(run)
    await done.wait()
    if not found:
        raise PaceLost("gone")
    if isinstance(found[0], PaceLost):
        raise found[0]
    return found[0]


@contextmanager
def simulated_threads() -> Iterator[None]:
    """While the block runs, the pacers' threads are simulated. Nothing else in a history uses any."""
    with patch.object(anyio.to_thread, "run_sync", in_thread):
        yield


def provider_of(world: World) -> Limited:
    """Draw the provider of a history."""
    return Limited(world.dice.choice((None, 30, 60, 240)), world.dice.randrange(2, 7))

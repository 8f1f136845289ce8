"""A shared pace: every store does what the model does, programs that die are forgotten, and nobody waits for a store."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.shared import LATE, LEFT_ALONE, MISSES, SharedPacer
from streamguard.pace.limits import Limit, Limits
from streamguard.pace.reports import Began, Late, Refused, Report, Returned, Seen, Settled
from streamguard.pace.sharing import DEAD_AFTER, LOOK, SEEN_LATELY, Ask, SharedState, Step, take_step
from streamguard.pace.spec import PaceSpec
from streamguard.pace.state import Cost
from streamguard.pace.stores import open_pace_store
from streamguard.pace.stores.base import PaceError, PaceLost, PaceStore
from streamguard.pace.stores.memory import MemoryPaceStore
from streamguard.pace.stores.sqlite import SqlitePaceStore
from streamguard.testing.clock import BACKENDS, run_virtual
from tests.redis_servers import serving

KNOBS = PaceSpec(ramp=0).knobs(shared=True)
ASK = Ask(input_tokens=100.0, max_tokens=50.0, patient=True)
LIMITS = Limits(requests=Limit(600, 600))
_names = itertools.count()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real server, which may forget."""
    with serving(tmp_path_factory.mktemp("paces"), {}) as server:
        yield server


def make_store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, clock: Callable[[], float]
) -> Callable[[], PaceStore]:
    """What opens one store again and again, as programs do."""
    if kind == "memory":
        memory = MemoryPaceStore(clock)
        return lambda: memory
    if kind == "sqlite":
        path = tmp_path / f"{next(_names)}.db"
        return lambda: SqlitePaceStore(path, clock=clock)
    server = request.getfixturevalue("redis_server")
    from redis import Redis

    from streamguard.pace.stores.redis import RedisPaceStore

    name = f"test-{next(_names)}"
    return lambda: RedisPaceStore(Redis(port=server.port), name, clock=clock)


STEPS = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.integers(0, 2),
        st.sampled_from(["seen", "began", "settled", "refused", "late", "returned", "nothing"]),
        st.booleans(),
        st.floats(0, 900),
    ),
    max_size=40,
)


def reports(what: str, now: float, cost: Cost, amount: float) -> list[Report]:
    """What a program reports."""
    made: dict[str, list[Report]] = {
        "seen": [Seen(at=now, limits=Limits(requests=Limit(600, int(amount / 2)), input_tokens=Limit(9000, 4000)))],
        "began": [Began(at=now, sent=now - 1, seconds=1.0, cost=cost, guessed=100, counted=amount)],
        "settled": [Settled(at=now, cost=cost, output=amount, seconds=amount / 100)],
        "refused": [Refused(at=now, sent=now - 0.2, cost=cost, limited=amount > 400)],
        "late": [Late(at=now, sent=now - 60, cost=cost)],
        "returned": [Returned(at=now, cost=cost)],
        "nothing": [],
    }
    return made[what]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_store_does_what_the_model_does(kind: str, tmp_path, request, steps) -> None:
    """The same script on a store that three programs opened, and on the model: the same answers, to the last digit."""
    now = [1000.0]
    again = make_store(kind, tmp_path, request, lambda: now[0])
    programs = [again() for _ in range(3)]
    model, cost = SharedState(), (1.0, 100.0, 12.5, 112.5)
    for passed, number, what, asks, amount in steps:
        now[0] += passed
        told: dict[str, Any] = {
            "program": str(number),
            "heard_at": now[0] - 500,
            "reports": reports(what, now[0] - 500.5, cost, amount),
            "ask": ASK if asks else None,
        }
        found = programs[number].step("k", KNOBS, **told)
        expected = take_step(model, KNOBS, now[0], **told)
        assert found == expected
    for store in programs:
        store.close()


def step(state: SharedState, now: float, program: str, *told: Report, ask: Ask | None = ASK) -> Step:
    """One step on the model, by a program whose clock is the store's."""
    return take_step(state, KNOBS, now, program=program, heard_at=now, reports=told, ask=ask)


def test_a_program_that_dies_leaves_nothing_in_flight() -> None:
    """Its turns are used up; what it had under way is forgotten with it."""
    state = SharedState()
    for _ in range(3):
        step(state, 0.0, "dead")
    step(state, 0.0, "alive")
    assert state.pace.inflight == 4
    step(state, DEAD_AFTER + 1, "alive", ask=None)
    assert state.pace.inflight == 1
    assert step(state, 100.0, "alive", ask=None).programs == 1


def test_a_program_that_is_forgotten_leaves_nothing_in_flight() -> None:
    """Also where nobody looked between its death and its being forgotten: its places would be taken for ever."""
    state = SharedState()
    for _ in range(3):
        step(state, 0.0, "a")
    assert step(state, 2 * SEEN_LATELY, "b").programs == 1
    assert (state.pace.inflight, list(state.programs)) == (1.0, ["b"])


def test_a_program_that_slept_ends_nobody_elses_turns() -> None:
    """What it had out was given up meanwhile, so its late reports take nothing from what others have out."""
    state = SharedState()
    step(state, 0.0, "a")
    for _ in range(2):
        step(state, DEAD_AFTER + 1, "b")
    assert state.pace.inflight == 2.0
    late = Settled(at=DEAD_AFTER + 2, cost=(1.0, 0.0, 0.0, 0.0), output=5, seconds=1)
    step(state, DEAD_AFTER + 2, "a", late, ask=None)
    assert {name: one.inflight for name, one in state.programs.items()} == {"a": 0.0, "b": 2.0}
    assert state.pace.inflight == 2.0


def test_a_turn_whose_answer_was_lost_is_out_no_longer_than_to_the_next_question() -> None:
    """A program that lives says what it has out: else a job with one place would wait for itself, for ever."""
    state = SharedState()
    step(state, 0.0, "a")
    state.pace.places = 1.0
    lost = step(state, 0.0, "b").turn
    assert lost is not None
    assert not lost.given
    again = step(state, 1.0, "a", ask=msgspec.structs.replace(ASK, out=0.0)).turn
    assert again is not None
    assert again.given
    assert (state.pace.inflight, state.programs["a"].inflight) == (1.0, 1.0)


def test_places_are_shared() -> None:
    """Eight at a time are eight over all programs; who waits looks again soon."""
    state = SharedState()
    turns = [step(state, 0.0, str(i)).turn for i in range(9)]
    assert [turn.given for turn in turns if turn] == [True] * 8 + [False]
    assert turns[-1] is not None
    assert turns[-1].wait == LOOK


def test_a_report_of_before_counts_when_it_happened() -> None:
    """A refusal of a request that was sent before the last cut says nothing new, however late it is told."""
    state = SharedState()
    step(state, 0.0, "a", Seen(at=0.0, limits=LIMITS), ask=None)
    step(state, 10.0, "a", Refused(at=10.0, sent=9.5, cost=(1.0, 0.0, 0.0, 0.0), limited=True), ask=None)
    own = state.pace.own
    late = Refused(at=-90.0, sent=-90.5, cost=(1.0, 0.0, 0.0, 0.0), limited=True)
    take_step(state, KNOBS, 10.0, program="b", heard_at=-90.0, reports=[late], ask=None)
    assert state.pace.own == own


class Flaky:
    """A store that does as told."""

    blocks = False

    def __init__(self, inner: PaceStore) -> None:
        self.inner, self.away, self.steps = inner, False, 0

    def step(self, *args: Any, **options: Any) -> Step:
        """One step, or none."""
        self.steps += 1
        if self.away:
            raise PaceLost("away")
        return self.inner.step(*args, **options)

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_that_is_away_holds_nobody_up(backend) -> None:
    """Turns go on at one's own share; after three misses the store is left alone for a while, then asked again."""

    async def main() -> tuple[int, float, str | None, str | None]:
        clock = CallClock(None)
        store = Flaky(MemoryPaceStore(anyio.current_time))
        pacer = SharedPacer(store, "k", PaceSpec(ramp=0))
        pacer.report(Seen(at=clock.now(), limits=LIMITS))
        for _ in range(3):
            turn = await pacer.turn(clock, ASK)
            pacer.report(Settled(at=clock.now(), cost=turn.cost, output=10, seconds=1), alone=turn.alone)
        store.away, asked, began = True, store.steps, clock.now()
        for _ in range(40):
            turn = await pacer.turn(clock, ASK)
            assert turn.alone
            pacer.report(Settled(at=clock.now(), cost=turn.cost, output=10, seconds=1), alone=True)
        took, tries, away = clock.now() - began, store.steps - asked, pacer.view(clock.now()).store
        assert tries == MISSES
        store.away = False
        await anyio.sleep(LEFT_ALONE)
        turn = await pacer.turn(clock, ASK)
        return int(turn.alone), took, away, pacer.view(clock.now()).store

    alone, took, away, back = run_virtual(main, backend=backend)
    assert (alone, away, back) == (0, "away", "ok")
    assert took == pytest.approx(40 / 13, rel=0.2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_that_hangs_delays_no_attempt(backend) -> None:
    """An attempt waits `LATE` at the most, and a turn that comes afterwards is given back."""
    released, finished = threading.Event(), threading.Event()

    class Hanging(Flaky):
        blocks = True

        def step(self, *args: Any, **options: Any) -> Step:
            if self.away:
                assert released.wait(10)
            try:
                return self.inner.step(*args, **options)
            finally:
                finished.set()

    async def main() -> tuple[bool, float, float]:
        clock = CallClock(None)
        inner = MemoryPaceStore(time.monotonic)
        store = Hanging(inner)
        pacer = SharedPacer(store, "k", PaceSpec(ramp=0))
        store.away, began = True, time.monotonic()
        turn = await pacer.turn(clock, ASK)
        waited = time.monotonic() - began
        store.away = False
        released.set()
        await anyio.to_thread.run_sync(finished.wait)
        await pacer.flush(clock.now())
        return turn.alone, waited, inner.states["k"].pace.inflight

    alone, waited, inflight = anyio.run(main, backend=backend)
    assert (alone, inflight) == (True, 0)
    assert waited < 10 * LATE


def test_a_store_that_was_emptied_is_no_error(tmp_path: Path) -> None:
    """State that is gone, or that nobody of this version wrote, begins again."""
    store = SqlitePaceStore(tmp_path / "p.db", clock=lambda: 0.0)
    told: dict[str, Any] = {"program": "a", "heard_at": 0.0, "ask": ASK}
    store.step("k", KNOBS, reports=[Seen(at=0.0, limits=LIMITS)], **told)
    store._db.execute("UPDATE paces SET state = x'00'")
    assert store.step("k", KNOBS, reports=[], **told).state.rates == [0.0] * 4
    store.close()


@pytest.mark.parametrize(
    ("address", "said"),
    [("memory:", "unknown kind of store 'memory'"), ("mongo://x", "unknown kind"), ("redis://h:x/", "no address")],
)
def test_an_address_that_cannot_be_used_is_a_typed_error(address: str, said: str) -> None:
    """Before anything is sent."""
    with pytest.raises(PaceError, match=said):
        open_pace_store(address)


def test_somebody_elses_file_is_left_alone(tmp_path: Path) -> None:
    """A file that is no store of paces is not written to."""
    (tmp_path / "x.db").write_bytes(b"something else, long enough to be looked at" * 40)
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(PaceError, match=r"x\.db"):
        open_pace_store(f"sqlite:{tmp_path / 'x.db'}")
    assert (tmp_path / "x.db").read_bytes() == before

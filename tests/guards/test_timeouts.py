"""The clocks: own signals, waiting time against the consumer's, and the deadline as the moment of the trip."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Ping, Started, Stopped
from streamguard.guards.base import NEVER, AttemptContext, Watch
from streamguard.guards.timeouts import MinRate, Timeouts, TimeoutsWatch
from streamguard.pricing.tokens import TokenScale
from streamguard.request import Request
from streamguard.verdict import Trip

OFF: dict[str, Any] = {"connect": None, "first_token": None, "progress": None, "progress_thinking": None, "alive": None}
TEXT = BlockStarted(0, "text")
THINKING = BlockStarted(0, "thinking")
TOOL = BlockStarted(1, "server_tool")


def piece(index: int = 0) -> Delta:
    return Delta(index, "text", "abcd")


def only(**knobs: Any) -> Timeouts:
    return Timeouts(**{**OFF, **knobs})


class Driver:
    """Time as the engine tells it: every read is a wait, bytes, and the events they completed."""

    def __init__(self, spec: Timeouts, *, start: float = 100.0, **ctx: Any) -> None:
        self.now = start
        self.watch: TimeoutsWatch = spec.watch(AttemptContext(**ctx), start)
        self.watch.waiting(start)

    def read(self, wait: float, *events: Event) -> Trip | None:
        """Wait, then take what came; the trip if the deadline passed before."""
        self.watch.waiting(self.now)
        if self.now + wait >= self.watch.deadline:
            return self.expired()
        self.now += wait
        self.watch.heard(self.now)
        for event in events:
            assert self.watch.feed(event, self.now) is None
        return None

    def consume(self, seconds: float) -> None:
        self.now += seconds

    def expired(self) -> Trip:
        """The trip at the deadline, and none a hair before it."""
        deadline = self.watch.deadline
        assert self.watch.expire(math.nextafter(deadline, -math.inf)) is None
        trip = self.watch.expire(deadline)
        assert trip is not None
        return trip

    def deadline(self) -> float:
        """The deadline of a wait that begins now, from now."""
        self.watch.waiting(self.now)
        return self.watch.deadline - self.now


def test_a_watch_is_a_watch() -> None:
    """The watch fulfils the protocol of the panel."""
    assert isinstance(Timeouts().watch(AttemptContext(), 0.0), Watch)


@pytest.mark.parametrize(
    ("knobs", "reads", "reason", "knob", "limit", "message"),
    [
        (
            {"connect": 10},
            [],
            "timeout.connect",
            "connect",
            10.0,
            "no response head for 10.0 s (timeouts.connect is 10 s)",
        ),
        (
            {"first_token": 60},
            [(5, Started()), (20, Ping())],
            "timeout.first_token",
            "first_token",
            60.0,
            "no output for 60.0 s (bytes such as pings kept coming; timeouts.first_token is 60 s)",
        ),
        (
            {"progress": 60},
            [(1, TEXT, piece()), (15, Ping()), (15, Ping()), (15, Ping())],
            "timeout.progress",
            "progress",
            60.0,
            "no output for 60.0 s (bytes such as pings kept coming; timeouts.progress is 60 s)",
        ),
        (
            {"first_token": 60},
            [(5, Started())],
            "timeout.first_token",
            "first_token",
            60.0,
            "no output for 60.0 s (timeouts.first_token is 60 s)",
        ),
        (
            {"progress": 60},
            [(1, TEXT, piece())],
            "timeout.progress",
            "progress",
            60.0,
            "no output for 60.0 s (timeouts.progress is 60 s)",
        ),
        (
            {"progress": 60, "progress_thinking": 300},
            [(1, THINKING)],
            "timeout.progress",
            "progress_thinking",
            300.0,
            "no output for 300.0 s of thinking or of a server tool (timeouts.progress_thinking is 300 s)",
        ),
        (
            {"alive": 30},
            [(1, Started()), (29, Ping())],
            "timeout.alive",
            "alive",
            30.0,
            "no byte for 30.0 s, not even a keep-alive (timeouts.alive is 30 s)",
        ),
        (
            {"attempt": 90},
            [(40, TEXT, piece()), (40, piece())],
            "timeout.attempt",
            "attempt",
            90.0,
            "the attempt took 90.0 s (timeouts.attempt is 90 s)",
        ),
    ],
)
def test_each_clock_trips_at_its_limit(
    knobs: dict[str, Any], reads: list[Any], reason: str, knob: str, limit: float, message: str
) -> None:
    """Each clock trips exactly at its limit after its own last signal, and names its knob."""
    driver = Driver(only(**knobs))
    for wait, *events in reads:
        assert driver.read(wait, *events) is None
    trip = driver.read(1000)
    assert trip == Trip(
        reason=reason,
        message=message,
        knob=f"timeouts.{knob}",
        limit=limit,
        observed=pytest.approx(limit),
        at=driver.watch.deadline,
        guard="timeouts",
    )


@pytest.mark.parametrize(
    ("events", "due"),
    [
        ((Started(), TEXT, Ping(), Delta(0, "text", "")), 50.0),
        ((TEXT, piece()), 20.0),
        ((BlockStarted(0, "tool_input"), Delta(0, "tool_input", "{")), 200.0),
        ((BlockStarted(0, "tool_input"),), 200.0),
        ((THINKING,), 200.0),
        ((BlockStarted(0, "server_tool"),), 200.0),
    ],
)
def test_what_counts_as_first_output(events: tuple[Event, ...], due: float) -> None:
    """Headers, pings, opened text and empty deltas are no output; an opened thinking, server-tool or tool block is."""
    driver = Driver(only(first_token=60, progress=20, progress_thinking=200))
    assert driver.read(10, *events) is None
    assert driver.deadline() == pytest.approx(due)


@pytest.mark.parametrize(
    ("events", "due"),
    [
        ((THINKING, BlockStopped(0)), 20.0),
        ((THINKING, BlockStopped(0), TEXT), 20.0),
        ((THINKING, BlockStarted(1, "text"), piece(1)), 200.0),
        ((TEXT, piece(), BlockStopped(0), TOOL, BlockStopped(1)), 200.0),
        ((TOOL, BlockStopped(1), BlockStarted(2, "other")), 20.0),
        ((TOOL, BlockStarted(2, "server_tool"), BlockStarted(3, "other")), 200.0),
        ((TOOL, BlockStarted(2, "server_tool"), BlockStarted(3, "other"), BlockStarted(4, "other")), 20.0),
        ((TOOL, BlockStarted(2, "server_tool"), BlockStarted(3, "text")), 20.0),
        ((TEXT, piece(), BlockStarted(1, "tool_input")), 200.0),
        ((TEXT, piece(), BlockStarted(1, "tool_input"), BlockStopped(1)), 20.0),
    ],
)
def test_how_long_silence_may_last(events: tuple[Event, ...], due: float) -> None:
    """The long allowance holds while thinking is open, or until every server tool has its result."""
    driver = Driver(only(progress=20, progress_thinking=200))
    assert driver.read(10, *events) is None
    assert driver.deadline() == pytest.approx(due)


@pytest.mark.parametrize(
    ("max_tokens", "eager", "progress_tool", "due"),
    [
        (1_000, False, 60.0, 85.0),
        (64_000, False, 60.0, 1660.0),
        (1_000, True, 60.0, 20.0),
        (1_000, False, 1.0, 26.0),
        (100, False, 0.1, 20.0),
    ],
)
def test_a_tools_input_may_be_silent_as_long_as_it_can_be(
    max_tokens: int, eager: bool, progress_tool: float, due: float
) -> None:
    """Its values come whole, so the request's `max_tokens` bounds the silence; an eager tool has the usual clock."""
    tool = {"name": "f", "input_schema": {}, "eager_input_streaming": eager}
    request = Request({"model": "m", "max_tokens": max_tokens, "messages": [], "tools": [tool]})
    spec = only(progress=20, progress_tool=progress_tool, progress_tool_per_1k_max_tokens=25.0)
    watch = spec.watch(AttemptContext(request=request), 0.0)
    watch.heard(10.0)
    watch.feed(BlockStarted(0, "tool_input", "tool_use", "f", "t"), 10.0)
    watch.feed(Delta(0, "tool_input", "{"), 10.0)
    watch.waiting(10.0)
    assert watch.deadline - 10.0 == pytest.approx(due)


def test_alive_begins_with_the_first_keep_alive() -> None:
    """Servers that never send one are silent for other reasons than a dead line."""
    driver = Driver(only(alive=20, progress=300, first_token=200))
    assert driver.read(10, Started(), TEXT, piece()) is None
    assert driver.deadline() == pytest.approx(300.0)
    assert driver.read(1, Ping()) is None
    assert driver.deadline() == pytest.approx(20.0)


def test_a_source_that_times_its_connection_leaves_the_head_to_first_token() -> None:
    """Gateways answer with the head when the first token is there."""
    spec = only(connect=5, first_token=60)
    assert spec.watch(AttemptContext(), 0.0).deadline == pytest.approx(5.0)
    assert spec.watch(AttemptContext(times_connection=True), 0.0).deadline == pytest.approx(60.0)


@pytest.mark.parametrize("ending", [(BlockStopped(0),), (BlockStopped(0), BlockStarted(1, "text"))])
def test_the_end_of_silent_thinking_starts_the_shorter_clock_anew(ending: tuple[Event, ...]) -> None:
    """What thinking was allowed does not count against the text after it."""
    driver = Driver(only(progress=20, progress_thinking=200))
    assert driver.read(1, THINKING) is None
    assert driver.read(190, *ending) is None
    assert driver.deadline() == pytest.approx(20.0)


def test_long_inputs_get_more_time_to_the_first_token() -> None:
    """`first_token` grows with the input where its size is known, and the message says by how much."""
    driver = Driver(only(first_token=60, first_token_per_1k_input=0.1), input_tokens=100_000)
    trip = driver.read(1000)
    assert trip is not None
    assert trip.limit == 70.0
    assert (
        trip.message == "no output for 70.0 s (timeouts.first_token is 70 s; 10.0 s of it for the length of the input)"
    )


def test_no_clock_runs_after_the_end() -> None:
    """The result is final at `Stopped`: nothing expires any more, not even the attempt."""
    driver = Driver(Timeouts(attempt=30, min_rate=MinRate(tokens_per_second=5)))
    assert driver.read(1, TEXT, piece(), BlockStopped(0), Stopped("end_turn")) is None
    driver.watch.waiting(driver.now)
    assert driver.watch.deadline == NEVER
    assert driver.watch.expire(1e9) is None


def test_alive_is_off_where_bytes_cannot_be_seen() -> None:
    """A source that hides pings cannot be judged by them."""
    driver = Driver(only(alive=30), sees_bytes=False)
    assert driver.read(1, TEXT, piece()) is None
    assert driver.deadline() == NEVER


def test_a_slow_consumer_runs_the_attempt_alone() -> None:
    """While the consumer has its turn only the attempt's own clock has a deadline."""
    driver = Driver(Timeouts(attempt=500))
    assert driver.read(1, TEXT, piece()) is None
    driver.consume(400)
    assert driver.watch.deadline == 600.0
    assert driver.watch.expire(driver.now) is None
    assert driver.read(50, piece()) is None
    assert driver.watch.expire(600.0) is not None


def test_the_first_in_the_table_speaks_when_two_run_out_at_once() -> None:
    """Ties go in the order of the table."""
    trip = Driver(only(connect=10, first_token=10, attempt=10)).read(50)
    assert trip is not None
    assert trip.knob == "timeouts.connect"


def test_the_earliest_clock_speaks_when_the_timer_is_late() -> None:
    """A timer that comes late names the clock that ran out first."""
    watch = only(connect=10, first_token=5).watch(AttemptContext(), 0.0)
    trip = watch.expire(60.0)
    assert trip is not None
    assert (trip.knob, trip.observed) == ("timeouts.first_token", 60.0)


def test_a_second_wait_without_bytes_changes_nothing() -> None:
    """Saying twice that we wait starts no clock anew."""
    driver = Driver(only(progress=20))
    assert driver.read(1, TEXT, piece()) is None
    driver.watch.waiting(driver.now)
    before = driver.watch.deadline
    driver.watch.waiting(driver.now + 5)
    assert driver.watch.deadline == pytest.approx(before)


# -- min_rate ----------------------------------------------------------------------------------------------------------

RATE = only(min_rate=MinRate(tokens_per_second=1.0, window=10.0))
ONE = TokenScale(low=1.0, mid=1.0, high=1.0)  # "abcd" weighs one


def test_a_drip_trips_the_rate() -> None:
    """One token every three seconds defeats `progress`, and trips `min_rate` after its first window."""
    driver = Driver(RATE, scale=ONE)
    assert driver.read(5, TEXT, piece()) is None
    for _ in range(3):
        assert driver.read(3, piece()) is None
    trip = driver.read(3, piece())
    assert trip == Trip(
        reason="timeout.min_rate",
        message="at most 0.3 tokens per second, estimated, over the last 10 s"
        " (timeouts.min_rate.tokens_per_second is 1)",
        knob="timeouts.min_rate",
        limit=1.0,
        observed=pytest.approx(0.3),
        at=115.0,
        estimated=True,
        guard="timeouts",
    )


def test_a_stall_after_good_speed_trips_when_the_window_has_too_little() -> None:
    """The deadline is when the oldest read that is needed leaves the window."""
    driver = Driver(RATE, scale=ONE)
    assert driver.read(1, TEXT, piece()) is None
    for _ in range(40):
        assert driver.read(0.5, piece()) is None
    # Ten tokens are needed, the last ten came in the last 4.5 seconds.
    assert driver.deadline() == pytest.approx(5.5)


@pytest.mark.parametrize("slow", [THINKING, BlockStarted(0, "server_tool")])
def test_the_rate_rests_while_nothing_can_be_seen(slow: BlockStarted) -> None:
    """Hidden thinking and server tools produce nothing visible, and that is well."""
    driver = Driver(RATE, scale=ONE)
    assert driver.read(1, slow) is None
    assert driver.deadline() == NEVER
    assert driver.read(100, BlockStopped(0), BlockStarted(1, "text"), piece(1)) is None
    assert driver.deadline() == pytest.approx(10.0)


# -- properties --------------------------------------------------------------------------------------------------------

EVENTS = st.sampled_from(
    [
        Ping(),
        Started(),
        TEXT,
        THINKING,
        TOOL,
        BlockStarted(2, "other"),
        BlockStopped(0),
        BlockStopped(1),
        piece(),
        Delta(0, "text", ""),
    ]
)
SECONDS = st.floats(0, 30, allow_nan=False)
LIMITS = st.none() | st.floats(0.5, 60, allow_nan=False)
SPECS = st.builds(
    Timeouts,
    connect=LIMITS,
    first_token=LIMITS,
    progress=LIMITS,
    progress_thinking=LIMITS,
    alive=LIMITS,
    attempt=LIMITS,
    min_rate=st.none() | st.builds(MinRate, tokens_per_second=st.floats(0.1, 3), window=st.floats(1, 20)),
)


@settings(max_examples=150, deadline=None)
@given(SPECS, st.floats(-1e6, 1e6), st.lists(st.tuples(SECONDS, SECONDS, st.lists(EVENTS, max_size=3)), max_size=12))
def test_the_deadline_is_the_moment_of_the_trip(spec: Timeouts, start: float, reads: list[Any]) -> None:
    """Whatever happens: never NaN, no trip before the deadline, and a trip at it."""
    driver = Driver(spec, start=start)
    for wait, consumed, events in reads:
        driver.watch.waiting(driver.now)
        deadline = driver.watch.deadline
        assert not math.isnan(deadline)
        if driver.now + wait >= deadline:
            trip = driver.expired()
            assert trip.observed >= trip.limit or trip.reason == "timeout.min_rate"
            return
        assert driver.watch.expire(driver.now + wait) is None
        assert driver.read(wait, *events) is None
        driver.consume(consumed)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 9.9), st.floats(0, 1e4)), min_size=1, max_size=40),
    st.sampled_from(["progress", "alive", "progress_thinking"]),
)
def test_no_clock_trips_while_its_own_signal_comes_in_time(reads: list[tuple[float, float]], knob: str) -> None:
    """A healthy stream may be as long, and its consumer as slow, as it likes."""
    driver = Driver(only(**{knob: 10}))
    signal = Ping() if knob == "alive" else piece()
    assert driver.read(0, THINKING if knob == "progress_thinking" else TEXT, piece()) is None
    for wait, consumed in reads:
        assert driver.read(wait, signal) is None
        driver.consume(consumed)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=60), st.floats(6, 50))
def test_pings_never_delay_progress(waits: list[float], limit: float) -> None:
    """However pings cut the wait up, the trip comes after the same waiting time."""
    driver = Driver(only(progress=limit))
    assert driver.read(0, TEXT, piece()) is None
    began = driver.now
    trip = None
    for wait in waits:
        trip = driver.read(wait, Ping())
        if trip is not None:
            break
    trip = trip or driver.read(1000)
    assert trip is not None
    assert driver.watch.deadline - began == pytest.approx(limit)


# -- the spec ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knob", ["connect", "first_token", "progress", "progress_thinking", "alive", "attempt", "total"]
)
@pytest.mark.parametrize("bad", [0, -1, math.inf, math.nan, True, "60"])
def test_bad_seconds_are_refused_by_name(knob: str, bad: Any) -> None:
    """A limit is a positive, finite number or null, and the message names the knob."""
    with pytest.raises(
        ValidationError, match=f"{knob} must be seconds, or null for no limit: a finite number, more than"
    ):
        Timeouts.model_validate({knob: bad})


def test_the_defaults() -> None:
    """The defaults are the design's."""
    assert Timeouts().model_dump() == {
        "connect": 10.0,
        "first_token": 60.0,
        "first_token_per_1k_input": 0.1,
        "progress": 60.0,
        "progress_thinking": 300.0,
        "progress_tool": 60.0,
        "progress_tool_per_1k_max_tokens": 25.0,
        "alive": 60.0,
        "attempt": None,
        "total": None,
        "min_rate": None,
        "close_grace": 2.0,
        "mode": None,
    }


def test_a_file_and_code_give_equal_hashable_specs() -> None:
    """Whole numbers are numbers, a nested mapping is a spec, and equal specs are one key."""
    read = Timeouts.model_validate(
        {"progress": 30, "min_rate": {"tokens_per_second": 2, "window": 5}, "close_grace": 0}
    )
    made = Timeouts(progress=30.0, min_rate=MinRate(tokens_per_second=2.0, window=5.0), close_grace=0.0)
    assert read == made
    assert len({read, made}) == 1
    assert made.name == "timeouts"

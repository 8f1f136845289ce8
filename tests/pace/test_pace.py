"""The pace as a pure machine: turns within the limits, nothing owed, and each mechanism by what it is for."""

from __future__ import annotations

import copy
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.adapters.anthropic.limits import limits_of
from streamguard.pace.limits import Limit, Limits
from streamguard.pace.pace import BACK, CUT, FAR, LEAST, QUIET, Pace
from streamguard.pace.spec import OwnLimits, PaceSpec
from streamguard.pace.state import INPUT, MARGIN, NOTHING, OUTPUT, STEEP, Cost, Knobs

WIDE = 10**9


def stated(requests: int = WIDE, input_tokens: int = WIDE, output_tokens: int = WIDE, left: float = 1.0) -> Limits:
    """Limits a minute, each with the same share left."""
    limits = {"requests": requests, "input_tokens": input_tokens, "output_tokens": output_tokens}
    return Limits(**{name: Limit(limit, math.floor(limit * left)) for name, limit in limits.items()})


def known(limits: Limits | None = None, **knobs: Any) -> Pace:
    """A pace that has known its limits since long ago, at 1000 s, with full buckets; no ramp."""
    pace = Pace(Knobs(**{"ramp": 0.0, **knobs}))
    pace.seen(0.0, limits or stated())
    pace._advance(1000.0)
    pace.state.seen_at = 1000.0
    return pace


def turns(pace: Pace, now: float, count: int, *, input_tokens: float = 0.0, max_tokens: float = 4.0) -> list[float]:
    """Ask for turns, one after the other, each when the one before came; the moments of those that came."""
    moments = []
    for _ in range(count):
        turn = pace.turn(now, input_tokens=input_tokens, max_tokens=max_tokens)
        while not turn.given:
            now += turn.wait
            turn = pace.turn(now, input_tokens=input_tokens, max_tokens=max_tokens)
        now += turn.wait
        moments.append(now)
    return moments


def rate(pace: Pace, now: float, name: int = 0) -> float:
    """Units a second at which a bucket fills."""
    return pace._rate(now, name)


# Steps of a random script: (seconds that pass, what happens, a choice, an amount).
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.001, 0.3, 2.0, 70.0]),
        st.sampled_from(["turn", "turn", "turn", "seen", "began", "settled", "refused", "late", "returned"]),
        st.integers(0, 10),
        st.floats(0, 5000),
    ),
    max_size=60,
)


def play(pace: Pace, steps: list[Any], *, stuck: bool = False) -> tuple[list[tuple[float, Cost]], list[Any]]:
    """Play a script; returns the turns that were given and what was used by those that ended."""
    now, open_turns, given_turns, used = 1000.0, [], [], []
    for passed, what, choice, amount in steps:
        now += 0.0 if stuck else passed
        if what == "turn":
            turn = pace.turn(now, input_tokens=amount, max_tokens=1 + amount)
            if turn.given:
                open_turns.append((turn.cost, amount))
                given_turns.append((now + turn.wait, turn.cost))
            continue
        if what == "seen":
            pace.seen(now, stated(600, 60_000, 60_000, left=choice / 10))
            continue
        if not open_turns:
            continue
        cost, guessed = open_turns[choice % len(open_turns)]
        if what == "began":
            continue
        open_turns.pop(choice % len(open_turns))
        if what == "settled":
            pace.began(now, sent=now - 1, seconds=1.0, cost=cost, guessed=guessed, counted=amount / 2)
            pace.settled(now, cost=cost, output=amount / 3, seconds=2.0)
            used.append((1.0, amount / 2, amount / 3))
        elif what == "refused":
            pace.refused(now, sent=now - 1, cost=cost, limited=choice % 2 == 0)
        elif what == "late":
            pace.settled(now, cost=cost, output=-1.0, seconds=60.0)
            pace.late(now, sent=now - 60)
            used.append((1.0, cost[INPUT], cost[OUTPUT]))
        else:
            pace.returned(now, cost=cost)
    for cost, _ in open_turns:
        pace.returned(now, cost=cost)
    return given_turns, used


@given(STEPS)
def test_the_pace_is_pure(steps: list[Any]) -> None:
    """The same calls with the same moments give the same state; no bucket is over-full; no number is no number."""
    one, two = known(stated(600, 60_000, 60_000)), known(stated(600, 60_000, 60_000))
    assert play(one, steps) == play(two, steps)
    assert one.state == two.state
    assert all(one.state.levels[i] <= one._depth(i) + 1e-9 for i in range(4))
    flat = [
        value
        for field in msgspec.structs.astuple(one.state)
        for value in (field if isinstance(field, list) else [field])
    ]
    assert all(math.isfinite(value) for value in flat)
    assert one.state.inflight == 0


@given(STEPS)
def test_nothing_is_owed_in_the_end(steps: list[Any]) -> None:
    """With a clock that stands still, what is missing in each bucket is exactly what was used: charged is settled plus
    given back."""
    pace = known(stated(600, 60_000, 60_000))
    pace.state.levels = [0.0] * 4
    _, used = play(pace, steps, stuck=True)
    spent = [sum(one[i] for one in used) for i in range(3)]
    assert pace.state.levels[:3] == pytest.approx([-units for units in spent], abs=1e-6)


@given(STEPS)
def test_a_clock_that_stands_still_or_goes_back_gives_no_turn_twice(steps: list[Any]) -> None:
    """Time that does not pass fills no bucket, and time that goes back changes none."""
    pace = known(stated(60, 60_000, 60_000))
    play(pace, steps)
    before = copy.deepcopy(pace.state)
    assert pace._advance(500.0) == before.at
    assert pace.state == before


@settings(max_examples=50)
@given(st.lists(st.floats(0, 3), min_size=5, max_size=200), st.floats(1, 4000))
def test_any_window_stays_within_the_limit(pauses: list[float], tokens: float) -> None:
    """In `w` seconds the turns cost at most `(w + burst)` seconds of the limit times the margin, and one request."""
    pace, now, came = known(stated(600, 60_000, 60_000)), 1000.0, []
    for pause in pauses:
        now += pause
        turn = pace.turn(now, input_tokens=tokens, max_tokens=4)
        if turn.given:
            came.append((now + turn.wait, turn.cost))
    for name, per_second in ((0, 10.0), (INPUT, 1000.0)):
        for first, (begin, _) in enumerate(came):
            spent = 0.0
            for moment, cost in came[first:]:
                spent += cost[name]
                most = (moment - begin + 1.0) * per_second * MARGIN + max(one[name] for _, one in came)
                assert spent <= most + 1e-6


TEXT = st.text(max_size=6) | st.integers(-(10**18), 10**18).map(str)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        f"anthropic-ratelimit-{name}-{word}": TEXT
        for name in ("requests", "input-tokens", "output-tokens", "tokens")
        for word in ("limit", "remaining", "reset")
    },
)


@given(st.lists(HEADERS, max_size=5))
def test_headers_change_nothing_but_their_own_limit(heads: list[dict[str, str]]) -> None:
    """Rubbish never raises, and a limit that no head states in full is as it was."""
    pace = known(stated(600, 60_000, 60_000))
    before = list(pace.state.rates)
    named = set()
    for headers in heads:
        limits = limits_of(headers)
        if limits is not None:
            named |= {name for name, _ in limits}
            pace.seen(1000.0, limits)
    for i, name in enumerate(("requests", "input_tokens", "output_tokens", "tokens")):
        assert name in named or pace.state.rates[i] == before[i]
    turn = pace.turn(1000.0, input_tokens=10, max_tokens=10)
    assert turn.wait >= 0


def test_the_rate_falls_with_what_is_used() -> None:
    """Over the limit by the margin while all is left, and e to the steepness lower when nothing is."""
    for left in (1.0, 0.93, 0.5, 0.0):
        pace = known(stated(600, left=left))
        assert rate(pace, 1000.0) == pytest.approx(10 * MARGIN * math.exp(-STEEP * (1 - left)), rel=1e-3)


def test_a_burst_then_the_rate() -> None:
    """A full bucket holds a second of the limit; after it turns come at the rate."""
    moments = turns(known(stated(600)), 1000.0, 40)
    assert moments[9] == 1000.0
    assert moments[10] > 1000.0
    assert (40 - 10) / (moments[-1] - 1000.0) == pytest.approx(10 * MARGIN, rel=0.01)


def test_a_turn_is_at_most_so_far_ahead() -> None:
    """What would come later is asked again then, and was not charged."""
    pace = known(stated(60))
    waits = [pace.turn(1000.0, input_tokens=0, max_tokens=1) for _ in range(9)]
    given_turns = [turn for turn in waits if turn.given]
    assert max(turn.wait for turn in given_turns) <= FAR
    assert waits[-1] == msgspec.structs.replace(waits[-1], given=False, wait=FAR, cost=NOTHING, why="requests")
    assert pace.state.inflight == len(given_turns)


def test_a_request_larger_than_the_bucket_goes_when_it_is_full() -> None:
    """It leaves a debt that the next one waits for."""
    pace = known(stated(600, input_tokens=60_000))
    first, second = turns(pace, 1000.0, 2, input_tokens=3000)
    assert first == 1000.0
    assert second - first == pytest.approx(3000 / (1000 * MARGIN), rel=0.01)


def test_input_is_corrected_when_it_is_counted_and_learned() -> None:
    """What a cache served counts as nothing, and the next guess knows."""
    pace = known(stated(600, input_tokens=60_000))
    turn = pace.turn(1000.0, input_tokens=900, max_tokens=10)
    assert turn.cost[INPUT] == 900
    assert pace.state.levels[INPUT] == 100
    pace.began(1000.0, sent=999.0, seconds=1.0, cost=turn.cost, guessed=900, counted=90)
    assert pace.state.levels[INPUT] == 910
    assert pace.cost(900, 10)[INPUT] == pytest.approx(90)


def test_output_is_the_mean_of_the_answers() -> None:
    """A guess of `max_tokens` first, that four answers outweigh; sixty-four make the mean, older ones fade."""
    pace = known()
    assert pace.cost(0, 1000)[OUTPUT] == 250
    for _ in range(4):
        pace.settled(1000.0, cost=NOTHING, output=50, seconds=1)
    assert pace.cost(0, 1000)[OUTPUT] == 150
    for _ in range(500):
        pace.settled(1000.0, cost=NOTHING, output=100, seconds=1)
    assert pace.cost(0, 1000)[OUTPUT] == pytest.approx(100 * 64 / 68 + 250 * 4 / 68, rel=0.01)


def test_output_is_all_of_max_tokens_where_it_is_reserved() -> None:
    """`output: max_tokens` charges what the provider does, and gives the rest back at the end."""
    pace = known(stated(output_tokens=60_000), reserves=True)
    turn = pace.turn(1000.0, input_tokens=0, max_tokens=1000)
    before = pace.state.levels[OUTPUT]
    pace.settled(1000.0, cost=turn.cost, output=100, seconds=1)
    assert (turn.cost[OUTPUT], pace.state.levels[OUTPUT] - before) == (1000, 900)


def test_tokens_count_input_and_output_together() -> None:
    """Where a provider has one limit for both, a request is charged both, and both are corrected."""
    pace = known(Limits(tokens=Limit(60_000, 60_000)))
    turn = pace.turn(1000.0, input_tokens=300, max_tokens=400)
    assert pace.state.levels[3] == 1000 - 400
    pace.began(1000.0, sent=999.0, seconds=1.0, cost=turn.cost, guessed=300, counted=200)
    pace.settled(1000.0, cost=turn.cost, output=40, seconds=1)
    assert pace.state.levels[3] == 1000 - 240


def test_the_ramp_begins_at_a_tenth() -> None:
    """From a tenth of the rate to all of it in the ramp's seconds, or in three calls' time where calls are long."""
    pace = Pace(Knobs(ramp=15.0))
    pace.seen(0.0, stated(600))
    full = 10 * MARGIN
    assert [round(rate(pace, at) / full, 2) for at in (0.0, 7.5, 15.0)] == [0.1, 0.55, 1.0]
    pace.state.duration = 20.0
    assert round(rate(pace, 30.0) / full, 2) == 0.55


def test_output_under_way_lowers_its_limit() -> None:
    """More calls under way than usual will produce what is not in the share left yet."""
    pace = known(stated(600, 60_000, 60_000))
    calm = rate(pace, 1000.0, OUTPUT)
    pace.state.duration, pace.state.usual, pace.state.inflight = 20.0, 10.0, 20.0
    assert rate(pace, 1000.0, OUTPUT) == pytest.approx(calm * math.exp(-STEEP * 0.3))
    assert rate(pace, 1000.0, INPUT) == pytest.approx(1000 * MARGIN)


def test_a_refusal_cuts_the_rate_once_per_round_trip() -> None:
    """Its charge is given back; what was sent before the cut says nothing new; a hundredth comes back a second."""
    pace = known(stated(600))
    costs = [pace.turn(1000.0, input_tokens=0, max_tokens=1).cost for _ in range(3)]
    for cost in costs[:2]:
        pace.refused(1001.0, sent=1000.0, cost=cost, limited=True)
    assert pace.state.own == CUT
    pace.refused(1002.0, sent=1001.5, cost=costs[2], limited=True)
    assert pace.state.own == pytest.approx((CUT + BACK) * CUT)
    assert pace.state.inflight == 0
    pace._advance(1200.0)
    assert pace.state.own == 1.0


def test_refusals_without_end_leave_a_little() -> None:
    """However often it is refused, a fiftieth of the rate is tried."""
    pace = known(stated(600))
    for i in range(100):
        pace.refused(1000.0 + i / 1000, sent=1000.0 + i / 1000, cost=NOTHING, limited=True)
    assert pace.state.own == pytest.approx(LEAST, rel=0.2)


def test_a_raised_limit_is_not_taken_for_a_used_one() -> None:
    """Twice the limit with the same units left looks half used; the pace knows that the new room is empty."""
    pace = known(stated(600))
    pace.seen(1000.0, Limits(requests=Limit(1200, 600)))
    assert rate(pace, 1000.0) == pytest.approx(20 * MARGIN)
    pace.state.seen_at = 1150.0
    assert rate(pace, 1150.0) == pytest.approx(20 * MARGIN * math.exp(-STEEP / 4))
    pace.state.seen_at = 1300.0
    assert rate(pace, 1300.0) == pytest.approx(20 * MARGIN * math.exp(-STEEP / 2))


def test_silence_fills_up_what_is_left() -> None:
    """Nothing left, and nobody has answered for a while: the refill is counted, for nobody else will."""
    pace = known(stated(600, left=0.0))
    low = rate(pace, 1000.0)
    assert rate(pace, 1000.0 + QUIET) == pytest.approx(low)
    assert rate(pace, 1000.0 + QUIET + 30) == pytest.approx(low * math.exp(STEEP / 2))


def test_a_share_of_the_limits_is_a_ceiling() -> None:
    """`use: 0.5` never takes more than half, however much is left; own limits neither."""
    half, own = known(stated(600), use=0.5), known(stated(600), own=(4.0, 0.0, 0.0, 0.0))
    assert (rate(half, 1000.0), rate(own, 1000.0)) == (5.0, 4.0)
    alone = Pace(Knobs(ramp=0.0, own=(4.0, 0.0, 0.0, 0.0)))
    assert (alone.stated, rate(alone, 0.0)) == (True, 4.0)


REFUSALS = {
    "429 with headers": (True, stated(600, left=0.1), {"own": CUT, "left": 0.1, "places": 8.0}),
    "429 without headers": (True, None, {"own": CUT, "left": 1.0, "places": 8.0}),
    "529": (False, None, {"own": 1.0, "left": 1.0, "places": 1.0}),
}


@pytest.mark.parametrize(("limited", "limits", "found"), REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_does_its_own(limited: bool, limits: Limits | None, found: dict[str, float]) -> None:
    """About rates: the rate is cut. About load: the places. Neither is a first token."""
    pace = known(stated(600))
    cost = pace.turn(1000.0, input_tokens=0, max_tokens=1).cost
    if limits is not None:
        pace.seen(1000.5, limits)
    pace.refused(1000.5, sent=1000.0, cost=cost, limited=limited)
    state = pace.state
    assert {"own": state.own, "left": round(state.left[0], 3), "places": state.places} == found
    assert state.firsts == []
    assert (state.duration, state.answers) == (0.0, 0.0)


def test_no_more_than_the_most_at_a_time() -> None:
    """Whatever the limits allow, connections are bounded."""
    pace = known(stated(), most=3.0)
    assert [pace.turn(1000.0, input_tokens=0, max_tokens=1).given for _ in range(4)] == [True, True, True, False]


def test_the_view_names_the_narrow_limit() -> None:
    """Calls a second by the mean of the answers, and the limit that allows the fewest."""
    pace = known(stated(600, 60_000, 60_000, left=0.9))
    for _ in range(20):
        pace.began(1000.0, sent=999.0, seconds=1.0, cost=NOTHING, guessed=400, counted=400)
        pace.settled(1000.0, cost=NOTHING, output=50, seconds=1)
    view = pace.view(1000.0)
    assert view.limit == "input_tokens"
    assert view.allowed_per_second == pytest.approx(2.5, rel=0.2)
    assert view.left == {"requests": 0.9, "input_tokens": 0.9, "output_tokens": 0.9}


def test_the_section_becomes_knobs() -> None:
    """A policy's numbers, with what is shared by all and what is not."""
    spec = PaceSpec(first=4, use=0.5, output="max_tokens", limits=OwnLimits(requests=60))
    knobs = spec.knobs()
    assert (knobs.first, knobs.use, knobs.reserves, knobs.own) == (4.0, 0.5, True, (1.0, 0.0, 0.0, 0.0))
    assert (knobs.margin, knobs.steep) == (MARGIN, STEEP)
    shared = spec.knobs(shared=True)
    assert (shared.margin, shared.steep) < (knobs.margin, knobs.steep)
    pooled = PaceSpec(pools={"claude-opus-4-*": "opus-4"})
    assert (pooled.pool("claude-opus-4-8"), pooled.pool("claude-haiku-4-5"), pooled.pool(None)) == (
        "opus-4",
        "claude-haiku-4-5",
        "",
    )

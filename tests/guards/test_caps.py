"""Ceilings: what is counted, what is estimated, and what the provider's own count changes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.errors import PolicyError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Ping, Started, Stopped, Usage
from streamguard.guards.base import AttemptContext, Watch
from streamguard.guards.caps import BATCH, Caps
from streamguard.pricing.price import Price
from streamguard.pricing.tokens import TokenScale, weigh
from streamguard.request import Request
from streamguard.verdict import Trip, Where
from tests.recorded import recorded

EXACT = TokenScale(low=1.0, mid=1.0, high=1.0)  # four small letters weigh one
PRICE = Price(input=Decimal(3), output=Decimal(15))
WORDS = "abcd" * (BATCH // 4)  # a batch of 16 tokens


def text(piece: str = WORDS, kind: str = "text") -> Delta:
    return Delta(0, kind, piece)  # type: ignore[arg-type]


def verdicts(caps: Caps, events: list[Event], **ctx: Any) -> list[Trip | None]:
    watch = caps.watch(AttemptContext(**{"scale": EXACT, **ctx}), 0.0)
    assert isinstance(watch, Watch)
    return [watch.feed(event, 0.0) for event in events if watch.wants is None or type(event) in watch.wants]


def only_last(found: list[Trip | None]) -> Trip | None:
    """The verdict on the last event; none may come before."""
    assert found[:-1] == [None] * (len(found) - 1)
    return found[-1]


@pytest.mark.parametrize(
    ("caps", "events", "trip"),
    [
        (
            Caps(characters=5),
            [text("abc"), text("de"), text("f", "thinking")],
            Trip(
                reason="cap.characters",
                message="6 characters (caps.characters is 5)",
                knob="caps.characters",
                limit=5,
                observed=6,
                guard="caps",
            ),
        ),
        (
            Caps(events=3),
            [Started(), Ping(), Ping(), BlockStopped(0)],
            Trip(
                reason="cap.events",
                message="4 events (caps.events is 3)",
                knob="caps.events",
                limit=3,
                observed=4,
                guard="caps",
            ),
        ),
        (
            Caps(tool_calls=1),
            [BlockStarted(0, "tool_input"), BlockStarted(1, "server_tool"), BlockStarted(2, "tool_input")],
            Trip(
                reason="cap.tool_calls",
                message="2 tool calls (caps.tool_calls is 1)",
                knob="caps.tool_calls",
                limit=1,
                observed=2,
                where=Where(block=2),
                guard="caps",
            ),
        ),
        (
            Caps(output_tokens=32),
            [text(), text(), text()],
            Trip(
                reason="cap.output_tokens",
                message="at least 48 output tokens, likely 48, estimated from the text (caps.output_tokens is 32)",
                knob="caps.output_tokens",
                limit=32,
                observed=48,
                estimated=True,
                guard="caps",
            ),
        ),
        (
            Caps(thinking_tokens=16),
            [text(), text(), text(kind="thinking"), text(kind="thinking")],
            Trip(
                reason="cap.thinking_tokens",
                message="at least 32 thinking tokens, likely 32, estimated from the text (caps.thinking_tokens is 16)",
                knob="caps.thinking_tokens",
                limit=16,
                observed=32,
                estimated=True,
                guard="caps",
            ),
        ),
        (
            Caps(output_tokens=2000),
            [text(), Metered(Usage(output_tokens=2001))],
            Trip(
                reason="cap.output_tokens",
                message="2001 output tokens by the provider's count (caps.output_tokens is 2000)",
                knob="caps.output_tokens",
                limit=2000,
                observed=2001,
                guard="caps",
            ),
        ),
        (
            Caps(thinking_tokens=10),
            [text(), Metered(Usage(output_tokens=2001, thinking_tokens=11))],
            Trip(
                reason="cap.thinking_tokens",
                message="11 thinking tokens by the provider's count (caps.thinking_tokens is 10)",
                knob="caps.thinking_tokens",
                limit=10,
                observed=11,
                guard="caps",
            ),
        ),
    ],
)
def test_each_ceiling_trips_when_it_is_passed(caps: Caps, events: list[Event], trip: Trip) -> None:
    """Equal is within; the next one trips, and says what was seen, the limit and the knob."""
    assert only_last(verdicts(caps, events)) == trip


def test_the_lower_end_of_the_estimate_decides() -> None:
    """No answer that may still be within the cap is thrown away; the middle is only told."""
    scale = TokenScale(low=0.5, mid=1.0, high=2.0)
    found = verdicts(Caps(output_tokens=16), [text()] * 3, scale=scale)
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert (found[2].observed, found[2].message[:42]) == (24, "at least 24 output tokens, likely 48, esti")


def test_a_count_replaces_the_estimate() -> None:
    """After a running count only what came later is estimated, on top of it."""
    events = [text(), text(), Metered(Usage(output_tokens=10)), text(), text(), text()]
    trip = only_last(verdicts(Caps(output_tokens=57), events))
    assert trip is not None
    assert trip.observed == 58


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 200))
def test_a_verdict_is_at_most_one_batch_late(sizes: list[int], cap: int) -> None:
    """However the text is cut: never before the weight passes the cap, and at most a batch and a delta after it."""
    watch = Caps(output_tokens=cap).watch(AttemptContext(scale=EXACT), 0.0)
    seen = 0
    for size in sizes:
        trip = watch.feed(text("a" * size), 0.0)
        seen += size
        if trip is not None:
            assert weigh("a" * seen) > cap
            return
        assert weigh("a" * (seen - BATCH)) <= cap


# -- cost --------------------------------------------------------------------------------------------------------------


def test_the_cost_is_estimated_from_input_and_text() -> None:
    """1000 input tokens are 3000 micro-USD, 16 output tokens 240."""
    caps = Caps(cost_usd=Decimal("0.0034"))
    assert only_last(verdicts(caps, [text(), text()], price=PRICE, input_tokens=1000)) == Trip(
        reason="cap.cost",
        message="at least $0.00348 so far, estimated (caps.cost_usd is $0.0034)",
        knob="caps.cost_usd",
        limit=Decimal("0.0034"),
        observed=Decimal("0.00348"),
        estimated=True,
        guard="caps",
    )


def test_the_count_at_the_start_replaces_the_input_estimate() -> None:
    """What the provider says it read counts, caches included; input alone may be too dear."""
    price = Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"))
    start = Started(usage=Usage(input_tokens=100, cache_read_tokens=1000))
    caps = Caps(cost_usd=Decimal("0.00085"))
    trip = only_last(verdicts(caps, [start, text(), text()], price=price, input_tokens=100_000))
    assert trip is not None
    assert trip.observed == Decimal("0.00108")
    dear = only_last(verdicts(Caps(cost_usd=Decimal("0.0005")), [start], price=price))
    assert dear is not None
    assert (dear.reason, dear.observed) == ("cap.cost", Decimal("0.0006"))


def test_the_final_count_is_judged_exactly() -> None:
    """Equal to the cap is within it; a micro-dollar more is not, and then nothing is an estimate."""
    usage = Usage(input_tokens=1000, output_tokens=100)
    events = [Started(usage=Usage(input_tokens=1000)), Metered(usage, stop_reason="end_turn")]
    assert verdicts(Caps(cost_usd=Decimal("0.0045")), events, price=PRICE) == [None, None]
    assert only_last(verdicts(Caps(cost_usd=Decimal("0.004499")), events, price=PRICE)) == Trip(
        reason="cap.cost",
        message="$0.0045 by the provider's count (caps.cost_usd is $0.004499)",
        knob="caps.cost_usd",
        limit=Decimal("0.004499"),
        observed=Decimal("0.0045"),
        guard="caps",
    )


def test_free_output_never_passes_a_cost() -> None:
    """A model whose output is free has room for any number of tokens."""
    free = Price(input=Decimal(0), output=Decimal(0))
    assert verdicts(Caps(cost_usd=Decimal("0.01")), [text()] * 50, price=free) == [None] * 50


def test_a_cost_without_a_price_is_refused() -> None:
    """An unknown price is not zero: the cap cannot be kept, and that is said before anything is sent."""
    with pytest.raises(PolicyError, match=r"caps\.cost_usd needs a price, and that of model 'm' is unknown"):
        Caps(cost_usd=Decimal(1)).watch(AttemptContext(request=Request({"model": "m"})), 0.0)


# -- recorded streams --------------------------------------------------------------------------------------------------


def test_no_recorded_answer_within_its_cap_is_aborted() -> None:
    """With the prior, a cap at an answer's true length trips for none of the recorded streams."""
    for stream in recorded():
        events = [*(text(piece) for piece in stream.deltas), Metered(Usage(output_tokens=stream.output_tokens))]
        caps = Caps(output_tokens=stream.output_tokens)
        assert verdicts(caps, events, scale=TokenScale()) == [None] * len(events), stream.name


def test_every_recorded_answer_trips_well_before_its_end_under_a_small_cap() -> None:
    """With the prior, a cap of a quarter of the true length trips before three quarters of the deltas."""
    for stream in recorded():
        if stream.output_tokens >= 200:
            found = verdicts(
                Caps(output_tokens=stream.output_tokens // 4), [text(d) for d in stream.deltas], scale=TokenScale()
            )
            first = next(i for i, trip in enumerate(found) if trip is not None)
            assert first < 0.75 * len(stream.deltas), stream.name


# -- the spec ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"cost_usd": 0.04}, 'cost_usd is money, and a number loses digits: quote it, as in "0.04"'),
        ({"cost_usd": 1}, "quote it"),
        ({"cost_usd": "a lot"}, "must be an amount of USD"),
        ({"cost_usd": "-1"}, "must be a positive"),
        ({"cost_usd": "NaN"}, "must be a positive"),
        ({"output_tokens": 0}, "output_tokens must be a whole number, 1 or more, not 0"),
        ({"characters": 1.5}, "characters must be a whole number, 1 or more, not 1.5"),
        ({"tool_calls": True}, "tool_calls must be a whole number"),
        ({"tokens": 5}, "Extra inputs are not permitted"),
    ],
)
def test_bad_ceilings_are_refused_by_name(section: dict[str, Any], message: str) -> None:
    """Money is quoted, counts are whole and positive, keys are known."""
    with pytest.raises(ValidationError, match=message):
        Caps.model_validate(section)


def test_a_file_and_code_give_equal_hashable_specs() -> None:
    """Money from a file's string is the same as a `Decimal`."""
    read = Caps.model_validate({"output_tokens": 2000, "cost_usd": "0.04"})
    assert read == Caps(output_tokens=2000, cost_usd=Decimal("0.04"))
    assert len({read, Caps(output_tokens=2000, cost_usd=Decimal("0.04"))}) == 1
    assert (read.name, read.mode) == ("caps", None)


def test_nothing_capped_never_trips() -> None:
    """An empty section is no ceiling at all."""
    assert verdicts(Caps(), [Started(), text(), Metered(Usage(output_tokens=10**9)), Stopped()]) == [None] * 3

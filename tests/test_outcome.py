"""Outcomes, records and errors as data: sums, whole values, and that they travel between processes."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from typing import Any

import msgspec
import pytest

import streamguard
from streamguard import (
    BudgetExhausted,
    CallError,
    ConfigError,
    DeadlineExceeded,
    GaveUp,
    Interrupted,
    JobError,
    JsonDocument,
    Outcome,
    Policy,
    PolicyError,
    Problem,
    Retry,
    Rule,
    SchemaError,
    StreamguardError,
    Timeouts,
)
from streamguard.events import Failed, Usage
from streamguard.outcome import AttemptRecord, CallRecord, Cost, Times
from streamguard.testing import answer, pause, script
from streamguard.usage import UsageRange
from streamguard.verdict import Decision, Trip, Where

GOOD, BAD = '{"total": 12, "lines": ["a"]}', '{"total": 12, "lines" ["a"]}'
PRICES = {"claude-sonnet-5-5": {"input": "3.00", "output": "15.00"}}


@pytest.mark.parametrize(
    ("cost", "exact", "usd"),
    [
        (Cost(3_000, 3_000), True, Decimal("0.003")),
        (Cost(0, 0), True, Decimal(0)),
        (Cost(1, 2_500_000), False, Decimal("2.5")),
        (Cost(1, None), False, None),
        (Cost(None, None), False, None),
    ],
)
def test_costs(cost: Cost, exact: bool, usd: Decimal | None) -> None:
    """Exact is what has one known value; dollars are the upper end; unknown is None, never 0."""
    assert (cost.exact, cost.usd_high) == (exact, usd)
    assert cost.usd_low == (None if cost.low is None else Decimal(cost.low) / 1_000_000)


def test_costs_add_up() -> None:
    """Sums are sums of ends, and unknown as soon as one of them is."""
    assert Cost(1, 2) + Cost(10, 20) == Cost(11, 22)
    assert Cost(1, 2) + Cost(10, None) == Cost(11, None)
    assert sum([Cost(1, 2), Cost(None, 4)], Cost(0, 0)) == Cost(None, 6)


def attempt(number: int, ended: Trip | Failed | None, saved: int | None = None) -> AttemptRecord:
    return AttemptRecord(number=number, ended=ended, saved_tokens=saved, usage=UsageRange.nothing())


TRIP = Trip(reason="json.malformed", message="…")
FAILED = Failed(reason="provider.overloaded", message="…")


@pytest.mark.parametrize(
    ("attempts", "reasons", "saved"),
    [
        ([], (), 0),
        ([attempt(1, None)], (), 0),
        ([attempt(1, TRIP, 40), attempt(2, FAILED), attempt(3, TRIP, 2), attempt(4, None)],
         ("json.malformed", "provider.overloaded", "json.malformed"), 42),
        ([attempt(1, TRIP, 40), attempt(2, TRIP)], ("json.malformed", "json.malformed"), None),
    ],
)  # fmt: skip
def test_what_a_call_says_of_its_attempts(attempts: list[AttemptRecord], reasons: tuple, saved: int | None) -> None:
    """Reasons in order, without the accepted one; tokens saved by aborts, unknown if one of them is."""
    record = CallRecord(attempts=tuple(attempts), usage=UsageRange.nothing())
    assert (record.reasons, record.saved_tokens) == (reasons, saved)
    assert [one.reason for one in attempts] == [one.ended.reason if one.ended else None for one in attempts]


async def told(source: Any, policy: Policy, **options: Any) -> Outcome | CallError:
    try:
        return await streamguard.run(source, policy=policy, **options)
    except CallError as error:
        return error


def test_a_whole_outcome(run_virtual) -> None:
    """Every field of an outcome, and of each of its attempts, to the last."""
    policy = Policy(
        json=JsonDocument(),
        prices=PRICES,
        retry=Retry(attempts=2, rules=[Rule(when=["json.*"], wait=3, patch={"temperature": 0.5})]),
    )

    async def main() -> None:
        first, second = answer(BAD), answer(GOOD, usage=Usage(input_tokens=10, output_tokens=9))
        source = script([*first[:3], pause(2), *first[3:]], [pause(1), *second], chunk="event", messages=True)
        outcome = await told(source, policy, labels={"doc": 7}, group="g")
        assert isinstance(outcome, Outcome)
        bad, good = outcome.attempts
        decision = Decision(
            action="retry", reason="json.malformed", why="retry.rules[0]: attempt 2 of 2", rule=0, wait=3.0,
            patch={"temperature": 0.5},
        )  # fmt: skip
        assert bad == AttemptRecord(
            number=1,
            model=source.request.model,
            ended=bad.ended,
            request_id="msg_scripted",
            text=BAD[:24],
            value={"total": 12},
            usage=bad.usage,
            cost=bad.cost,
            times=Times(head=0.0, first_token=0.0, dead=2.0, end=2.0),
            decision=decision,
        )
        assert isinstance(bad.ended, Trip)
        assert (bad.ended.reason, bad.ended.at) == ("json.malformed", 2.0)
        assert bad.ended.where == Where(event=7, block=0, offset=22, char=22, pointer="/lines", keyword="malformed")
        assert (bad.usage.exact, bad.cost.exact) == (False, False)
        exact = UsageRange.of(Usage(input_tokens=10, output_tokens=9))
        assert good == AttemptRecord(
            number=2,
            patch={"temperature": 0.5},
            model=source.request.model,
            completed="whole",
            stop_reason="end_turn",
            request_id="msg_scripted",
            text=GOOD,
            value={"total": 12, "lines": ["a"]},
            usage=exact,
            cost=Cost(165, 165),
            times=Times(head=0.0, first_token=1.0, end=1.0),
        )
        assert outcome == Outcome(
            attempts=(bad, good),
            usage=UsageRange.total([bad.usage, exact]),
            cost=bad.cost + good.cost,
            seconds=6.0,
            lag=outcome.lag,
            labels={"doc": 7},
            group="g",
            completed="whole",
            value={"total": 12, "lines": ["a"]},
            text=GOOD,
            message=outcome.message,
        )
        assert outcome.message["content"][0]["text"] == GOOD
        assert outcome.lag < 0.01

    run_virtual(main)


def test_an_error_carries_the_record_of_an_outcome(run_virtual) -> None:
    """The record of a call that failed has every field an outcome's has, and `str()` says it in a line."""

    async def main() -> None:
        error = await told(script([pause(4), FAILED]), Policy(prices=PRICES), labels={"doc": 7}, group="g")
        assert isinstance(error, GaveUp)
        (only,) = error.attempts
        assert only.ended == FAILED
        assert error.record == CallRecord(
            attempts=(only,), usage=only.usage, cost=only.cost, seconds=4.0, lag=error.record.lag,
            labels={"doc": 7}, group="g",
        )  # fmt: skip
        assert str(error) == (
            "gave up after the first attempt: provider.overloaded: …; "
            "no rule of retry.rules is about provider.overloaded"
        )

    run_virtual(main)


def test_records_are_frozen(run_virtual) -> None:
    """Nobody who is handed a record can change it for the others."""

    async def main() -> None:
        outcome = await told(script(answer(GOOD)), Policy())
        for thing in (outcome, outcome.attempts[0], outcome.cost, outcome.usage, outcome.attempts[0].times):
            with pytest.raises(AttributeError, match="immutable"):
                setattr(thing, thing.__struct_fields__[0], None)

    run_virtual(main)


def test_the_parts_are_plain_data(run_virtual) -> None:
    """An attempt's record becomes JSON with msgspec alone."""

    async def main() -> None:
        error = await told(script(answer(BAD)), Policy(json=JsonDocument(), prices=PRICES))
        (attempt,) = msgspec.json.decode(msgspec.json.encode(error.attempts))
        assert (attempt["number"], attempt["ended"]["reason"], attempt["decision"]["action"]) == (
            1,
            "json.malformed",
            "give_up",
        )
        assert attempt["usage"]["exact"] is False

    run_virtual(main)


NOTHING = CallRecord(usage=UsageRange.nothing(), labels={"doc": 7})
ERRORS: list[StreamguardError] = [
    StreamguardError("plain"),
    ConfigError("one"),
    PolicyError([Problem(problem="a", file="p.yaml", line=5, column=9, pointer="/timeouts"), Problem(problem="b")]),
    SchemaError("schema"),
    JobError([Problem(problem="a"), Problem(problem="b"), Problem(problem="c")]),
    GaveUp("…", reason="json.malformed", record=NOTHING),
    DeadlineExceeded("…", reason="timeout.total", record=NOTHING, knob="timeouts.total"),
    BudgetExhausted("…", reason="budget.denied", record=NOTHING, scope="s", asked=9, available=1, unit="tokens"),
    Interrupted("…", reason="operator.interrupt", record=NOTHING, by="me"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_errors_travel(error: StreamguardError, way: Any) -> None:
    """An error that is pickled or copied, as process pools do, is the same error with everything it knows."""
    error.add_note("from a worker")
    again = way(error)
    assert type(again) is type(error)
    assert again is not error
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_outcomes_travel(run_virtual) -> None:
    """The same for what calls give: with values, patches, decisions and the provider's message."""

    async def main() -> None:
        policy = Policy(
            json=JsonDocument(), retry=Retry(attempts=2, rules=[Rule(when=["*"], patch={"metadata": {"user_id": "u"}})])
        )
        outcome = await told(script(answer(BAD), answer(GOOD), messages=True), policy)
        error = await told(script(answer(BAD)), policy)
        assert isinstance(error, GaveUp)
        assert pickle.loads(pickle.dumps(outcome)) == outcome
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.record) == (str(error), error.record)

    run_virtual(main)


def test_the_timeouts_of_a_deadline(run_virtual) -> None:
    """The error of a deadline names its knob, and the record says how long it took."""

    async def main() -> None:
        error = await told(script([pause(99)]), Policy(timeouts=Timeouts(total=5)))
        assert isinstance(error, DeadlineExceeded)
        assert (error.knob, error.record.seconds) == ("timeouts.total", pytest.approx(5, abs=0.01))
        assert str(error) == "the call took 5.0 s, waiting and retries included (timeouts.total is 5 s)"

    run_virtual(main)

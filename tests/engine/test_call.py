"""One call, whole: attempts, aborts, retries, clocks, consumers that misbehave. In virtual time, on both backends."""

from __future__ import annotations

import anyio
import pytest

from streamguard import (
    DeadlineExceeded,
    JsonDocument,
    Policy,
    Retry,
    Rule,
    Timeouts,
)
from streamguard.events import (
    BlockStarted,
    Delta,
    Failed,
    Metered,
    Ping,
    Started,
    Stopped,
    Usage,
)
from streamguard.testing.scripted import chunkings, script
from streamguard.testing.steps import pause, repeat, stall, status
from tests.engine.calls import AGAIN, BAD, GOOD, JSON, deltas, gave_up, head, outcome, tail


def test_a_good_answer(virtual) -> None:
    """A good answer is accepted whole, at any chunking, with value, text, exact usage and one attempt."""

    async def main() -> None:
        for name, source in chunkings(script([*head(), *deltas(GOOD), *tail()])):
            result = await outcome(source, Policy(json=JSON))
            assert (result.completed, result.value, result.text) == (
                "whole",
                {"total": 12, "lines": ["a", "b"]},
                GOOD,
            ), name
            assert len(result.attempts) == 1
            assert result.usage.exact
            assert result.usage.high.output_tokens == 9
            assert result.reasons == ()

    virtual(main)


def test_a_bad_answer_is_asked_again(virtual) -> None:
    """A dead prefix aborts the attempt on the delta that holds it, and the next attempt's answer stands alone."""

    async def main() -> None:
        bad, good = [*head(), *deltas(BAD), *tail()], [*head(), *deltas(GOOD), *tail()]
        for name, source in chunkings(script(bad, good)):
            result = await outcome(source, Policy(json=JSON, retry=AGAIN))
            assert result.value == {"total": 12, "lines": ["a", "b"]}, name
            assert result.reasons == ("json.malformed",)
            first = result.attempts[0]
            assert first.ended.where.offset == 22, name
            assert first.decision.action == "retry"
            assert BAD.startswith(first.text)
            assert len(first.text) >= 23 if source.chunk != "byte" else first.text == BAD[:23], name

    virtual(main)


def test_giving_up_tells_everything(virtual) -> None:
    """When attempts are used up, the error has the reason, the place, the decision and every attempt."""

    async def main() -> None:
        error = await gave_up(script([*head(), *deltas(BAD), *tail()]), Policy(json=JSON, retry=AGAIN))
        assert error.reason == "json.malformed"
        assert [attempt.number for attempt in error.attempts] == [1, 2, 3]
        assert error.record.reasons == ("json.malformed",) * 3
        assert str(error).startswith("gave up after 3 attempts: json.malformed: ")
        assert str(error).endswith("; all 3 attempts are used (retry.attempts)")
        assert not error.record.usage.exact

    virtual(main)


@pytest.mark.parametrize(
    ("name", "attempt", "timeouts", "reason", "knob", "at"),
    [
        ("no head", [stall(), status()], Timeouts(connect=5), "timeout.connect", "timeouts.connect", 5),
        ("stall before output", [*head(), stall()], Timeouts(first_token=7), "timeout.first_token", "timeouts.first_token", 7),
        ("pings before output", [*head(), repeat([pause(1), Ping()])], Timeouts(first_token=7, first_token_per_1k_input=0),
         "timeout.first_token", "timeouts.first_token", 7),
        ("stall", [*head(), *deltas("ab"), stall()], Timeouts(progress=9, alive=None), "timeout.progress", "timeouts.progress", 9),
        ("ping-only silence", [*head(), *deltas("ab"), repeat([pause(2), Ping()])], Timeouts(progress=9),
         "timeout.progress", "timeouts.progress", 9),
        ("dead line", [*head(), [Ping()], *deltas("ab"), stall()], Timeouts(alive=4), "timeout.alive", "timeouts.alive", 4),
        ("slow drip", [*head(), repeat([pause(1), Delta(0, "text", "x")])], Timeouts(attempt=30), "timeout.attempt",
         "timeouts.attempt", 30),
        ("silent thinking", [[Started()], [BlockStarted(0, "thinking")], repeat([pause(15), Ping()])],
         Timeouts(progress_thinking=200), "timeout.progress", "timeouts.progress_thinking", 200),
    ],
)  # fmt: skip
def test_clocks(virtual, name, attempt, timeouts, reason, knob, at) -> None:
    """Each clock ends the attempt at its own time, names its knob, and leaves nothing open."""

    async def main() -> None:
        began = anyio.current_time()
        error = await gave_up(script(attempt), Policy(timeouts=timeouts))
        (only,) = error.attempts
        assert (error.reason, only.ended.knob) == (reason, knob)
        assert anyio.current_time() - began == pytest.approx(at, abs=0.01)

    virtual(main)


def test_total_spans_attempts_and_waits(virtual) -> None:
    """One deadline over everything also cuts the running attempt, and is an error of its own."""

    async def main() -> None:
        began = anyio.current_time()
        retry = Retry(attempts=9, rules=[Rule(when=["*"], wait=4)])
        source = script([*head(), pause(3), *deltas(BAD)])
        error = await gave_up(source, Policy(json=JSON, timeouts=Timeouts(total=9), retry=retry), DeadlineExceeded)
        assert (error.reason, error.knob) == ("timeout.total", "timeouts.total")
        assert error.record.reasons == ("json.malformed", "timeout.total")
        assert anyio.current_time() - began == pytest.approx(9, abs=0.01)

    virtual(main)


def test_a_wait_that_does_not_fit_is_not_begun(virtual) -> None:
    """If the wait would pass the deadline the call gives up at once, and says when to come back."""

    async def main() -> None:
        began = anyio.current_time()
        retry = Retry(attempts=3, rules=[Rule(when=["provider.*"], respect_retry_after=True)])
        source = script(Failed(reason="provider.rate_limited", message="slow down", status=429, retry_after=60.0))
        error = await gave_up(source, Policy(timeouts=Timeouts(total=30), retry=retry))
        assert anyio.current_time() == began
        assert error.attempts[-1].decision.retry_after == 60.0

    virtual(main)


@pytest.mark.parametrize(
    ("name", "attempt", "reason"),
    [
        ("missing message_stop", [*head(), *deltas(GOOD), *tail()[:2]], "transport.incomplete"),
        ("nothing at all", [[]], "transport.incomplete"),
        ("error inside a 200", [*head(), *deltas("{"), Failed(reason="provider.overloaded", message="…")], "provider.overloaded"),
        ("refusal", [*head(), *deltas("I"), *tail("refusal")], "stop.refusal"),
        ("truncation", [*head(), *deltas(GOOD[:9]), *tail("max_tokens")], "stop.max_tokens"),
        ("pause", [*head(), *deltas("x"), *tail("pause_turn")], "stop.pause"),
        ("unknown stop", [*head(), *deltas("x"), *tail("brand_new")], "stop.unknown"),
        ("empty", [[Started()], [Metered(Usage(output_tokens=2), stop_reason="end_turn")], [Stopped("end_turn")]], "stop.empty"),
        ("the source raises", [*head(), *deltas("x"), ValueError("boom")], "source.error"),
    ],
)  # fmt: skip
def test_bad_endings(virtual, name, attempt, reason) -> None:
    """Whatever is not a truthful, complete, allowed end is one typed error with the text so far."""

    async def main() -> None:
        for chunk in ("whole", "event", "byte"):
            error = await gave_up(script(attempt, chunk=chunk), Policy())
            assert error.reason == reason, chunk

    virtual(main)


def test_an_open_socket_after_the_end(virtual) -> None:
    """The answer is final at message_stop: a socket that stays open costs `close_grace` and changes nothing."""

    async def main() -> None:
        began = anyio.current_time()
        result = await outcome(
            script([*head(), *deltas(GOOD), *tail(), stall()]), Policy(json=JSON, timeouts=Timeouts(close_grace=2))
        )
        assert result.completed == "whole"
        assert anyio.current_time() - began == pytest.approx(2, abs=0.01)

    virtual(main)


def test_cut(virtual) -> None:
    """With `trailing: cut` the stream ends where the document does, and what follows is never read."""

    async def main() -> None:
        source = script([*head(), *deltas(GOOD + " and so on", 3), stall()], chunk="event")
        result = await outcome(source, Policy(json=JsonDocument(trailing="cut")))
        assert (result.completed, result.value, result.text) == ("cut", {"total": 12, "lines": ["a", "b"]}, GOOD)
        assert not result.usage.exact

    virtual(main)


def test_patches_are_on_the_original(virtual) -> None:
    """Each attempt's request is the original with its rule's patch on top; patches do not compound."""

    async def main() -> None:
        truncated = [*head(), *deltas(GOOD[:9]), *tail("max_tokens")]
        refused = [*head(), *deltas("{"), *tail("refusal")]
        rules = [
            Rule(when=["stop.max_tokens"], max_uses=1, patch={"max_tokens": {"multiply": 2, "max": 8192}}),
            Rule(when=["stop.refusal"], patch={"model": "other"}),
        ]
        source = script(truncated, refused, [*head(), *deltas(GOOD), *tail()])
        result = await outcome(source, Policy(json=JSON, retry=Retry(attempts=4, rules=rules)))
        asked = [(body["model"], body["max_tokens"]) for body in source.requests]
        original = (source.request.model, source.request.max_tokens)
        assert asked == [original, (original[0], original[1] * 2), ("other", original[1])]
        assert result.reasons == ("stop.max_tokens", "stop.refusal")
        assert [attempt.model for attempt in result.attempts] == [model for model, _ in asked]

    virtual(main)


def test_observe_acts_on_nothing(virtual) -> None:
    """In mode observe every trip is recorded with what it would have saved, and the answer comes through, unclaimed."""

    async def main() -> None:
        policy = Policy(mode="observe", json=JSON, timeouts=Timeouts(progress=5))
        source = script([*head(), *deltas(BAD[:24]), pause(8), *deltas(BAD[24:]), *tail(tokens=100)], chunk="event")
        result = await outcome(source, policy)
        assert (result.completed, result.text) == (None, BAD[: len(result.text)])
        seen = {one.trip.reason: one for one in result.attempts[0].observed}
        assert sorted(seen) == ["json.malformed", "timeout.progress"]
        assert 0 < seen["json.malformed"].saved_tokens < 100

    virtual(main)

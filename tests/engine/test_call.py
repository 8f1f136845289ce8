"""One call, whole: attempts, aborts, retries, clocks, consumers that misbehave. In virtual time, on both backends."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import anyio
import pytest

import streamguard
from streamguard import (
    Caps,
    DeadlineExceeded,
    GaveUp,
    Interrupted,
    JsonDocument,
    Outcome,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Failed,
    Metered,
    Ping,
    Restarted,
    Started,
    Stopped,
    Usage,
)
from streamguard.guards.base import BaseWatch
from streamguard.guards.content import Content
from streamguard.guards.custom import View
from streamguard.testing.clock import BACKENDS, run_virtual
from streamguard.testing.scripted import answer, chunkings, script
from streamguard.testing.steps import pause, repeat, stall, status
from streamguard.verdict import Enough

GOOD = '{"total": 12, "lines": ["a", "b"]}'
BAD = '{"total": 12, "lines" ["a", "b"]}'
AGAIN = Retry(attempts=3, rules=[Rule(when=["*"])])
JSON = JsonDocument(expect="object")


def deltas(text: str, size: int = 4) -> list[list]:
    return [[Delta(0, "text", text[i : i + size])] for i in range(0, len(text), size)]


def head() -> list[list]:
    return [[Started(id="m1", model="m", usage=Usage(input_tokens=10))], [BlockStarted(0, "text", type="text")]]


def tail(stop: str = "end_turn", tokens: int = 9) -> list[list]:
    return [[BlockStopped(0)], [Metered(Usage(output_tokens=tokens), stop_reason=stop)], [Stopped(stop)]]


async def outcome(source, policy: Policy, **kwargs) -> Outcome:
    result = await streamguard.run(source, policy=policy, **kwargs)
    assert source.opened == source.closed
    return result


async def gave_up(source, policy: Policy, kind: type = GaveUp, **kwargs):
    with pytest.raises(kind) as caught:
        await streamguard.run(source, policy=policy, **kwargs)
    assert source.opened == source.closed
    return caught.value


@pytest.fixture(params=BACKENDS)
def virtual(request):
    """Run an async function in virtual time on one backend."""
    return lambda fn, *args: run_virtual(fn, *args, backend=request.param)


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


def test_deliver_committed(virtual) -> None:
    """Nothing but pings reaches the consumer before the attempt stands; then exactly one attempt's events."""

    async def main() -> None:
        source = script([*head(), Ping(), *deltas(BAD)], [*head(), *deltas(GOOD), *tail()])
        seen = []
        async with streamguard.stream(source, policy=Policy(json=JSON, retry=AGAIN)) as events:
            async for event in events:
                seen.append(event)
        assert seen[0] == Ping()
        assert seen[1:] == [event for batch in [*head(), *deltas(GOOD), *tail()] for event in batch]
        assert events.outcome.value == {"total": 12, "lines": ["a", "b"]}

    virtual(main)


def test_deliver_live(virtual) -> None:
    """Events come at once; after the first output an abort is an error; before it the retry is silent."""

    async def main() -> None:
        late = [*head(), *deltas(BAD)]
        early = [[Started()], Failed(reason="provider.overloaded", message="…")]
        policy = Policy(json=JSON, retry=AGAIN, deliver="live")
        source = script(early, late, chunk="event")
        seen = []
        with pytest.raises(GaveUp, match="output was already delivered"):
            async with streamguard.stream(source, policy=policy) as events:
                async for event in events:
                    seen.append(event)
        assert source.opened == source.closed == 2
        assert [event for event in seen if isinstance(event, Started)] == [head()[0][0]]
        assert BAD.startswith("".join(event.text for event in seen if isinstance(event, Delta)))

    virtual(main)


def test_deliver_restarting(virtual) -> None:
    """Events come at once, and a seam stands between the attempts."""

    async def main() -> None:
        source = script([*head(), *deltas(BAD)], [*head(), *deltas(GOOD), *tail()], chunk="event")
        policy = Policy(json=JSON, retry=AGAIN, deliver="restarting")
        seen = []
        async with streamguard.stream(source, policy=policy) as events:
            async for event in events:
                seen.append(event)
        (seam,) = [i for i, event in enumerate(seen) if isinstance(event, Restarted)]
        assert (seen[seam].attempt, seen[seam].decision.reason) == (2, "json.malformed")
        assert BAD.startswith("".join(event.text for event in seen[:seam] if isinstance(event, Delta)))
        assert "".join(event.text for event in seen[seam:] if isinstance(event, Delta)) == GOOD

    virtual(main)


@pytest.mark.parametrize("deliver", ["committed", "live", "restarting"])
def test_tool_input_waits_for_its_block(virtual, deliver) -> None:
    """A tool's input reaches the consumer only after its block is complete."""

    async def main() -> None:
        blocks = [
            [Started()],
            [BlockStarted(0, "tool_input", name="t")],
            *[[Delta(0, "tool_input", piece)] for piece in ('{"a"', ": 1", "}")],
            [BlockStopped(0)],
            [Metered(Usage(output_tokens=5), stop_reason="tool_use")],
            [Stopped("tool_use")],
        ]
        source = script(blocks, chunk="event")
        read_at_delta = []
        async with streamguard.stream(source, policy=Policy(deliver=deliver)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    read_at_delta.append(events._call.running is None or events._call.running.panel.events >= 6)
        assert read_at_delta == [True] * 3

    virtual(main)


def test_a_slow_consumer_trips_nothing(virtual) -> None:
    """Time spent in the consumer's code is not the provider's."""

    async def main() -> None:
        policy = Policy(deliver="live", timeouts=Timeouts(progress=1, alive=1, first_token=1))
        source = script([*head(), *deltas(GOOD), *tail()], chunk="event")
        async with streamguard.stream(source, policy=policy) as events:
            async for _ in events:
                await anyio.sleep(50)
        assert events.outcome.completed == "whole"

    virtual(main)


EVENTS_IN_ALL = len([*head(), *deltas(GOOD), *tail()])


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
@pytest.mark.parametrize("deliver", ["committed", "live"])
def test_a_consumer_that_leaves(virtual, how, deliver) -> None:
    """A consumer that breaks, raises or is cancelled at any event leaves nothing open and no poisoned task."""

    async def leave(at: int) -> None:
        source = script([*head(), *deltas(GOOD), *tail()], chunk="event")
        seen = 0

        async def consume() -> None:
            nonlocal seen
            async with streamguard.stream(source, policy=Policy(json=JSON, deliver=deliver)) as events:
                async for _ in events:
                    seen += 1
                    if seen == at:
                        if how == "break":
                            break
                        if how == "raise":
                            raise KeyError(at)
                        scope.cancel()
                        await anyio.sleep(1)

        with anyio.CancelScope() as scope:
            if how == "raise" and at <= EVENTS_IN_ALL:
                with pytest.raises(KeyError):
                    await consume()
            else:
                await consume()
        assert source.opened == source.closed == 1
        await anyio.sleep(1)  # a poisoned task would be cancelled here

    async def main() -> None:
        for at in range(1, EVENTS_IN_ALL + 1):
            await leave(at)

    virtual(main)


def test_cancellation_while_waiting(virtual) -> None:
    """A cancellation from outside goes through: while connecting, reading and waiting between attempts."""

    async def main() -> None:
        retry = Retry(attempts=2, rules=[Rule(when=["*"], wait=100)])
        for attempt in ([pause(100)], [*head(), stall()], [*head(), *deltas(BAD)]):
            source = script(attempt)
            with anyio.move_on_after(5) as scope:
                await streamguard.run(source, policy=Policy(json=JSON, timeouts=Timeouts(connect=None), retry=retry))
            assert scope.cancelled_caught
            assert source.opened == source.closed == 1

    virtual(main)


@pytest.mark.parametrize("when", ["reading", "waiting"])
def test_interrupt(virtual, when) -> None:
    """Somebody else's task ends the call at once: never retried, and the error says who."""

    async def main() -> None:
        attempt = [*head(), *deltas("ab"), stall()] if when == "reading" else [*head(), *deltas(BAD)]
        source = script(attempt)
        policy = Policy(
            json=None if when == "reading" else JSON, retry=Retry(attempts=3, rules=[Rule(when=["*"], wait=60)])
        )
        events = streamguard.stream(source, policy=policy)

        async def interrupt() -> None:
            await anyio.sleep(3)
            events.interrupt("the operator")

        async with anyio.create_task_group() as group, events:
            group.start_soon(interrupt)
            with pytest.raises(Interrupted) as caught:
                async for _ in events:
                    pass
        assert (caught.value.by, caught.value.reason) == ("the operator", "operator.interrupt")
        assert anyio.current_time() == pytest.approx(3, abs=0.01)
        assert source.opened == source.closed

    virtual(main)


def test_async_guards(virtual) -> None:
    """An async guard is awaited before delivery; its time is not the provider's; what it raises is a trip."""

    @streamguard.guard(reason="house.forbidden", every="delta")
    async def check(view):
        await anyio.sleep(30)
        return "no b here" if "b" in view.text else None

    @streamguard.guard(reason="house.broken", every="block")
    async def broken(view):
        raise LookupError("the moderation service is away")

    async def main() -> None:
        timeouts = Timeouts(progress=5, alive=5, first_token=5)
        attempt = [*head(), *deltas("aaab", 1), *tail()]
        seen = []
        with pytest.raises(GaveUp, match=r"house\.forbidden: no b here"):
            async with streamguard.stream(
                script(attempt, chunk="event"), policy=Policy(guards=[check], timeouts=timeouts, deliver="live")
            ) as events:
                async for event in events:
                    seen.append(event)
        assert [event.text for event in seen if isinstance(event, Delta)] == ["a", "a", "a"]
        error = await gave_up(script(attempt), Policy(guards=[broken]))
        assert error.reason == "guard.failed"
        assert "LookupError: the moderation service is away" in str(error)
        late = await gave_up(script(attempt), Policy(guards=[check], timeouts=Timeouts(total=10)), DeadlineExceeded)
        assert late.record.seconds == pytest.approx(10, abs=0.01)

    virtual(main)


def test_caps_and_cost(virtual) -> None:
    """A cost cap trips mid-stream on an estimate that says so, with own prices from the policy."""

    async def main() -> None:
        prices = {"m": {"input": "1.00", "output": "1000.00"}}
        policy = Policy(caps=Caps(cost_usd=Decimal("0.02")), prices=prices)
        source = script(
            [*head(), *deltas("word " * 500), *tail()], request={"model": "m", "max_tokens": 4096, "messages": []}
        )
        error = await gave_up(source, policy)
        (attempt,) = error.attempts
        assert (error.reason, attempt.ended.estimated) == ("cap.cost", True)
        assert attempt.cost.low is not None
        assert attempt.cost.low < attempt.cost.high

    virtual(main)


def test_saved_tokens_need_experience(virtual) -> None:
    """How much an abort saved is estimated from completed answers of the same runtime, and None before there are any."""

    async def main() -> None:
        runtime = Runtime()
        policy = Policy(json=JSON)
        bad = script([*head(), *deltas(BAD), *tail()], chunk="event")
        assert (await gave_up(bad, policy, runtime=runtime)).attempts[0].saved_tokens is None
        await outcome(script([*head(), *deltas(GOOD), *tail(tokens=100)]), policy, runtime=runtime)
        again = script([*head(), *deltas(BAD), *tail()], chunk="event")
        assert 50 < (await gave_up(again, policy, runtime=runtime)).attempts[0].saved_tokens < 100

    virtual(main)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(timeouts=Timeouts(alive=30)), "timeouts.alive: this source does not show pings"),
        (Policy(retry=Retry(attempts=2, rules=[Rule(when=["*"], patch={"model": "x"})])), r"retry.rules\[0\].patch needs a source that shows its request"),
        (Policy(json=JsonDocument(schema="request")), "json.schema: request needs a source that shows its request"),
    ],
)  # fmt: skip
def test_opaque_sources(virtual, policy, message) -> None:
    """What a source cannot give is refused at entry, before anything is sent."""

    async def main() -> None:
        source = script([*head(), *tail()], request=None, sees_bytes=False)
        with pytest.raises(PolicyError, match=message):
            await streamguard.run(source, policy=policy)
        assert source.opened == 0

    virtual(main)


def test_hooks(virtual) -> None:
    """Every step of a call is a record with the call's labels; a hook that raises changes nothing."""
    records = []

    def angry(record) -> None:
        raise RuntimeError("hook")

    async def main() -> None:
        runtime = Runtime(hooks=[angry, records.append])
        source = script([*head(), *deltas(BAD), *tail()], [*head(), *deltas(GOOD), *tail()])
        await outcome(source, Policy(json=JSON, retry=AGAIN), runtime=runtime, labels={"doc": 7}, group="g")

    virtual(main)
    names = [type(record).__name__ for record in records]
    assert names == ["AttemptStarted", "AttemptAborted", "RetryScheduled", "AttemptStarted", "CallCompleted"]
    assert {(record.labels["doc"], record.group) for record in records} == {(7, "g")}
    assert len({record.call for record in records}) == 1


def test_answer_helper(virtual) -> None:
    """The kit's own good answer is good."""

    async def main() -> None:
        assert (await outcome(script(answer(GOOD)), Policy(json=JSON))).value["total"] == 12

    virtual(main)


@pytest.mark.parametrize(
    ("after", "grace", "seconds", "exact", "completed"),
    [
        (tail(), 0, 0.0, True, "whole"),
        ([pause(0.05), *tail()], 0, 0.05, True, "whole"),
        ([[Delta(0, "text", " \n")], *tail()], 0, 0.0, True, "whole"),
        ([step for end in tail() for step in (pause(0.12), end)], 2, 0.36, True, "whole"),
        ([step for end in tail() for step in (pause(0.12), end)], 0, 0.1, False, "cut"),
        (tail("max_tokens"), 2, 0.0, True, "cut"),
        ([stall()], 0, 0.1, False, "cut"),
        ([stall()], 2, 2.0, False, "cut"),
        ([pause(0.01), *deltas("and so on"), pause(5), *tail()], 2, 0.01, False, "cut"),
        ([[Delta(0, "text", " }")], pause(0.09), *tail()], 2, 0.0, False, "cut"),
        ([[BlockStopped(0)], pause(0.01), [BlockStarted(1, "text")], pause(5), *tail()], 2, 0.01, False, "cut"),
        ([pause(0.01), Failed(reason="transport.reset", message="gone")], 2, 0.01, False, "cut"),
        ([*tail(), Failed(reason="transport.reset", message="gone")], 2, 0.0, True, "whole"),
        ([*tail(), *deltas("more")], 2, 0.0, True, "whole"),
    ],
    ids=[
        *("its end", "its end, soon", "blanks", "slow frames", "slow frames, no grace", "another stop reason"),
        *("nothing", "nothing, with grace", "more text", "a brace", "another block", "a reset", "a reset at last"),
        "text after the end",
    ],
)
@pytest.mark.parametrize("deliver", ["committed", "live"])
def test_the_end_right_behind_a_document_is_heard(
    virtual, after, grace: float, seconds: float, exact: bool, completed: str, deliver
) -> None:
    """After a document that closed the provider's own end is waited for as long as nothing more is written; an answer
    that ends there is whole, with all its events."""

    async def main() -> None:
        source = script([*head(), *deltas(GOOD), *after], chunk="event")
        policy = Policy(json=JsonDocument(trailing="cut"), timeouts=Timeouts(close_grace=grace), deliver=deliver)
        async with streamguard.stream(source, policy=policy) as events:
            kinds = [type(event) async for event in events]
        result = events.outcome
        assert (result.completed, result.usage.exact, result.value["total"]) == (completed, exact, 12)
        assert (kinds[-1] is Stopped) == (completed == "whole")
        assert result.seconds == pytest.approx(seconds, abs=1e-6)

    virtual(main)


@pytest.mark.parametrize("padding", [0, 6, 40, 100])
@pytest.mark.parametrize("kind", ["pattern", "block", "async"])
@pytest.mark.parametrize("early", ["cut", "enough"])
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_who_waited_for_more_text_judges_before_an_answer_is_cut(padding: int, kind: str, early: str, mode) -> None:
    """Where a document ends the answer, text that was gathered for a later look is looked at, or would pass unseen."""

    def forbids(view: View) -> str | None:
        return "found" if "FORBIDDEN" in view.text else None

    async def asks(view: View) -> str | None:
        return forbids(view)

    content, guards = (), ()
    if kind == "pattern":
        content = (Content(reason="content.found", pattern="FORBIDDEN", mode=mode),)
    else:
        own = streamguard.guard(reason="content.found", every="block", mode=mode)(asks if kind == "async" else forbids)
        guards = (own,)
    json = JsonDocument(trailing="cut") if early == "cut" else JsonDocument(enough_when=["/note"])
    policy = Policy(json=json, content=content, guards=guards)

    async def main() -> None:
        text = '{"note": "' + "x" * padding + 'FORBIDDEN"}'
        source = script([*head(), *deltas(text + ' {"more": 1}', 3), *tail()], chunk="event")
        if mode == "enforce":
            assert (await gave_up(source, policy)).reason == "content.found"
        else:
            result = await outcome(source, policy)
            assert (result.completed, [seen.trip.reason for seen in result.attempts[0].observed]) == (
                early,
                ["content.found"],
            )

    run_virtual(main)


def test_an_observing_check_never_ends_an_answer() -> None:
    """What an asynchronous guard in `mode: observe` has enough of is not acted on."""

    @streamguard.guard(reason="house.enough", mode="observe")
    async def enough(view: View) -> Enough:
        return Enough("enough", len(view.text))

    async def main() -> None:
        result = await outcome(script(answer(GOOD)), Policy(json=JSON, guards=[enough]))
        assert (result.completed, result.text) == ("whole", GOOD)

    run_virtual(main)


class Broken:
    """A guard of one's own that raises where it should judge."""

    def __init__(self, at: str, mode: str | None = None) -> None:
        self.name, self.at, self.mode = "broken", at, mode

    def watch(self, ctx: object, now: float) -> BaseWatch:
        if self.at == "watch":
            raise KeyError("limit")
        watch = BaseWatch()
        watch.wants = (Delta,)

        def feed(event: object, now: float) -> None:
            raise KeyError("limit")

        watch.feed = feed  # type: ignore[method-assign]
        return watch


def test_a_guard_that_raises_is_a_typed_error() -> None:
    """A guard of one's own that raises ends the call like any other trip; one that only observes is recorded."""

    async def main() -> None:
        error = await gave_up(script(answer(GOOD)), Policy(guards=[Broken("feed")]))
        assert (error.reason, "KeyError: 'limit'" in str(error)) == ("guard.failed", True)
        result = await outcome(script(answer(GOOD)), Policy(guards=[Broken("feed", "observe")]))
        assert (result.completed, [seen.trip.reason for seen in result.attempts[0].observed]) == (
            "whole",
            ["guard.failed"],
        )
        with pytest.raises(PolicyError, match=r"guard broken cannot begin: its watch\(\) raised KeyError: 'limit'"):
            await streamguard.run(script(answer(GOOD)), policy=Policy(guards=[Broken("watch")]))

    run_virtual(main)


@pytest.mark.parametrize("at", ["open", "message"])
def test_a_source_that_raises_is_a_typed_error(at: str) -> None:
    """Whatever a source of one's own raises, and wherever, the call ends in one error that has its attempts."""

    class Raises:
        request, sees_bytes = None, True

        def __init__(self) -> None:
            self.inner = script(answer(GOOD))

        def open(self, attempt):
            if at == "open":
                raise LookupError("mine")
            return self.opened(attempt)

        @contextlib.asynccontextmanager
        async def opened(self, attempt):
            async with self.inner.open(attempt) as stream:
                yield Stream(stream)

    class Stream:
        def __init__(self, stream) -> None:
            self.stream = stream

        def __aiter__(self):
            return aiter(self.stream)

        def message(self):
            raise LookupError("mine")

    async def main() -> None:
        with pytest.raises(GaveUp) as caught:
            await streamguard.run(Raises(), policy=Policy())
        error = caught.value
        assert (error.reason, len(error.attempts)) == ("source.error", 1)
        assert "the source raised LookupError: mine" in str(error)

    run_virtual(main)


def test_what_others_raise_is_told_without_keys(virtual) -> None:
    """The text of an exception of somebody else's code may hold a credential; records and errors do not."""

    async def main() -> None:
        key = "sk-ant-" + "x" * 20

        @streamguard.guard(reason="house.check")
        def check(view):
            raise ValueError(f"api_key={key}")

        source = [*head(), *deltas("x"), RuntimeError(f"Bearer {key}")]
        for error in (
            await gave_up(script(source), Policy()),
            await gave_up(script([*head(), *deltas(GOOD), *tail()]), Policy(guards=[check])),
        ):
            assert key not in f"{error} {error.record}"
            assert "[redacted]" in str(error)

    virtual(main)

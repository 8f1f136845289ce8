"""One call: what its consumer sees, and consumers that misbehave. In virtual time, on both backends."""

from __future__ import annotations

import anyio
import pytest

import streamguard
from streamguard import (
    Completion,
    GaveUp,
    Interrupted,
    Policy,
    Retry,
    Rule,
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
from streamguard.testing.scripted import script
from streamguard.testing.steps import pause, stall
from tests.engine.calls import AGAIN, BAD, GOOD, JSON, deltas, head, tail


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


@pytest.mark.parametrize(
    ("pieces", "stop", "seconds"),
    [
        (['{"a"', ": 1", "}"], "tool_use", 0),  # whole: it cannot go on
        (["{ }"], "tool_use", 0),
        (["{}"], "tool_use", 30),  # what a call without arguments and one cut before its first character look like
        (['{"a"', ": 1"], "max_tokens", 30),  # cut: it is known when the message says so
    ],
)
@pytest.mark.parametrize("deliver", ["live", "restarting"])
def test_a_whole_input_is_handed_out_with_its_blocks_end(virtual, deliver, pieces, stop, seconds) -> None:
    """What may have been cut waits for what the message says next."""

    async def main() -> None:
        blocks = [
            [Started()],
            [BlockStarted(0, "tool_input", name="t")],
            *[[Delta(0, "tool_input", piece)] for piece in pieces],
            [BlockStopped(0)],
            pause(30),
            [Metered(Usage(output_tokens=5), stop_reason=stop)],
            [Stopped(stop)],
        ]
        policy = Policy(deliver=deliver, completion=Completion(accept=("tool_use", "max_tokens")))
        came: list[float] = []
        began = anyio.current_time()
        async with streamguard.stream(script(blocks, chunk="event"), policy=policy) as events:
            async for event in events:
                if isinstance(event, Delta | BlockStopped):
                    came.append(anyio.current_time() - began)
        assert came == pytest.approx([seconds] * (len(pieces) + 1))
        assert events.outcome.attempts[-1].stop_reason == stop

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

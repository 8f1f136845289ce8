"""Looks at running calls, in virtual time: what they show, and that they touch nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import Policy, Retry, Rule, Runtime, Timeouts
from streamguard.engine.snapshot import CallSnapshot, blocks
from streamguard.events import BlockStarted, BlockStopped, Delta, Metered, Started, Stopped, Usage
from streamguard.guards.timeouts import ClockState
from streamguard.pricing.tokens import weigh
from streamguard.testing import pause, script, stall, status, tool_answer
from streamguard.view.gauge import Gauge

HEAD = Started("m", "model", Usage(input_tokens=7))
THINKING = [BlockStarted(0, "thinking", "thinking"), Delta(0, "thinking", "hm "), Delta(0, "thinking", "hm")]
TEXT = [BlockStopped(0), BlockStarted(1, "text", "text"), Delta(1, "text", "Hello "), Delta(1, "text", "there")]
TOOL = [BlockStopped(1), BlockStarted(2, "tool_input", "tool_use", name="look_up", id="toolu_1")]
END = [BlockStopped(2), Metered(Usage(output_tokens=9), "tool_use"), Stopped("tool_use")]
STORY = [pause(2), status(200), pause(2), HEAD, *THINKING, pause(2), *TEXT, pause(2), *TOOL, pause(2), *END, stall()]


async def looks(
    source: Any, policy: Policy, moments: list[float], act: Callable[[Any], None] | None = None
) -> list[CallSnapshot]:
    """Peeks at a call, at these moments after it began."""
    runtime, seen = Runtime(), []
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            with contextlib.suppress(streamguard.CallError):
                await streamguard.run(source, policy=policy, runtime=runtime, labels={"row": 7}, group="agent")

        tasks.start_soon(call)
        for moment in moments:
            await anyio.sleep_until(moment)
            [running] = runtime.calls.values()
            seen.append(running.snapshot())
            if act is not None:
                act(running)
        tasks.cancel_scope.cancel()
    return seen


def test_states(run_virtual) -> None:
    """A look says what the call does at the moment, from the first wait to the last."""

    async def main() -> None:
        seen = await looks(script(STORY), Policy(timeouts=Timeouts(close_grace=5)), [1, 3, 5, 7, 9, 11])
        assert [one.state for one in seen] == ["connecting", "listening", "thinking", "writing", "calling", "closing"]
        assert [round(one.seconds, 6) for one in seen] == [1, 3, 5, 7, 9, 11]
        last = seen[-1]
        assert (last.labels, last.group, last.attempt, last.attempts) == ({"row": 7}, "agent", 1, 1)
        assert last.usage == Usage(input_tokens=7, output_tokens=9)
        assert [(one.kind, one.name, one.id, "".join(one.pieces)) for one in last.blocks] == [
            ("thinking", None, None, "hm hm"),
            ("text", None, None, "Hello there"),
            ("tool_input", "look_up", "toolu_1", ""),
        ]

    run_virtual(main)


def test_between_attempts(run_virtual) -> None:
    """Between attempts it waits, and the look has the attempts before; a paused runtime keeps it queued."""

    async def main() -> None:
        policy = Policy(retry=Retry(attempts=3, rules=[Rule(when=["*"], wait=10)]))
        [between, second] = await looks(script([HEAD], STORY), policy, [5, 11])
        assert (between.state, between.attempt, between.attempts) == ("waiting", 2, 3)
        assert [one.reason for one in between.before] == ["transport.incomplete"]
        assert (second.state, second.attempt) == ("connecting", 2)
        runtime = Runtime()
        runtime.pause("test")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: streamguard.run(script(STORY), policy=Policy(), runtime=runtime))
            await anyio.sleep(1)
            [call] = runtime.calls.values()
            assert (call.snapshot().state, call.snapshot().clocks, call.snapshot().model) == ("queued", (), None)
            tasks.cancel_scope.cancel()

    run_virtual(main)


def test_interrupted(run_virtual) -> None:
    """An interrupted call is ending, until it is gone."""

    async def main() -> None:
        runtime = Runtime()
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                with pytest.raises(streamguard.Interrupted):
                    await streamguard.run(script(STORY), policy=Policy(), runtime=runtime)

            tasks.start_soon(call)
            await anyio.sleep(5)
            [running] = runtime.calls.values()
            running.interrupt("test")
            assert running.snapshot().state == "ending"
        assert runtime.calls == {}

    run_virtual(main)


@pytest.mark.parametrize(
    ("moment", "clocks"),
    [
        (1, {"first_token": (60, 59), "connect": (10, 9), "attempt": (90, 89), "total": (120, 119)}),
        (3, {"first_token": (60, 57), "attempt": (90, 87), "total": (120, 117)}),
        (5, {"progress_thinking": (300, 299), "attempt": (90, 85), "total": (120, 115)}),
        (7, {"progress": (20, 19), "attempt": (90, 83), "total": (120, 113)}),
        (11, {"total": (120, 109)}),
    ],
)
def test_clocks(run_virtual, moment: float, clocks: dict[str, tuple[float, float]]) -> None:
    """A look shows the clocks that count, with what is left of each; the whole call's is last."""

    async def main() -> None:
        timeouts = Timeouts(first_token_per_1k_input=0, progress=20, alive=30, attempt=90, total=120, close_grace=5)
        [seen] = await looks(script(STORY), Policy(timeouts=timeouts), [moment])
        assert {one.knob: (one.limit, round(one.left, 3)) for one in seen.clocks} == clocks
        assert not any(one.stands for one in seen.clocks)
        assert seen.clocks[-1].knob == "total"

    run_virtual(main)


def test_clocks_that_are_off_or_stand(run_virtual) -> None:
    """Clocks that are off are not shown; while the consumer has its turn, the provider's stand still."""

    async def main() -> None:
        runtime = Runtime()
        policy = Policy(timeouts=Timeouts(connect=None, first_token=None, progress=20, alive=None))
        source = script([HEAD, *THINKING[:1], BlockStopped(0), *TEXT[1:], stall()])
        async with streamguard.stream(source, policy=policy, deliver="live", runtime=runtime) as events:
            async for event in events:
                if event == TEXT[-1]:
                    break
            [call] = runtime.calls.values()
            await anyio.sleep(100)
            assert call.snapshot().clocks == (ClockState(knob="progress", limit=20, left=20.0, stands=True),)

    run_virtual(main)


def test_a_look_touches_nothing(run_virtual) -> None:
    """A call that is looked at all the time ends like one that is not, to the last time and count."""

    async def main() -> None:
        async def outcome(*, looked_at: bool) -> streamguard.Outcome:
            runtime, done = Runtime(), []
            timeouts = Timeouts(progress=6, min_rate={"tokens_per_second": 0.1, "window": 9})
            policy = Policy(timeouts=timeouts, retry=Retry(attempts=2, rules=[Rule(when=["*"], wait=1)]))
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    source = script([HEAD, *THINKING[:1], BlockStopped(0), *TEXT[1:], stall()], STORY[:-1])
                    done.append(await streamguard.run(source, policy=policy, runtime=runtime))
                    tasks.cancel_scope.cancel()

                tasks.start_soon(call)
                while looked_at:
                    await anyio.sleep(0.07)
                    for running in runtime.calls.values():
                        look = running.snapshot()
                        Gauge().weight(look.blocks)
            return done[0]

        plain, watched = await outcome(looked_at=False), await outcome(looked_at=True)
        assert [one.times for one in watched.attempts] == [one.times for one in plain.attempts]
        assert watched.reasons == plain.reasons == ("timeout.progress",)
        assert watched.usage == plain.usage

    run_virtual(main)


def test_a_gauge_weighs_each_piece_once() -> None:
    """However often one looks, the weight is that of all pieces together, each weighed when it was new."""

    class Counted(list):
        read = 0

        def __getitem__(self, index: Any) -> Any:
            got = super().__getitem__(index)
            Counted.read += len(got)
            return got

    from streamguard.guards.transcript import Transcript

    transcript, gauge = Transcript(), Gauge()
    transcript.feed(BlockStarted(0, "text", "text"), 0.0)
    pieces = Counted()
    transcript._pieces[0] = transcript._takers["text"][0] = pieces
    for number in range(50):
        transcript.feed(Delta(0, "text", f"word {number} "), 0.0)
        gauge.weight(blocks(transcript))
        gauge.weight(blocks(transcript))
    assert Counted.read == 50
    assert gauge.weight(blocks(transcript)) == pytest.approx(sum(weigh(piece) for piece in pieces), rel=0.05)


def test_the_requests_own_model(run_virtual) -> None:
    """The model is the request's, as patched for the attempt that runs."""

    async def main() -> None:
        policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["*"], patch={"model": "larger"})]))
        source = script([*tool_answer("t", "{}")[:-1]], STORY)
        [seen] = await looks(source, policy, [3])
        assert (seen.attempt, seen.model) == (2, "larger")

    run_virtual(main)

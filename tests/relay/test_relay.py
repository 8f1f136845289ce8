"""A guarded stream as bytes: in virtual time, on both backends."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import JsonDocument, Policy, Retry, Rule, Runtime, Timeouts
from streamguard.conversation import Conversation
from streamguard.engine.telemetry import CallCompleted, CallGaveUp, CallLeft
from streamguard.relay import Relay
from streamguard.relay.frames import KEEP_ALIVE
from streamguard.testing import answer, pause, repeat, script, stall
from streamguard.testing.scripted import ScriptedSource

GOOD, BAD = '{"total": 12}', '{"total" 12}'
AGAIN = Policy(json=JsonDocument(), retry=Retry(attempts=2, rules=[Rule(when=["*"], wait=3)]))


def events_of(data: bytes) -> list[tuple[str, Any]]:
    """Frames as (event, what matters of its data); comments as (":", None)."""
    found: list[tuple[str, Any]] = []
    for frame in data.split(b"\n\n")[:-1]:
        if frame.startswith(b":"):
            found.append((":", None))
            continue
        said = json.loads(frame.split(b"data: ")[1])
        found.append((said["type"], said.get("text", said.get("reason", said.get("completed")))))
    return found


async def relayed(source: ScriptedSource, policy: Policy, deliver: Any = "restarting", **options: Any) -> list[bytes]:
    """All frames of a call."""
    async with Relay(streamguard.stream(source, policy=policy, deliver=deliver), **options) as relay:
        frames = [frame async for frame in relay]
    assert source.opened == source.closed
    return frames


def joined(events: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The same with neighbouring pieces of text as one."""
    out: list[tuple[str, Any]] = []
    for event, data in events:
        if event == "text" and out and out[-1][0] == "text":
            out[-1] = ("text", out[-1][1] + data)
        else:
            out.append((event, data))
    return out


@pytest.mark.parametrize(
    ("deliver", "told"),
    [
        ("committed", [("text", GOOD), ("done", "whole")]),
        ("restarting", [("text", BAD[:9]), ("restarted", "json.malformed"), ("text", GOOD), ("done", "whole")]),
        ("live", [("text", BAD[:9]), ("error", "json.malformed")]),
    ],
)
def test_deliver(run_virtual, deliver: Any, told: Any) -> None:
    """A browser sees the answer when the delivery says so, and the seam between attempts only where it can be shown."""

    async def main() -> None:
        frames = await relayed(script(answer(BAD, chunk=1), answer(GOOD)), AGAIN, deliver)
        assert joined([one for one in events_of(b"".join(frames)) if one[0] != ":"]) == told

    run_virtual(main)


def test_keep_alive(run_virtual) -> None:
    """While an answer is held back, and between attempts, comments go out in time; something goes out at once."""

    async def main() -> None:
        began = anyio.current_time()
        slow = [pause(20), *answer(GOOD)]
        source = script([pause(8), *answer(BAD)], slow)
        async with Relay(streamguard.stream(source, policy=AGAIN), keep_alive=5) as relay:
            seen = [(round(anyio.current_time() - began, 3), frame) async for frame in relay]
        times = [when for when, frame in seen if frame == KEEP_ALIVE]
        assert times[0] == 0.0
        assert times[1:] == [5, 10, 15, 20, 25, 30]
        assert seen[-1][0] == 31.0

    run_virtual(main)


def test_every_frame_is_whole(run_virtual) -> None:
    """However the provider's stream is cut, each piece that goes out is a number of whole frames."""

    async def main() -> None:
        for chunk in ("whole", "event", "byte", 3):
            source = script(answer("Hello. " * 20), chunk=chunk)
            frames = await relayed(source, Policy())
            assert all(frame.endswith(b"\n\n") for frame in frames)
            assert "".join(text for event, text in events_of(b"".join(frames)) if event == "text") == "Hello. " * 20

    run_virtual(main)


def test_the_reader_leaves(run_virtual) -> None:
    """Leaving early ends the call at once, in whatever state: it is closed, settled and on record as left."""

    async def main() -> None:
        endless = script([*answer("Hello.")[:-3], repeat(answer("so on ")[2:3])])
        for source, policy, deliver, wait in (
            (script([stall()]), Policy(), "live", 1),  # no head
            (script([*answer("Hello.")[:-3], stall()]), Policy(), "live", 1),  # silence
            (endless, Policy(), "live", 0),
            (script(answer(BAD)), AGAIN, "committed", 2),  # between attempts
        ):
            records: list[Any] = []
            runtime = Runtime(hooks=[records.append])
            events = streamguard.stream(source, policy=policy, deliver=deliver, runtime=runtime)
            began = anyio.current_time()
            async with Relay(events) as relay:
                await anext(relay)
                await anyio.sleep(wait)
            assert anyio.current_time() - began == pytest.approx(wait, abs=0.05)
            assert source.opened == source.closed
            over = [type(record) for record in records if isinstance(record, CallGaveUp | CallCompleted | CallLeft)]
            assert over == [CallLeft]

    run_virtual(main)


def test_a_cancelled_reader(run_virtual) -> None:
    """A reader that is cancelled leaves nothing open either."""

    async def main() -> None:
        source = script([*answer("Hello.")[:-3], stall()])
        with anyio.move_on_after(2):
            async with Relay(streamguard.stream(source, policy=Policy(), deliver="live")) as relay:
                async for _ in relay:
                    pass
        assert anyio.current_time() == pytest.approx(2, abs=0.05)
        assert (source.opened, source.closed) == (1, 1)

    run_virtual(main)


def test_a_slow_reader(run_virtual) -> None:
    """A reader that takes its time trips no clock of the provider's, and nothing piles up meanwhile."""

    async def main() -> None:
        source = script(answer("0123456789" * 5, chunk=10), chunk="event")
        policy = Policy(timeouts=Timeouts(progress=1, alive=1, first_token=1))
        text = b""
        async with Relay(streamguard.stream(source, policy=policy, deliver="live")) as relay:
            async for frames in relay:
                text += frames
                await anyio.sleep(30)
                sent = source.exchanges[0].deltas_sent
                assert sent - text.count(b"event: text") <= 2
        assert joined(events_of(text))[-2:] == [("text", "0123456789" * 5), ("done", "whole")]

    run_virtual(main)


def test_errors(run_virtual) -> None:
    """Every end of a call is told as one last event, and the iteration ends in good order."""

    async def main() -> None:
        late = Policy(timeouts=Timeouts(total=5))
        assert events_of(b"".join(await relayed(script([stall()]), late)))[-1] == ("error", "timeout.total")
        broken = await relayed(script(answer("x")[:-1]), Policy())
        assert events_of(b"".join(broken))[-1] == ("error", "transport.incomplete")

    run_virtual(main)


def test_on_outcome(run_virtual) -> None:
    """The outcome is handed over before the browser hears of the end, by a plain or an asynchronous function."""

    async def main() -> None:
        conversation = Conversation(model="m", max_tokens=9).user("Hi")

        def source() -> ScriptedSource:
            return script(answer("Hello."), request=conversation.request(), messages=True)

        await relayed(source(), Policy(), on_outcome=conversation.commit)
        assert [turn["role"] for turn in conversation.messages] == ["user", "assistant"]
        order = []

        async def save(outcome: streamguard.Outcome) -> None:
            await anyio.sleep(1)
            order.append(outcome.text)

        async with Relay(streamguard.stream(script(answer("Hello.")), policy=Policy()), on_outcome=save) as relay:
            async for frames in relay:
                if b"event: done" in frames:
                    order.append("done")
        assert order == ["Hello.", "done"]

    run_virtual(main)


def test_on_outcome_raises(run_virtual) -> None:
    """What the application itself does wrong is an error for the browser, without a word of it, and raised here."""

    async def main() -> None:
        def fail(outcome: streamguard.Outcome) -> None:
            raise KeyError("secret")

        source, seen = script(answer("Hello.")), b""
        async with Relay(streamguard.stream(source, policy=Policy(), deliver="live"), on_outcome=fail) as relay:
            with pytest.raises(KeyError, match="secret"):
                async for frames in relay:
                    seen += frames
        assert events_of(seen)[-1] == ("error", "internal")
        assert b"secret" not in seen

    run_virtual(main)


@pytest.mark.parametrize("before", [0, 2])
def test_an_answer_is_saved_though_nobody_reads_it(run_virtual, before: float) -> None:
    """An answer that stands is handed over even if its reader has left, before or while it is saved."""

    async def main() -> None:
        saved = []

        async def save(outcome: streamguard.Outcome) -> None:
            await anyio.sleep(5)
            saved.append(outcome.text)

        events = streamguard.stream(script(answer("Hello.")), policy=Policy(), deliver="committed")
        async with Relay(events, on_outcome=save) as relay:
            await anext(relay)  # then the text is on its way, and waits for its reader
            await anyio.sleep(1)
            if before:
                await anext(relay)
                await anyio.sleep(before)
        assert saved == ["Hello."]

    run_virtual(main)


def test_a_policy_that_does_not_fit(run_virtual) -> None:
    """A mistake that shows only when the call begins is told in general, and raised."""

    async def main() -> None:
        policy = Policy(json=JsonDocument(schema="request"))
        seen = b""
        async with Relay(streamguard.stream(script(answer("x")), policy=policy)) as relay:
            with pytest.raises(streamguard.PolicyError):
                async for frames in relay:
                    seen += frames
        assert events_of(seen) == [(":", None), ("error", "internal")]

    run_virtual(main)


def test_misuse(run_virtual) -> None:
    """Parameters are checked before anything is asked."""

    async def main() -> None:
        source = script(answer("x"))
        with pytest.raises(ValueError, match="keep_alive is a number of seconds above 0"):
            Relay(streamguard.stream(source, policy=Policy()), keep_alive=0)
        assert source.opened == 0

    run_virtual(main)

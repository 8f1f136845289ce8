"""Coming back to a call: in virtual time, on both backends."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import Policy, Runtime, relay
from streamguard.engine.telemetry import CallLeft
from streamguard.relay import Rejoin, Relay
from streamguard.relay.frames import KEEP_ALIVE
from streamguard.testing import answer, pause, script, stall
from tests.relay.test_response import Client

TEXT = "Hello there, and welcome."


def slow(text: str = TEXT) -> list[Any]:
    """An answer of four characters a second."""
    return [part for event in answer(text) for part in (event, pause(1))]


def read(data: bytes) -> tuple[list[int], str, list[str]]:
    """The ids of frames, the text they add up to, and the events that are no text."""
    ids, text, others = [], "", []
    for frame in data.split(b"\n\n")[:-1]:
        if not frame.startswith(b":"):
            ident, event, body = frame.decode().split("\n")
            ids.append(int(ident.rpartition(":")[2]))
            if event == "event: text":
                text += json.loads(body.removeprefix("data: "))["text"]
            else:
                others.append(event.removeprefix("event: "))
    return ids, text, others


def last_id(data: bytes) -> bytes:
    return [line for line in data.split(b"\n") if line.startswith(b"id: ")][-1].removeprefix(b"id: ")


async def visit(made: Any, client: Client, seconds: float) -> None:
    """Be there for a while, then go."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made, client.scope, client.receive, client.send)
        await anyio.sleep(seconds)
        client.gone.set()


def events(source: Any, runtime: Runtime | None = None) -> streamguard.GuardedStream:
    return streamguard.stream(source, policy=Policy(), deliver="restarting", runtime=runtime)


def test_there_and_back(run_virtual) -> None:
    """A browser that comes back in time gets what it missed and the rest, each frame once; the provider is asked once."""

    async def main() -> None:
        source, seen = script(slow()), b""
        async with Rejoin(linger=5) as rejoin:
            first = Client()
            await visit(relay.response(events(source), rejoin=rejoin), first, 5)
            seen += first.body
            await anyio.sleep(3)
            while b"event: done" not in seen:
                again = Client(headers=[(b"last-event-id", last_id(seen))])
                await visit(relay.response(events(source), rejoin=rejoin), again, 4)
                assert again.sent[0]["status"] == 200
                seen += again.body
        ids, text, others = read(seen)
        assert ids == list(range(1, len(ids) + 1))
        assert (text, others) == (TEXT, ["done"])
        assert (source.opened, source.closed) == (1, 1)

    run_virtual(main)


def test_after_the_end(run_virtual) -> None:
    """Whoever was away at the end gets the end, for as long as it is kept; who has it all is told to stop asking."""

    async def main() -> None:
        source = script(slow("Hi"))
        async with Rejoin(linger=30, keep=60) as rejoin:
            client = Client()
            await visit(relay.response(events(source), rejoin=rejoin), client, 3)
            await anyio.sleep(20)
            for seconds, ids in ((0, [2]), (20, [2]), (50, None)):
                await anyio.sleep(seconds)
                again = Client(headers=[(b"last-event-id", last_id(client.body))])
                await visit(relay.response(events(source), rejoin=rejoin), again, 1)
                assert again.sent[0]["status"] == (204 if ids is None else 200)
                assert read(again.body)[0] == (ids or [])
            whole = Client()
            await visit(relay.response(events(script(answer("Hi"))), rejoin=rejoin), whole, 1)
            again = Client(headers=[(b"last-event-id", last_id(whole.body))])
            await visit(relay.response(events(source), rejoin=rejoin), again, 1)
            assert again.sent[0]["status"] == 204
        assert source.opened == 1

    run_virtual(main)


@pytest.mark.parametrize(
    "position", ["99999999999", "999999999999999999999", "-1", "0x1", "1e3", "", "\u0661", "1 ", "+1", "1_0"]
)
def test_positions_that_nobody_was_told(run_virtual, position: str) -> None:
    """Nobody waits for frames behind those that there are, and what is no number is none."""

    async def main() -> None:
        source = script([*answer("Hello")[:-3], stall()])
        async with Rejoin(linger=5) as rejoin:
            client = Client()
            await visit(relay.response(events(source), rejoin=rejoin), client, 1)
            name = last_id(client.body).rpartition(b":")[0].decode()
            for last in (f"{name}:{position}", position):
                assert rejoin.back(last, owner=None, keep_alive=1) is None

    run_virtual(main)


def test_what_is_kept_for_a_browser_has_a_bound(run_virtual, caplog: pytest.LogCaptureFixture) -> None:
    """An answer without end, and a browser that does not read: the call is ended, whoever follows is told."""

    async def main() -> None:
        source, seen = script([*answer("x" * 40_000)[:-3], stall()]), b""
        async with Rejoin(linger=500, most_bytes=100_000) as rejoin:
            made = Relay(events(source), keep_alive=5)
            async with rejoin.begin(made, owner=None, keep_alive=5) as following:
                await anyio.sleep(10)  # reads nothing
                line = rejoin._lines[made.id]
                assert (line.over, sum(map(len, line.frames)) < 101_000) == (True, True)
                seen = b"".join([piece async for piece in following])
        assert read(seen)[2] == ["error"]
        assert source.closed == 1

    run_virtual(main)
    assert ["most_bytes" in record.getMessage() for record in caplog.records] == [True]


def test_nobody_comes_back(run_virtual) -> None:
    """A call that nobody comes back to is ended after `linger`, and is on record as left."""

    async def main() -> None:
        source, records = script([*answer("Hello")[:-3], stall()]), []
        async with Rejoin(linger=5) as rejoin:
            client = Client()
            runtime = Runtime(hooks=[records.append])
            await visit(relay.response(events(source, runtime), rejoin=rejoin), client, 2)
            assert source.closed == 0
            await anyio.sleep(4.9)
            assert source.closed == 0
            await anyio.sleep(0.2)
            assert source.closed == 1
            again = Client(headers=[(b"last-event-id", last_id(client.body))])
            await visit(relay.response(events(source), rejoin=rejoin), again, 1)
            assert again.sent[0]["status"] == 204
        assert sum(isinstance(record, CallLeft) for record in records) == 1

    run_virtual(main)


def test_two_at_once(run_virtual) -> None:
    """Two connections of the same browser see the same; the call lives while one of them does."""

    async def main() -> None:
        source = script(slow())
        async with Rejoin(linger=1) as rejoin, anyio.create_task_group() as tasks:
            first, second = Client(), Client()
            tasks.start_soon(visit, relay.response(events(source), rejoin=rejoin), first, 4)
            await anyio.sleep(3)
            second.scope["headers"] = [(b"last-event-id", last_id(first.body))]
            tasks.start_soon(visit, relay.response(events(source), rejoin=rejoin), second, 60)
        assert read(second.body)[2] == ["done"]
        assert TEXT.endswith(read(second.body)[1])

    run_virtual(main)


@pytest.mark.parametrize(
    "back",
    [b"", b":", b"x:1", b"{id}:", b"{id}:x", b"{id}:-1", b"{id}:\xb2", b"{id}:999999999999999", b"{id}", b"{id}x:1"],
)
def test_who_may_not_come_back(run_virtual, back: bytes) -> None:
    """An id that is none, or of a call that is not known, is answered with 204, and nothing is asked."""

    async def main() -> None:
        source = script([*answer("Hello")[:-3], stall()])
        async with Rejoin() as rejoin:
            client = Client()
            await visit(relay.response(events(source), rejoin=rejoin), client, 2)
            ident = last_id(client.body).rpartition(b":")[0]
            again = Client(headers=[(b"last-event-id", back.replace(b"{id}", ident))])
            await visit(relay.response(events(source), rejoin=rejoin), again, 1)
            assert (again.sent[0]["status"], again.body) == (204, b"")
            assert source.opened == 1

    run_virtual(main)


@pytest.mark.parametrize(
    ("asks", "comes", "status"), [("ada", "ada", 200), ("ada", "bob", 204), ("ada", None, 204), (None, "bob", 204)]
)
def test_whose_it_is(run_virtual, asks: str | None, comes: str | None, status: int) -> None:
    """A call is its owner's alone, even if its id has leaked."""

    async def main() -> None:
        source = script([*answer("Hello")[:-3], stall()])
        async with Rejoin() as rejoin:
            client = Client()
            await visit(relay.response(events(source), rejoin=rejoin, owner=asks), client, 2)
            again = Client(headers=[(b"last-event-id", last_id(client.body))])
            await visit(relay.response(events(source), rejoin=rejoin, owner=comes), again, 1)
            assert again.sent[0]["status"] == status

    run_virtual(main)


def test_beyond_the_end(run_virtual) -> None:
    """A number larger than any frame's waits for what is to come, and repeats nothing."""

    async def main() -> None:
        source = script(slow("Hi"))
        async with Rejoin(linger=5) as rejoin:
            client = Client()
            await visit(relay.response(events(source), rejoin=rejoin), client, 3)
            ident = last_id(client.body).rpartition(b":")[0]
            again = Client(headers=[(b"last-event-id", ident + b":99")])
            await visit(relay.response(events(source), rejoin=rejoin), again, 20)
            assert read(again.body)[0] == []
            assert again.sent[-1] == {"type": "http.response.body", "body": b""}

    run_virtual(main)


def test_keep_alive(run_virtual) -> None:
    """Who waits gets comments, at once and then in time."""

    async def main() -> None:
        async with Rejoin() as rejoin:
            client = Client()
            await visit(relay.response(events(script([stall()])), rejoin=rejoin, keep_alive=5), client, 16)
            assert client.body == KEEP_ALIVE * 4

    run_virtual(main)


def test_what_is_kept_is_bounded(run_virtual) -> None:
    """Of very many calls the oldest that are over are forgotten; those that run never are."""

    async def main() -> None:
        async with Rejoin(most=5, keep=9999, linger=9999) as rejoin:
            running = Client()
            await visit(relay.response(events(script([*answer("Hello")[:-3], stall()])), rejoin=rejoin), running, 1)
            for _ in range(20):
                await visit(relay.response(events(script(answer("Hi"))), rejoin=rejoin), Client(), 1)
            assert len(rejoin._lines) <= 5
            again = Client(headers=[(b"last-event-id", last_id(running.body))])
            await visit(relay.response(events(script(answer("x"))), rejoin=rejoin), again, 1)
            assert again.sent[0]["status"] == 200

    run_virtual(main)


def test_leaving(run_virtual) -> None:
    """When the application ends, the calls that still run end with it."""

    async def main() -> None:
        source = script([*answer("Hello")[:-3], stall()])
        async with Rejoin(linger=9999) as rejoin:
            await visit(relay.response(events(source), rejoin=rejoin), Client(), 2)
            assert source.closed == 0
        assert source.closed == 1
        assert anyio.current_time() == pytest.approx(2, abs=0.1)
        with pytest.raises(RuntimeError, match="enter the Rejoin first"):
            rejoin.begin(Relay(events(source)), owner=None, keep_alive=5)

    run_virtual(main)


def test_the_applications_own_mistake(run_virtual, caplog: pytest.LogCaptureFixture) -> None:
    """What the application raises ends its call alone: it is logged, and the browser is told in general."""

    async def main() -> None:
        def fail(outcome: streamguard.Outcome) -> None:
            raise KeyError("secret")

        async with Rejoin() as rejoin:
            client = Client()
            made = relay.response(events(script(answer("Hi"))), rejoin=rejoin, on_outcome=fail)
            await visit(made, client, 1)
            assert b'"reason":"internal"' in client.body
            other = Client()
            await visit(relay.response(events(script(answer("Hi"))), rejoin=rejoin), other, 1)
            assert read(other.body)[2] == ["done"]

    with caplog.at_level(logging.ERROR):
        run_virtual(main)
    assert "own application raised" in caplog.text


def test_misuse(run_virtual) -> None:
    """Without ids there is nothing to come back with."""

    async def main() -> None:
        async with Rejoin() as rejoin:
            with pytest.raises(ValueError, match="rejoin needs the style named"):
                relay.response(events(script(answer("x"))), style="data", rejoin=rejoin)

    run_virtual(main)

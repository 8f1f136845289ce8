"""Marked answers at the doors for other programs: the proxy, the client's middleware, replay, the view, telemetry."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import anyio
import pytest

import streamguard
from streamguard import Check, GuardMiddleware, JsonDocument, Outcome, Policy, Retry, Rule, Runtime
from streamguard.engine.telemetry import CallCompleted
from streamguard.engine.telemetry_structlog import structlog_hook
from streamguard.relay.frames import Frames
from streamguard.replay.recording import Recording
from streamguard.replay.rerun import ObservedTrip, replay
from streamguard.testing import ScriptedServer, answer, pause, script, wire
from streamguard.view.board import Board
from tests.proxy.running import REQUEST, TOTAL, Running, with_proxy

ODD = '{"n": 3}'
KEEP = Rule(when="check.*", max_uses=1, accept="marked")
POLICY = Policy(
    json=JsonDocument(),
    checks=[Check(reason="check.even", that="doc.n % 2 == 0", say="{doc.n} is odd")],
    timeouts=TOTAL,
    deliver="committed",
    retry=Retry(attempts=3, rules=[KEEP]),
)
STREAM = wire.text_stream(ODD)


@pytest.mark.parametrize("stream", [True, False])
def test_the_proxy_delivers_it_and_says_so(stream: bool) -> None:
    """The answer is the upstream's own, and a header has the reasons."""

    async def test(running: Running) -> None:
        response = await running.ask(stream=stream)
        assert response.status_code == 200
        told = {
            name: response.headers[f"x-streamguard-{name}"] for name in ("attempts", "completed", "marked", "reason")
        }
        assert told == {"attempts": "2", "completed": "whole", "marked": "check.even", "reason": "check.even"}
        if stream:
            assert response.content == b"".join(STREAM)
        else:
            assert response.json()["content"] == [{"type": "text", "text": ODD}]
        metrics = running.proxy.metrics.exposition("")[1].decode()
        assert 'streamguard_calls_total{client="local",end="marked",policy="default"} 1.0' in metrics

    with_proxy([STREAM, STREAM], test, POLICY)


def test_a_live_stream_says_so_at_its_end() -> None:
    """Its head has gone before the check failed: a comment has what a header would have."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert response.content.startswith(b"".join(STREAM))
        assert b": x-streamguard-marked: check.even\n" in response.content
        assert len(running.upstream.requests) == 1

    with_proxy([[*STREAM[:4], pause(0.05), *STREAM[4:]]], test, POLICY.replace(deliver="live"))


@pytest.mark.parametrize("stream", [True, False])
def test_behind_a_client(stream: bool) -> None:
    """The caller of the SDK gets the answer; the telemetry of its runtime has the mark."""
    seen: list[Any] = []

    async def main() -> tuple[str, int]:
        async with ScriptedServer(STREAM, STREAM) as server:
            middleware = [GuardMiddleware(POLICY, deliver="committed", runtime=Runtime(hooks=[seen.append]))]
            async with anthropic.AsyncAnthropic(
                api_key="k", base_url=server.url, middleware=middleware, max_retries=0
            ) as client:
                if stream:
                    async with client.messages.stream(**REQUEST) as events:
                        text = await events.get_final_text()
                else:
                    message = await client.messages.create(**REQUEST)
                    text = message.content[0].text  # type: ignore[union-attr]  # a text block
                return text, len(server.requests)

    assert anyio.run(main) == (ODD, 2)
    [completed] = [record for record in seen if isinstance(record, CallCompleted)]
    assert [mark.reason for mark in completed.outcome.marked] == ["check.even"]


def outcome(*hooks: Any, runtime: Runtime | None = None) -> Outcome:
    async def main() -> Outcome:
        return await streamguard.run(
            script(answer(ODD), answer(ODD), request=REQUEST), policy=POLICY, runtime=runtime or Runtime(hooks=hooks)
        )

    return anyio.run(main)


def test_telemetry_and_relay() -> None:
    """Both name the reasons of the marks."""
    entries: list[tuple[str, Any]] = []

    class Log:
        def __getattr__(self, level: str) -> Any:
            return lambda event, **fields: entries.append((event, fields.get("marked")))

    made = outcome(structlog_hook(Log()))
    assert entries[-1] == ("streamguard.completed", ["check.even"])
    frame = Frames(include=()).done(made).decode()
    assert '"marked":["check.even"]' in frame.replace(" ", "")


def test_the_view() -> None:
    """The row of a finished call, and its attempts, have the marks."""
    runtime = Runtime()
    board = Board(runtime)
    outcome(runtime=runtime)
    [(name, row)] = board.overview()["finished"].items()
    assert (row["completed"], row["marked"]) == ("whole", ["check.even"])
    marks = [attempt["marked"] for attempt in board.detail(name)["attempts"].values()]
    assert marks == [[], [{"reason": "check.even", "message": "3 is odd (at character 7, in /n)"}]]


@pytest.mark.parametrize("uses", [0, 1])
def test_a_recording_is_a_first_attempt(uses: int) -> None:
    """It is kept where the policy would not ask again after the first attempt; else it trips."""
    rule = KEEP.replace(max_uses=uses)
    found = replay(Recording(file="a", data=b"".join(STREAM)), POLICY.replace(retry=Retry(attempts=3, rules=[rule])))
    mark = ObservedTrip(reason="check.even", pointer="/n", char=7, event=3)
    expected = ("check.even", None, ()) if uses else (None, "whole", (mark,))
    assert (found.reason, found.completed, tuple(map(_place, found.marked))) == (
        expected[0],
        expected[1],
        tuple(map(_place, expected[2])),
    )


def _place(mark: ObservedTrip) -> tuple[Any, ...]:
    return mark.reason, mark.pointer, mark.char


def test_json_of_a_mark() -> None:
    """What is marked is plain data."""
    assert json.loads(ODD) == outcome().value

"""What providers and networks do to a call: one table of scenarios, in memory by a virtual clock and over real sockets.

A scenario is written in units of time, so that the same clocks run for minutes in one driver and for tens of
milliseconds in the other. Over sockets the server has to see the connection end within 50 ms of an abort.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import pytest

import streamguard
from streamguard import CallError, JsonDocument, Outcome, Policy, Timeouts
from streamguard.guards.timeouts import MinRate
from streamguard.testing import (
    BACKENDS,
    Item,
    ScriptedServer,
    drip,
    error,
    omit_last_chunk,
    pause,
    repeat,
    rst,
    run_virtual,
    script,
    stall,
    status,
    wire,
)
from tests.clients import plain_client

TEXT = '{"total": 12, "lines": ["a", "b"]}'
HALF = TEXT[:16]
VALUE = {"total": 12, "lines": ["a", "b"]}
WHOLE = wire.text_stream(TEXT)
STARTED = WHOLE[:3]
PARTIAL = [*STARTED, *map(wire.text_delta, wire.pieces(HALF, 4))]
THINKING = [wire.message_start(), wire.block_start(0, "thinking")]
THOUGHT = [
    wire.signature_delta(),
    wire.block_stop(0),
    wire.block_start(1),
    wire.text_delta(TEXT, 1),
    wire.block_stop(1),
    wire.message_delta(),
    wire.message_stop(),
]


class Scenario(NamedTuple):
    name: str
    items: Callable[[float], list[Item]]
    """What the provider does, by the unit of time."""
    ends: str
    """How the answer was completed, or the reason why it was not."""
    text: str = ""
    """What had come of it."""
    clocks: Callable[[float], dict[str, Any]] = lambda unit: {}
    """Clocks that differ from the usual ones."""
    knob: str | None = None
    at: float | None = None
    """When the call ends, in units; at once if nothing is said."""


def usual(unit: float) -> dict[str, Any]:
    return {
        "connect": 3 * unit,
        "first_token": 4 * unit,
        "first_token_per_1k_input": 0,
        "progress": 2 * unit,
        "progress_thinking": 50 * unit,
        "alive": None,
        "close_grace": unit,
    }


def pings(unit: float, units: float | None = None) -> Item:
    return repeat([pause(unit / 4), wire.ping()], None if units is None else round(4 * units))


SCENARIOS = [
    Scenario("no response head", lambda u: [stall(), status()], "timeout.connect", knob="timeouts.connect", at=3),
    Scenario("nothing after the head", lambda u: [status(), stall()], "timeout.first_token", knob="timeouts.first_token", at=4),
    Scenario("only pings from the start", lambda u: [*STARTED, pings(u)], "timeout.first_token", knob="timeouts.first_token", at=4),
    Scenario("a stall", lambda u: [*PARTIAL, stall()], "timeout.progress", HALF, knob="timeouts.progress", at=2),
    Scenario("a dead line", lambda u: [*PARTIAL, wire.ping(), stall()], "timeout.alive", HALF,
             lambda u: {"alive": u, "progress": None}, "timeouts.alive", 1),
    Scenario("ping-only silence", lambda u: [*PARTIAL, pings(u)], "timeout.progress", HALF,
             lambda u: {"alive": 2 * u}, "timeouts.progress", 2),
    Scenario("a slow drip of bytes", lambda u: [*STARTED, drip(440 / u), repeat(wire.text_delta("x"))], "timeout.attempt", "x*",
             lambda u: {"attempt": 5 * u, "progress": 4 * u}, "timeouts.attempt", 5),
    Scenario("a slow drip of output", lambda u: [*STARTED, repeat([wire.text_delta("x "), pause(u / 2)])], "timeout.min_rate", "x*",
             lambda u: {"min_rate": MinRate(tokens_per_second=100 / u, window=2 * u)}, "timeouts.min_rate", 2),
    Scenario("silent thinking with pings", lambda u: [*THINKING, pings(u, 3), *THOUGHT], "whole", TEXT, at=3),
    Scenario("thinking that never ends", lambda u: [*THINKING, pings(u)], "timeout.progress", "",
             lambda u: {"progress_thinking": 3 * u}, "timeouts.progress_thinking", 3),
    Scenario("a missing message_stop", lambda u: WHOLE[:-1], "transport.incomplete", TEXT),
    Scenario("a last frame without its blank line", lambda u: [*WHOLE[:-1], WHOLE[-1][:-1]], "transport.incomplete", TEXT),
    Scenario("an empty body", lambda u: [status()], "transport.incomplete"),
    Scenario("a body cut in mid-frame", lambda u: [*PARTIAL, WHOLE[9][:30], omit_last_chunk()], "transport.reset", HALF),
    Scenario("a reset", lambda u: [*PARTIAL, pause(u / 2), rst()], "transport.reset", HALF, at=0.5),
    Scenario("an open socket after message_stop", lambda u: [*WHOLE, stall()], "whole", TEXT, at=1),
    Scenario("pings after message_stop", lambda u: [*WHOLE, pings(u)], "whole", TEXT, at=1),
    Scenario("a reset after message_stop", lambda u: [*WHOLE, pause(u / 2), rst()], "whole", TEXT, at=0.5),
    Scenario("no last chunk after message_stop", lambda u: [*WHOLE, omit_last_chunk()], "whole", TEXT),
    Scenario("an error after message_stop", lambda u: [*WHOLE, pause(u / 2), wire.error()], "whole", TEXT, at=0.5),
    Scenario("a second message after message_stop", lambda u: [*WHOLE, *WHOLE], "whole", TEXT),
    Scenario("an error inside a 200", lambda u: [*PARTIAL, wire.error()], "provider.overloaded", HALF),
    Scenario("an error status", lambda u: [error("overloaded_error")], "provider.overloaded"),
    Scenario("a refusal", lambda u: wire.text_stream("I cannot", stop_reason="refusal"), "stop.refusal", "I cannot",
             knob="completion.accept"),
    Scenario("a truncation", lambda u: wire.text_stream(HALF, stop_reason="max_tokens"), "stop.max_tokens", HALF,
             knob="completion.accept"),
    Scenario("a good answer", lambda u: WHOLE, "whole", TEXT),
]  # fmt: skip


def policy(scenario: Scenario, unit: float) -> Policy:
    needs_json = scenario.ends == "whole"
    return Policy(
        timeouts=Timeouts(**{**usual(unit), **scenario.clocks(unit)}), json=JsonDocument() if needs_json else None
    )


async def called(source: Any, policy: Policy) -> Outcome | CallError:
    try:
        return await streamguard.run(source, policy=policy)
    except CallError as failure:
        return failure


def check(scenario: Scenario, result: Outcome | CallError) -> None:
    """Everything but the time."""
    record = result if isinstance(result, Outcome) else result.record
    (attempt,) = record.attempts
    text = attempt.text
    if scenario.text.endswith("*"):
        text = "x*" if len(text) > 2 and not text.replace(" ", "").strip("x") else text
    ends = result.completed if isinstance(result, Outcome) else result.reason
    knob = attempt.ended.knob if attempt.ended else None
    assert (ends, knob, text) == (scenario.ends, scenario.knob, scenario.text)
    if isinstance(result, Outcome):
        assert (result.value, result.text, result.usage.exact) == (VALUE, TEXT, True)
    else:
        assert (str(result).startswith(f"gave up after the first attempt: {ends}: "), attempt.completed) == (True, None)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_in_virtual_time(scenario: Scenario, backend: Any) -> None:
    """In memory, with clocks of minutes: the right end at the very moment, nothing left open."""
    unit = 30.0

    async def main() -> None:
        source = script(scenario.items(unit))
        result = await called(source, policy(scenario, unit))
        check(scenario, result)
        assert anyio.current_time() == pytest.approx((scenario.at or 0) * unit, abs=0.01)
        assert source.opened == source.closed == 1

    run_virtual(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_over_sockets(scenario: Scenario, backend: Any) -> None:
    """Through the SDK's client, with clocks of tens of milliseconds: the same end, and a server that knows of it."""
    unit = 0.04

    async def main() -> None:
        async with (
            ScriptedServer(scenario.items(unit)) as server,
            plain_client(server.url) as client,
        ):
            source = streamguard.messages(
                client, model=wire.MODEL, max_tokens=64, messages=[{"role": "user", "content": "Extract."}]
            )
            result = await called(source, policy(scenario, unit))
            if scenario.name == "no response head":
                check(scenario._replace(ends="timeout.first_token", knob="timeouts.first_token", at=4), result)
                return
            over = time.monotonic()
            check(scenario, result)
            (exchange,) = server.exchanges
            with anyio.fail_after(5):
                while exchange.open:  # noqa: ASYNC110  what the server writes down has no event
                    await anyio.sleep(0.001)
            if not exchange.complete and exchange.disconnected_monotonic is not None:
                assert exchange.disconnected_monotonic - over < 0.05
            elif not exchange.complete:
                assert scenario.name.startswith(("a reset", "a body cut"))
        record = result if isinstance(result, Outcome) else result.record
        # The client's own source ends `connect` with the connection; a head that is late is `first_token`'s.
        assert (scenario.at or 0) * unit - 0.01 <= record.seconds < (scenario.at or 0) * unit + 2

    anyio.run(main, backend=backend)

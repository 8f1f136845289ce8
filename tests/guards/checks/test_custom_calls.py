"""Whole calls under checks of one's own, plain and asynchronous, on both backends in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import CallError, JsonDocument, Outcome, Policy, Retry, Rule, Timeouts
from streamguard.events import Delta
from streamguard.guards.checks.custom import CustomCheck
from streamguard.testing import scripted
from streamguard.testing.clock import BACKENDS, run_virtual

RIGHT = json.dumps({"lines": [{"sku": "a", "amount": 1}, {"sku": "b", "amount": 2.5}], "total": 3.5, "note": "x" * 40})
WRONG = RIGHT.replace("3.5", "4")
UNKNOWN = RIGHT.replace('"b"', '"z"')


@streamguard.check(needs=["/total", "/lines"], reason="house.total")
def adds_up(total: Decimal, lines: list[dict[str, Any]]) -> bool:
    """An exact sum."""
    return total == sum(line["amount"] for line in lines)


@streamguard.check(needs=["/lines/*/sku"], reason="house.sku")
async def known(sku: str) -> str | None:
    """A look-up that takes a while."""
    await anyio.sleep(0.5)
    return None if sku in "ab" else f"there is no article {sku}"


@pytest.fixture(params=BACKENDS)
def virtual(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run an async function in virtual time on one backend."""
    return lambda fn: run_virtual(fn, backend=request.param)


def policy(*checks: CustomCheck, attempts: int = 2, **options: Any) -> Policy:
    """Ask again for whatever these checks refuse."""
    rules = [Rule(when=["house.*"])] if attempts > 1 else []
    return Policy(json=JsonDocument(), checks=checks, retry=Retry(attempts=attempts, rules=rules), **options)


@pytest.mark.parametrize(("wrong", "reason"), [(WRONG, "house.total"), (UNKNOWN, "house.sku")])
def test_a_refused_answer_is_asked_for_again(virtual: Callable[..., Any], wrong: str, reason: str) -> None:
    """The first answer ends where the check says no, and the second one stands."""

    async def run() -> Outcome[Any]:
        source = scripted.script(scripted.answer(wrong), scripted.answer(RIGHT))
        return await streamguard.run(source, policy=policy(adds_up, known))

    outcome = virtual(run)
    assert (outcome.value["total"], outcome.reasons) == (3.5, (reason,))
    assert len(outcome.attempts[0].text) < len(wrong)


def test_the_same_twice_is_said(virtual: Callable[..., Any]) -> None:
    """The error has the words, the values, and that the source may be wrong."""

    async def run() -> CallError:
        with pytest.raises(CallError) as caught:
            await streamguard.run(
                scripted.script(scripted.answer(WRONG), scripted.answer(WRONG)), policy=policy(adds_up)
            )
        return caught.value

    error = virtual(run)
    assert "adds_up does not hold: /total is 4, /lines is an array of 2 (at character" in str(error)
    assert "the source itself may be wrong" in error.record.attempts[-1].decision.why


def test_observed_checks_are_recorded(virtual: Callable[..., Any]) -> None:
    """Both kinds, once each; the answer stands."""
    made = [
        streamguard.check(needs=one.needs, reason=one.reason, mode="observe", name=one.name)(one.function)
        for one in (adds_up, known)
    ]
    wrong = UNKNOWN.replace("3.5", "4")

    async def run() -> Outcome[Any]:
        return await streamguard.run(scripted.script(scripted.answer(wrong)), policy=policy(*made, attempts=1))

    outcome = virtual(run)
    assert outcome.value["total"] == 4
    observed = [(one.trip.reason, one.trip.guard) for one in outcome.attempts[0].observed]
    assert sorted(observed) == [("house.sku", "known"), ("house.total", "adds_up")]


@pytest.mark.parametrize("waits", [False, True], ids=["plain", "async"])
def test_a_check_that_raises_is_told_in_its_words(virtual: Callable[..., Any], waits: bool) -> None:
    """No traceback, and nothing is let pass: the reason, the function, its words without keys."""
    key = "sk-ant-" + "x" * 20

    def broken(total: Decimal) -> None:
        raise LookupError(f"no such total, api_key={key}")

    async def later(total: Decimal) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 9)
            broken(total)

    made = streamguard.check(needs=["/total"], reason="house.x", name="broken")(later if waits else broken)

    async def run() -> CallError:
        with pytest.raises(CallError) as caught:
            await streamguard.run(scripted.script(scripted.answer(RIGHT)), policy=policy(made, attempts=1))
        return caught.value

    error = virtual(run)
    assert error.record.reasons == ("guard.failed",)
    assert "guard broken raised LookupError: no such total, " in str(error)
    assert key not in f"{error} {error.record}"


def test_a_check_that_never_answers_ends_with_the_call(virtual: Callable[..., Any]) -> None:
    """It is cancelled by the call's own clock, and has the time to clean up."""
    ended: list[float] = []

    @streamguard.check(needs=["/total"], reason="house.x")
    async def endless(total: Decimal) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(anyio.current_time())

    async def run() -> tuple[str, float]:
        began = anyio.current_time()
        with pytest.raises(CallError) as caught:
            await streamguard.run(
                scripted.script(scripted.answer(RIGHT)), policy=policy(endless, attempts=1, timeouts=Timeouts(total=7))
            )
        return caught.value.reason, ended[0] - began

    assert virtual(run) == ("timeout.total", pytest.approx(7, abs=0.1))


def test_whoever_cancels_the_call_cancels_the_check(virtual: Callable[..., Any]) -> None:
    """A check that is under way does not outlive its call, and its cancellation is nobody's verdict."""
    seen: list[str] = []

    @streamguard.check(needs=["/total"], reason="house.x")
    async def endless(total: Decimal) -> None:
        seen.append("begun")
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("ended")

    async def run() -> bool:
        with anyio.move_on_after(3) as scope:
            await streamguard.run(scripted.script(scripted.answer(RIGHT)), policy=policy(endless))
        return scope.cancelled_caught

    assert virtual(run)
    assert seen == ["begun", "ended"]


def test_nothing_is_handed_out_before_it_is_checked(virtual: Callable[..., Any]) -> None:
    """Live delivery waits for the look-up; between two events no check runs and no scope is open."""

    async def run() -> list[tuple[str, int]]:
        running = 0
        handed: list[tuple[str, int]] = []

        @streamguard.check(needs=["/lines/*/sku"], reason="house.sku")
        async def slow(sku: str) -> None:
            nonlocal running
            running += 1
            await anyio.sleep(1)
            running -= 1

        source = scripted.script(scripted.answer(RIGHT))
        async with streamguard.stream(source, policy=policy(slow), deliver="live") as events:
            async for event in events:
                if isinstance(event, Delta):
                    with anyio.move_on_after(60) as scope:
                        await anyio.sleep(0.1)
                    assert not scope.cancelled_caught
                    handed.append((event.text, running))
        return handed

    handed = virtual(run)
    assert "".join(text for text, _ in handed) == RIGHT
    assert {running for _, running in handed} == {0}


def test_in_a_thread() -> None:
    """The versions for threads take the same policies."""
    outcome = streamguard.sync.run(
        scripted.script(scripted.answer(WRONG), scripted.answer(RIGHT)), policy=policy(adds_up)
    )
    assert outcome.reasons == ("house.total",)

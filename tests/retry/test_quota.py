"""The retry quota, as a state machine, and what a crowd of calls does with it and with the cool-down."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import (
    Backoff,
    DeadlineExceeded,
    GaveUp,
    Interrupted,
    JsonDocument,
    Policy,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.engine.runtime import MOST_KEPT
from streamguard.events import Delta, Failed
from streamguard.pricing.book import MOST_FOUND
from streamguard.retry.quota import Quota, RetryQuota, is_outage
from streamguard.testing.clock import BACKENDS, run_virtual
from streamguard.testing.scripted import answer, script
from streamguard.testing.steps import pause

RESET = Failed(reason="transport.reset", message="gone")
OVERLOADED = Failed(reason="provider.overloaded", message="busy", status=529, billable=False)
EVERYTHING = [Rule(when=["*"], wait=Backoff(initial=0.5))]


@pytest.fixture(params=BACKENDS)
def virtual(request):
    """Run an async function in virtual time on one backend."""
    return lambda fn, *args: run_virtual(fn, *args, backend=request.param)


def test_the_bucket() -> None:
    """Calls fill it slowly, retries empty it, retries that succeed give back; never beyond its size."""
    quota = RetryQuota(Quota(size=2, refill=0.5))
    seen = [quota.tokens]
    for step in (quota.take, quota.take, quota.begin, quota.give_back, quota.give_back, quota.begin):
        step()
        seen.append(quota.tokens)
    assert seen == [2, 1, 0, 0.5, 1.5, 2, 2]


@pytest.mark.parametrize(
    ("reason", "outage"),
    [
        ("provider.overloaded", True),
        ("transport.reset", True),
        ("timeout.progress", True),
        ("source.error", True),
        ("json.schema", False),
        ("stop.max_tokens", False),
        ("repetition.loop", False),
        ("content.apology", False),
    ],
)
def test_which_reasons_speak_of_an_outage(reason: str, outage: bool) -> None:
    """Trips on content take no token."""
    assert is_outage(reason) is outage


async def _crowd(failed: Failed, policy: Policy, runtime: Runtime, calls: int, every: float) -> tuple[int, int]:
    """Calls, one `every` seconds, against a provider that is down: requests sent, and calls that gave up."""
    source = script([failed])
    gave_up = 0

    async def one(number: int) -> None:
        nonlocal gave_up
        await anyio.sleep(number * every)
        try:
            await streamguard.run(source, policy=policy, runtime=runtime)
        except (GaveUp, DeadlineExceeded):
            gave_up += 1

    async with anyio.create_task_group() as group:
        for number in range(calls):
            group.start_soon(one, number)
    return source.opened, gave_up


@pytest.mark.parametrize("every", [0.0, 0.01])
@pytest.mark.parametrize("failed", [RESET, OVERLOADED], ids=["reset", "overloaded"])
def test_a_total_outage_is_not_multiplied(virtual: Any, failed: Failed, every: float) -> None:
    """However many attempts the policy allows, an outage costs at most 1.1 requests a call and the quota once; where
    the provider says that it is overloaded, the cool-down makes it much less."""
    policy = Policy(retry=Retry(attempts=5, rules=EVERYTHING), timeouts=Timeouts(total=60))
    calls = 1_000
    sent, gave_up = virtual(_crowd, failed, policy, Runtime(), calls, every)
    assert gave_up == calls
    assert sent <= 1.1 * calls + 100
    assert failed is RESET or sent <= 1.1 * calls


def test_without_a_bucket_attempts_are_the_bound(virtual: Any) -> None:
    """The same outage without the quota costs every attempt of every call."""
    policy = Policy(retry=Retry(attempts=3, rules=EVERYTHING, quota=None), timeouts=Timeouts(total=600))
    assert virtual(_crowd, RESET, policy, Runtime(), 50, 0.0) == (150, 50)


def test_failures_that_a_retry_mends_leave_the_bucket_full(virtual: Any) -> None:
    """One attempt in two fails, for ever: no call is refused its retry."""

    async def main() -> list[int]:
        runtime = Runtime()
        policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["*"])], quota=Quota(size=3, refill=0)))
        return [
            len(
                (
                    await streamguard.run(
                        script([Failed(reason="transport.reset", message="…")], answer("x")),
                        policy=policy,
                        runtime=runtime,
                    )
                ).attempts
            )
            for _ in range(20)
        ]

    assert virtual(main) == [2] * 20


def test_content_trips_do_not_empty_the_bucket(virtual: Any) -> None:
    """A model that writes nonsense is asked again as often as the policy says."""

    async def main() -> float:
        runtime, quota = Runtime(), Quota(size=1, refill=0)
        policy = Policy(json=JsonDocument(), retry=Retry(attempts=4, rules=[Rule(when=["json.*"])], quota=quota))
        outcome = await streamguard.run(
            script(answer("nonsense"), answer("}"), answer("{"), answer("{}")), policy=policy, runtime=runtime
        )
        assert outcome.value == {}
        return runtime.quota(quota).tokens

    assert virtual(main) == 1


def test_everybody_cools_down(virtual: Any) -> None:
    """After one refusal calls that begin wait too, and come back one by one; another model's do not."""

    async def main() -> list[float]:
        runtime, began = Runtime(jitter=lambda: 1.0), anyio.current_time()
        refused = Failed(reason="provider.rate_limited", message="…", status=429, retry_after=8.0, billable=False)
        policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["*"], respect_retry_after=True)]))
        times: list[float] = []

        async def one(source: Any, after: float) -> None:
            await anyio.sleep(after)
            await streamguard.run(source, policy=policy, runtime=runtime)
            times.append(round(anyio.current_time() - began, 2))

        async with anyio.create_task_group() as group:
            group.start_soon(one, script([refused], answer("x")), 0)
            for after in (1, 2, 3):
                group.start_soon(one, script(answer("x")), after)
            other = {"model": "other", "max_tokens": 9, "messages": []}
            group.start_soon(one, script(answer("x"), request=other), 1)
        return sorted(times)

    assert virtual(main) == [1, 8, 8.5, 8.79, 9]


def test_who_cannot_wait_for_the_cooldown_gives_up_at_once(virtual: Any) -> None:
    """Nothing is sent, and the error says when to come back."""

    async def main() -> None:
        runtime = Runtime()
        runtime.cooldown("m").refused(
            "provider.overloaded", sent=anyio.current_time(), now=anyio.current_time(), wait=30
        )
        source = script(answer("x"), request={"model": "m", "max_tokens": 9, "messages": []})
        policy = Policy(timeouts=Timeouts(total=10), retry=Retry(attempts=3, rules=EVERYTHING))
        began = anyio.current_time()
        with pytest.raises(GaveUp, match=r"provider\.overloaded: not sent: all calls wait") as caught:
            await streamguard.run(source, policy=policy, runtime=runtime)
        assert (source.opened, anyio.current_time() - began, len(caught.value.attempts)) == (0, 0, 1)
        assert caught.value.retry_at is not None

    virtual(main)


def test_running_calls_are_listed(virtual: Any) -> None:
    """A runtime knows its running calls, and only those."""

    async def main() -> None:
        runtime = Runtime()
        source = script([*answer("x")[:2], pause(1), *answer("x")[2:]])
        async with streamguard.stream(
            source, policy=Policy(deliver="live"), runtime=runtime, labels={"a": 1}, group="g"
        ) as events:
            await events.batch()
            assert [(call.about, call.running is not None) for call in runtime.calls.values()] == [
                ({"labels": {"a": 1}, "group": "g"}, True)
            ]
            async for _ in events:
                pass
        assert runtime.calls == {}

    virtual(main)


def test_a_retry_that_was_not_sent_costs_no_token(virtual: Any) -> None:
    """Who is interrupted, leaves or runs out of time before the retry is sent says nothing of an outage."""

    async def main() -> float:
        runtime, quota = Runtime(), Quota(size=5, refill=0)
        rule = Rule(when=["*"], wait=5.0)
        policy = Policy(retry=Retry(attempts=3, rules=[rule], quota=quota))
        for _ in range(20):
            with anyio.move_on_after(1):
                await streamguard.run(script([RESET], answer("x")), policy=policy, runtime=runtime)
            async with (
                streamguard.stream(script([RESET], answer("x")), policy=policy, runtime=runtime) as events,
                anyio.create_task_group() as group,
            ):

                async def interrupt(events: Any = events) -> None:
                    await anyio.sleep(1)
                    events.interrupt("a person")

                group.start_soon(interrupt)
                with pytest.raises(Interrupted):
                    await anext(events)
        return runtime.quota(quota).tokens

    assert virtual(main) == 5


def test_a_turn_that_does_not_fit_costs_no_token(virtual: Any) -> None:
    """Attempts that the cool-down holds back until their deadline are no requests, so they use up no retries."""

    async def main() -> tuple[float, int]:
        runtime, quota = Runtime(), Quota(size=5, refill=0)
        policy = Policy(timeouts=Timeouts(total=0.2), retry=Retry(attempts=4, rules=[Rule(when=["*"])], quota=quota))
        cooldown, now = runtime.cooldown(None), anyio.current_time()
        cooldown.refused("provider.overloaded", sent=now, now=now, wait=0.0)
        for _ in range(9):
            cooldown.start(now)
        sources = [script(answer("x"), request=None) for _ in range(9)]
        for source in sources:
            with pytest.raises(GaveUp):
                await streamguard.run(source, policy=policy, runtime=runtime)
        return runtime.quota(quota).tokens, sum(source.opened for source in sources)

    assert virtual(main) == (5, 0)


def test_a_retry_that_was_answered_gives_its_token_back(virtual: Any) -> None:
    """An answer is an answer, be it empty or left by its reader; only a retry that an outage ends has spent it."""

    async def main() -> list[float]:
        runtime, tokens = Runtime(), []
        quota = Quota(size=5, refill=0)
        policy = Policy(deliver="live", retry=Retry(attempts=2, rules=[Rule(when=["transport.*"])], quota=quota))
        for second in (answer(""), answer("x"), [*answer("x")[:3], RESET]):
            with contextlib.suppress(GaveUp):
                async with streamguard.stream(script([RESET], second), policy=policy, runtime=runtime) as events:
                    async for event in events:
                        if type(event) is Delta and event.text and second[-1] is not RESET:
                            break
            tokens.append(runtime.quota(quota).tokens)
        return tokens

    assert virtual(main) == [5, 5, 4]


def test_a_fallback_does_not_wait_for_the_model_that_cools_down(virtual: Any) -> None:
    """What one model's provider asked for holds back that model, not a rule that asks another."""

    async def main() -> list[float]:
        runtime, times = Runtime(), []
        refused = Failed(reason="provider.overloaded", message="…", status=529, retry_after=60.0, billable=False)
        rule = Rule(when=["provider.overloaded"], patch={"model": "b"})
        policy = Policy(timeouts=Timeouts(total=30), retry=Retry(attempts=2, rules=[rule]))

        async def one(after: float) -> None:
            request = {"model": "a", "max_tokens": 9, "messages": []}
            await streamguard.run(
                script([pause(after), refused], answer("x"), request=request), policy=policy, runtime=runtime
            )
            times.append(round(anyio.current_time(), 2))

        async with anyio.create_task_group() as group:
            began = anyio.current_time()
            for after in (1.0, 2.0, 3.0):
                group.start_soon(one, after)
        return [at - began for at in times]

    assert virtual(main) == [1, 2, 3]


def test_a_runtime_remembers_a_bounded_number_of_models() -> None:
    """Names of models come from callers: what is kept of them is bounded, and what is in use stays."""
    runtime = Runtime()
    busy = runtime.cooldown("busy")
    for number in range(5 * MOST_KEPT):
        runtime.cooldown(f"model-{number}")
        assert runtime.cooldown("busy") is busy
    assert len(runtime._cooldowns) <= MOST_KEPT
    assert runtime.cooldown("busy", "https://elsewhere.example") is not busy
    book = runtime.pricebook(Policy().prices)
    for number in range(2 * MOST_FOUND):
        book.price(f"busy-{number}", at=datetime(2026, 11, 21, tzinfo=UTC))
    assert len(book._found) <= MOST_FOUND

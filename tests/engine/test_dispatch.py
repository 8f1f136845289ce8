"""What an attempt passes before its first byte, and what it is charged after its last. In virtual time, both backends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anyio
import msgspec
import pytest

import streamguard
from streamguard import (
    BudgetExhausted,
    DeadlineExceeded,
    GaveUp,
    Interrupted,
    JsonDocument,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.budgets.ledger import LedgerLost
from streamguard.budgets.spec import ABORT_LAG_TOKENS
from streamguard.budgets.upper_bound import Bound, bound
from streamguard.engine.telemetry import BudgetDenied
from streamguard.events import Delta, Metered, Ping, Stopped, Usage
from streamguard.outcome import Charge
from streamguard.pricing.price import PriceSpec
from streamguard.request import Request
from streamguard.testing.scripted import script
from streamguard.testing.steps import pause, repeat, stall
from tests.engine.holds import (
    AGAIN,
    BOUND,
    DEAD,
    HOLD,
    PRICES,
    REFUSED,
    REQUEST,
    SPENT,
    ask,
    balance,
    budget,
    good,
    policy,
    usd,
)

assert isinstance(BOUND, Bound)


def test_a_call_is_reserved_and_settled_at_what_it_cost(virtual: Callable[..., Any]) -> None:
    """While it runs the bound is held; afterwards exactly the provider's count is spent, and the record says so."""

    async def main() -> None:
        runtime, spec = Runtime(job="night"), budget()
        async with streamguard.stream(ask(good()), policy=policy(spec, deliver="live"), runtime=runtime) as events:
            held = [await balance(runtime, spec) async for event in events if isinstance(event, Delta)]
        assert held == [(0, HOLD, 0)]
        assert await balance(runtime, spec) == (SPENT, 0, 0)
        assert events.outcome.attempts[0].charged == (
            Charge(budget="b", unit="micro_usd", held=HOLD, settled=SPENT, uncertain=0),
        )

    virtual(main)


@pytest.mark.parametrize(
    ("answers", "least", "micro"),
    [
        ("m", SPENT, SPENT),
        ("gateway/of-its-own", SPENT, SPENT),
        ("dear", SPENT, 10 * SPENT),
        ("cheap", SPENT // 2, SPENT),
    ],
)
def test_record_and_ledger_price_an_answer_alike(
    answers: str, least: int, micro: int, virtual: Callable[..., Any]
) -> None:
    """Under another model's name the dearer of both prices is charged; the record tells of both, and is not exact."""
    prices = {
        name: PriceSpec(input=str(factor), output=str(10 * factor))
        for name, factor in (("m", Decimal(1)), ("dear", Decimal(10)), ("cheap", Decimal("0.5")))
    }

    async def main() -> None:
        events = [[msgspec.structs.replace(good()[0][0], model=answers)], *good()[1:]]
        held_in = Policy(budgets=[budget()], prices=prices)
        done = await streamguard.run(ask(events), policy=held_in, runtime=Runtime(job="night"))
        (attempt,) = done.attempts
        assert (attempt.cost.low, attempt.cost.high, attempt.charged[0].settled) == (least, micro, micro)

    virtual(main)


@pytest.mark.parametrize(
    ("count", "said"),
    [(40, False), (None, True), ("hangs", True), ("missing", True)],
)
def test_a_budget_may_rest_on_the_providers_count(
    count: int | str | None, said: bool, virtual: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What is held is smaller by it; where there is none, the proven bound is held, and the log says so."""
    asked: list[Request] = []

    async def count_input(request: Request) -> int | None:
        asked.append(request)
        if count == "hangs":
            await anyio.sleep_forever()
        return count if isinstance(count, int) else None

    async def main() -> None:
        source = ask(DEAD, good(), good())
        if count != "missing":
            source.count_input = count_input
        spec = budget().model_copy(update={"input_bound": "counted"})
        done = await streamguard.run(
            source,
            policy=policy(spec, json=JsonDocument(), retry=Retry(attempts=2, rules=[Rule(when=["*"])])),
            runtime=Runtime(job="night"),
        )
        smaller = bound(Request(REQUEST), PRICES["m"].price(), counted=40)
        assert isinstance(smaller, Bound)
        held = smaller.micro_usd if isinstance(count, int) else HOLD
        assert [attempt.charged[0].held for attempt in done.attempts] == [held, held]

    with caplog.at_level("WARNING", logger="streamguard"):
        virtual(main)
    # One input is counted once; what hung is not asked for again.
    assert len(asked) == (0 if count == "missing" else 1)
    assert ("did not count the input" in caplog.text) == said


def test_no_room_means_nothing_is_sent(virtual: Callable[..., Any]) -> None:
    """A denied call raises BudgetExhausted before anything is sent, and hooks hear of it."""

    async def main() -> None:
        records: list[Any] = []
        source, spec = ask(good()), budget("0.0001")
        with pytest.raises(BudgetExhausted) as caught:
            await streamguard.run(source, policy=policy(spec), runtime=Runtime(hooks=[records.append]))
        error = caught.value
        assert (source.opened, error.reason, error.scope, error.asked, error.available, error.unit) == (
            0, "budget.denied", "b/job/micro_usd", HOLD, 100, "micro_usd",
        )  # fmt: skip
        assert str(error) == (
            f"not sent: the request may cost up to ${usd(HOLD)}, and budget b/job/micro_usd has $0.000100 left of $0.000100"
        )
        assert [record for record in records if isinstance(record, BudgetDenied)] == [
            BudgetDenied(call=records[0].call, scope="b/job/micro_usd", asked=HOLD, available=100, unit="micro_usd")
        ]

    virtual(main)


@pytest.mark.parametrize(
    ("stops", "attempt", "charged"),
    [
        (False, DEAD, (0, 0, HOLD)),
        (True, DEAD, "estimate"),
        (
            True,
            [
                *good()[:2],
                [
                    Delta(0, "text", "{"),
                ],
                REFUSED,
            ],
            (0, 0, 0),
        ),
        (False, [REFUSED], (0, 0, 0)),
    ],
    ids=["abort, billing goes on", "abort, billing stops", "refused in the stream", "refused at once"],
)
def test_an_attempt_that_was_not_accepted_is_charged_by_evidence(virtual, stops, attempt, charged) -> None:
    """An abort keeps its hold, unless the backend is declared to stop billing; a refusal costs nothing."""

    async def main() -> None:
        runtime, spec = Runtime(), budget(abort_stops_billing=stops)
        with pytest.raises(GaveUp):
            await streamguard.run(ask(attempt), policy=policy(spec, json=JsonDocument()), runtime=runtime)
        settled, held, uncertain = await balance(runtime, spec)
        if charged == "estimate":
            assert (held, uncertain) == (0, 0)
            assert 10 + ABORT_LAG_TOKENS * 10 < settled < 10 + (ABORT_LAG_TOKENS + 20) * 10
        else:
            assert (settled, held, uncertain) == charged

    virtual(main)


def test_a_retry_is_admitted_anew(virtual: Callable[..., Any]) -> None:
    """The first attempt's charge stays; a retry without room ends the call with both reasons told."""

    async def main() -> None:
        runtime, spec = Runtime(), budget(usd(HOLD + 10))
        source = ask(DEAD, good())
        with pytest.raises(BudgetExhausted, match=r"has \$0\.000010 left.*before it: json\.malformed$") as caught:
            await streamguard.run(source, policy=policy(spec, json=JsonDocument(), retry=AGAIN), runtime=runtime)
        first, second = caught.value.attempts
        assert (source.opened, first.reason, second.reason) == (1, "json.malformed", "budget.denied")
        assert (first.decision.action, first.decision.budget_left) == ("retry", {"b/job/micro_usd": 10})
        assert second.cost.high == 0

    virtual(main)


def test_what_has_no_bound_is_not_sent(virtual: Callable[..., Any]) -> None:
    """A strict budget refuses a request whose cost nothing bounds."""

    async def main() -> None:
        source = script(good(), request={**REQUEST, "mcp_servers": [{"url": "x"}]})
        with pytest.raises(GaveUp, match=r"budget\.unbounded: not sent: budget 'b': .*mcp_servers"):
            await streamguard.run(source, policy=policy(budget()), runtime=Runtime())
        assert source.opened == 0

    virtual(main)


def test_calls_queue_for_room(virtual: Callable[..., Any]) -> None:
    """With room for one at a time and time to wait, all calls get through, one after the other."""

    async def main() -> None:
        runtime, spec = Runtime(), budget(usd(HOLD + 2 * SPENT), wait=100)
        slow = [*good()[:3], pause(5), *good()[3:]]
        times = []

        async def one() -> None:
            outcome = await streamguard.run(ask(slow), policy=policy(spec), runtime=runtime)
            times.append(outcome.seconds)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(one)
        assert [round(seconds) for seconds in sorted(times)] == [5, 10, 15]
        assert await balance(runtime, spec) == (3 * SPENT, 0, 0)

    virtual(main)


def test_the_queue_ends_with_the_call(virtual: Callable[..., Any]) -> None:
    """A call's own deadline and an interrupt end its wait for room; nothing was sent and nothing stays held."""

    async def main() -> None:
        runtime, spec = Runtime(), budget(usd(HOLD), wait=1000)
        endless = [*good()[:3], stall()]
        async with streamguard.stream(
            ask(endless),
            policy=policy(spec, deliver="live", timeouts=Timeouts(progress=None, alive=None)),
            runtime=runtime,
        ) as first:
            await anext(first)
            source = ask(good())
            with pytest.raises(DeadlineExceeded):
                await streamguard.run(source, policy=policy(spec, timeouts=Timeouts(total=7)), runtime=runtime)
            assert source.opened == 0
            waiting = streamguard.stream(source, policy=policy(spec), runtime=runtime)

            async def interrupt() -> None:
                await anyio.sleep(3)
                waiting.interrupt("a person")

            async with anyio.create_task_group() as group:
                group.start_soon(interrupt)
                async with waiting:
                    with pytest.raises(Interrupted, match="a person"):
                        await anext(waiting)
            assert (source.opened, await balance(runtime, spec)) == (0, (0, HOLD, 0))
        assert await balance(runtime, spec) == (0, 0, HOLD)

    virtual(main)


@pytest.mark.parametrize("timeouts", [Timeouts(), Timeouts(progress=None, alive=None, first_token=None)])
def test_leases_are_kept_alive(virtual: Callable[..., Any], timeouts: Timeouts) -> None:
    """However long a stream lasts, and however long one read, its hold is not taken for that of a crashed process."""

    async def main() -> None:
        runtime, spec = Runtime(), budget()
        steps = [pause(50), [Ping()]] * 20 if timeouts.alive else [pause(1000)]
        seen = []

        async def sweep() -> None:
            for _ in range(9):
                await anyio.sleep(100)
                seen.append((await runtime.accounts.sweep(), await balance(runtime, spec)))

        async with anyio.create_task_group() as group:
            group.start_soon(sweep)
            source = ask([*good()[:2], *steps, *good()[2:]])
            patient = timeouts if timeouts.progress is None else Timeouts(progress=2000, first_token=2000)
            outcome = await streamguard.run(source, policy=policy(spec, timeouts=patient), runtime=runtime)
            group.cancel_scope.cancel()
        assert (outcome.completed, round(outcome.seconds)) == ("whole", 1000)
        assert seen == [(0, (0, HOLD, 0))] * 9

    virtual(main)


@pytest.mark.parametrize("one_read", [False, True])
def test_a_lost_ledger_aborts_the_stream(virtual: Callable[..., Any], one_read: bool) -> None:
    """Without its ledger a stream is aborted at the next heartbeat, and never retried."""

    async def main() -> None:
        runtime, spec = Runtime(), budget()
        steps = [pause(1000)] if one_read else [repeat([pause(1), Ping()])]
        source = ask([*good()[:3], *steps])
        patient = Timeouts(progress=None, alive=None)
        events = streamguard.stream(
            source, policy=policy(spec, timeouts=patient, retry=AGAIN, deliver="live"), runtime=runtime
        )
        async with events:
            await anext(events)
            ledger = (await runtime.accounts.ledger(spec.ledger)).ledger

            def lost(*_: Any) -> None:
                raise LedgerLost("the server is gone")

            ledger.store.heartbeat = lost
            began = anyio.current_time()
            with pytest.raises(GaveUp, match=r"budget\.lost: .*the server is gone; budget\.lost is never retried"):
                async for _ in events:
                    pass
        assert 59 <= anyio.current_time() - began <= 62
        assert (source.opened, source.closed) == (1, 1)

    virtual(main)


@pytest.mark.parametrize("leave", ["break", "raise", "cancel"])
def test_a_consumer_who_leaves_is_charged(virtual: Callable[..., Any], leave: str) -> None:
    """Nothing stays held when the consumer breaks out, raises or is cancelled."""

    async def main() -> None:
        runtime, spec = Runtime(), budget()
        source = ask([*good()[:3], pause(5), *good()[3:]])

        async def consume() -> None:
            async with streamguard.stream(source, policy=policy(spec, deliver="live"), runtime=runtime) as events:
                async for event in events:
                    if isinstance(event, Delta) and leave == "break":
                        break
                    if isinstance(event, Delta) and leave == "raise":
                        raise KeyError("mine")

        if leave == "raise":
            with pytest.raises(KeyError):
                await consume()
        elif leave == "cancel":
            with anyio.move_on_after(1):
                await consume()
        else:
            await consume()
        assert (await balance(runtime, spec), source.closed, runtime.calls) == ((0, 0, HOLD), 1, {})

    virtual(main)


def test_budgets_per_label(virtual: Callable[..., Any]) -> None:
    """A budget per tenant is charged by the call's label; a call without it is refused before anything is sent."""

    async def main() -> None:
        runtime, spec = Runtime(), budget(per="tenant:{tenant}")
        await streamguard.run(ask(good()), policy=policy(spec), runtime=runtime, labels={"tenant": "acme"})
        assert await balance(runtime, spec, tenant="acme") == (SPENT, 0, 0)
        source = ask(good())
        with pytest.raises(PolicyError, match="the call has no label 'tenant'"):
            await streamguard.run(source, policy=policy(spec), runtime=runtime)
        assert source.opened == 0

    virtual(main)


@pytest.mark.parametrize(
    ("room", "asked"),
    [
        (1_000_000, [1000, 4000]),
        # What is left after the first attempt's two tokens, less the second's input, at 10 micro-USD a token.
        (2 * HOLD + 5_000, [1000, (2 * HOLD + 5_000 - 20 - (HOLD - 10_000)) // 10]),
        (HOLD, [1000]),
    ],
    ids=["room for all", "room for some", "room for nothing"],
)
def test_more_tokens_within_the_remaining_budget(virtual: Callable[..., Any], room: int, asked: list[int]) -> None:
    """A rule that raises max_tokens raises it as far as the budget reaches, never below what the caller asked for."""

    async def main() -> None:
        nothing = Metered(Usage(input_tokens=10, output_tokens=1), stop_reason="max_tokens")
        source = ask([*good()[:4], [nothing], [Stopped("max_tokens")]], good())
        rules = [Rule(when=["stop.max_tokens"], patch={"max_tokens": {"multiply": 4}})]
        with pytest.raises(BudgetExhausted) if len(asked) == 1 else contextlib.nullcontext():
            await streamguard.run(
                source,
                policy=policy(budget(usd(room)), retry=Retry(attempts=2, rules=rules)),
                runtime=Runtime(),
            )
        assert [body["max_tokens"] for body in source.requests] == asked

    virtual(main)

"""Dispatch: lowered `max_tokens`, pauses, and ledgers that hang."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import (
    Caps,
    DeadlineExceeded,
    GaveUp,
    Policy,
    PolicyError,
    Retry,
    Rule,
    Runtime,
    Timeouts,
)
from streamguard.budgets.ledger import LedgerError
from streamguard.budgets.stores.sqlite import SqliteStore
from streamguard.events import BlockStopped, Delta, Metered, Ping, Started, Stopped, Usage
from streamguard.testing.scripted import script
from streamguard.testing.steps import pause, stall, truth
from tests.engine.holds import DEAD, HOLD, REQUEST, SPENT, USED, ask, balance, budget, good, policy


@pytest.mark.parametrize(
    ("caps", "mode", "thinking", "asked"),
    [
        (Caps(output_tokens=300), "enforce", None, 300),
        (Caps(output_tokens=3000), "enforce", None, 1000),
        (Caps(output_tokens=300), "observe", None, 1000),
        (Caps(output_tokens=300, mode="observe"), "enforce", None, 1000),
        (Caps(output_tokens=300, mode="enforce"), "observe", None, 300),
        (Caps(output_tokens=300), "enforce", 200, 300),
        (Caps(output_tokens=300), "enforce", 300, 1000),
    ],
)
def test_the_cap_lowers_max_tokens(
    virtual: Callable[..., Any], caps: Caps, mode: Any, thinking: Any, asked: int
) -> None:
    """The provider itself is told the cap, but for observing caps and where thinking needs more."""

    async def main() -> None:
        extra = {} if thinking is None else {"thinking": {"type": "enabled", "budget_tokens": thinking}}
        source = script(good(), request={**REQUEST, **extra})
        await streamguard.run(source, policy=Policy(caps=caps, mode=mode))
        assert [body["max_tokens"] for body in source.requests] == [asked]

    virtual(main)


def test_reaching_a_lowered_max_tokens_is_the_caps_trip(virtual: Callable[..., Any]) -> None:
    """Asking again with more tokens cannot mend a cap, so the truncation has the cap's reason."""

    async def main() -> None:
        cut = [*good()[:4], [Metered(USED, stop_reason="max_tokens")], [Stopped("max_tokens")]]
        rules = [Rule(when=["stop.max_tokens"], patch={"max_tokens": {"multiply": 2}})]
        source = ask(cut)
        with pytest.raises(GaveUp, match=r"cap\.output_tokens: .*\(300\), which caps\.output_tokens had lowered"):
            await streamguard.run(
                source, policy=Policy(caps=Caps(output_tokens=300), retry=Retry(attempts=3, rules=rules))
            )
        assert source.opened == 1

    virtual(main)


def test_paused_admission(virtual: Callable[..., Any]) -> None:
    """While an operator pauses the runtime nothing new is sent; running calls go on; deadlines hold."""

    async def main() -> None:
        runtime, source = Runtime(), ask(good())
        runtime.pause("a person")
        with pytest.raises(DeadlineExceeded):
            await streamguard.run(source, policy=Policy(timeouts=Timeouts(total=3)), runtime=runtime)
        assert source.opened == 0

        async def later() -> None:
            await anyio.sleep(5)
            runtime.resume()

        async with anyio.create_task_group() as group:
            group.start_soon(later)
            outcome = await streamguard.run(source, policy=Policy(), runtime=runtime)
        assert (outcome.completed, 5 <= outcome.seconds <= 5.2) == ("whole", True)

    virtual(main)


def test_an_abort_at_every_event_keeps_the_truth_in_the_interval(virtual: Callable[..., Any]) -> None:
    """Wherever a stream is aborted, what the provider bills lies within the record's tokens and cost."""

    async def main() -> None:
        text = [[Delta(0, "text", piece)] for piece in ['{"name": "', *["word "] * 40, '"}']]
        events = [*good()[:2], *text, [BlockStopped(0)], [Metered(Usage(output_tokens=45), stop_reason="end_turn")]]
        for cut in range(1, len(events)):
            source = script([truth(10, 45, lag=7), *events], request=REQUEST, chunk="event")
            with pytest.raises(GaveUp, match=r"cap\.events") as caught:
                await streamguard.run(source, policy=policy(caps=Caps(events=cut)))
            (attempt,), (bill,) = caught.value.attempts, source.billed
            low, high = attempt.usage.low, attempt.usage.high
            assert low.output_tokens <= bill.output_tokens <= high.output_tokens, cut
            assert low.input_tokens <= bill.input_tokens <= high.input_tokens, cut
            assert attempt.cost.low <= bill.input_tokens + bill.output_tokens * 10 <= attempt.cost.high, cut

    virtual(main)


def test_a_guard_that_cannot_begin_costs_nothing(virtual: Callable[..., Any]) -> None:
    """What a guard of one's own raises when an attempt begins is a mistake in the policy; the hold is given back."""

    class Broken:
        name = "broken"
        mode = None

        def watch(self, ctx: Any, now: float) -> Any:
            raise TypeError("mine")

    async def main() -> None:
        runtime, spec = Runtime(), budget()
        source = ask(good())
        with pytest.raises(PolicyError, match=r"guard broken cannot begin: its watch\(\) raised TypeError: mine"):
            await streamguard.run(source, policy=policy(spec, guards=[Broken()]), runtime=runtime)
        assert (source.opened, await balance(runtime, spec), runtime.calls) == (0, (0, 0, 0), {})

    virtual(main)


def test_a_locked_ledger_does_not_hold_a_call_beyond_its_deadline(run_real: Any, tmp_path: Any) -> None:
    """The call ends in time; what its thread reserves later is given back."""

    async def main() -> None:
        spec = budget(ledger=f"sqlite:{tmp_path / 'budget.db'}")
        runtime = Runtime()
        await streamguard.run(ask(good()), policy=policy(spec), runtime=runtime)
        store = (await runtime.accounts.ledger(spec.ledger)).ledger.store
        locked, done, reserve = threading.Event(), threading.Event(), store.reserve

        def slow(*arguments: Any) -> Any:
            locked.wait(10)
            denied = reserve(*arguments)
            done.set()
            return denied

        store.reserve = slow
        began = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await streamguard.run(ask(good()), policy=policy(spec, timeouts=Timeouts(total=0.1)), runtime=runtime)
        assert anyio.current_time() - began < 0.2
        locked.set()
        with anyio.fail_after(5):
            while not done.is_set() or (await balance(runtime, spec))[1]:  # noqa: ASYNC110  set by a thread
                await anyio.sleep(0.01)
        assert await balance(runtime, spec) == (SPENT, 0, 0)
        await runtime.aclose()

    run_real(main)


def test_a_runtime_of_its_own_ends_with_the_call(run_real: Any, tmp_path: Any, monkeypatch: Any) -> None:
    """A call without a runtime opens its ledger and lets go of it, however it ends."""
    closed: list[str] = []
    close = SqliteStore.close
    monkeypatch.setattr(SqliteStore, "close", lambda store: (closed.append("closed"), close(store))[1])

    async def main() -> None:
        spec = budget(ledger=f"sqlite:{tmp_path / 'budget.db'}")
        await streamguard.run(ask(good()), policy=policy(spec))
        with pytest.raises(GaveUp):
            await streamguard.run(ask(DEAD[:3]), policy=policy(spec))
        async with streamguard.stream(ask(good()), policy=policy(spec, deliver="live")) as events:
            await anext(events)
        async with streamguard.stream(ask(good()), policy=policy(spec)):
            pass

    run_real(main)
    assert closed == ["closed"] * 3


def test_a_pause_holds_back_who_waits_for_a_turn_too(virtual: Callable[..., Any]) -> None:
    """Paused is paused: an attempt that waited in the cool-down when it began is not sent either."""

    async def main() -> None:
        runtime, source, began = Runtime(), ask(good()), anyio.current_time()
        runtime.cooldown("m").refused("provider.overloaded", sent=began, now=began, wait=5)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: streamguard.run(source, policy=policy(), runtime=runtime))
            await anyio.sleep(1)
            runtime.pause("an operator")
            await anyio.sleep(30)
            assert source.opened == 0
            runtime.resume()
        assert source.opened == 1

    virtual(main)


@pytest.mark.parametrize("one_read", [False, True])
def test_a_ledger_that_refuses_a_heartbeat_ends_the_call_like_a_lost_one(
    virtual: Callable[..., Any], one_read: bool
) -> None:
    """Whatever is wrong with the ledger under a running stream, there is one typed error with the attempt in it."""

    async def main() -> None:
        runtime, spec = Runtime(), budget()
        ledger = (await runtime.accounts.ledger(spec.ledger)).ledger

        def refuse(hold: str, lease: float) -> None:
            raise LedgerError("the file is none of ours any more")

        ledger.store.heartbeat = refuse
        waits = [pause(400)] if one_read else [part for _ in range(40) for part in (pause(10), [Ping()])]
        source = ask([*good()[:3], *waits, *good()[3:]])
        timeouts = Timeouts(progress=None, alive=None)
        with pytest.raises(GaveUp, match=r"budget\.lost: without its ledger nothing may be spent") as caught:
            await streamguard.run(source, policy=policy(spec, timeouts=timeouts), runtime=runtime)
        assert len(caught.value.attempts) == 1

    virtual(main)


def test_a_heartbeat_that_hangs_does_not_hold_a_call_beyond_its_deadline(run_real: Any, tmp_path: Any) -> None:
    """The deadline counts while the ledger is asked, too."""

    async def main() -> None:
        spec = budget(ledger=f"sqlite:{tmp_path / 'budget.db'}")
        runtime, going = Runtime(), threading.Event()
        store = (await runtime.accounts.ledger(spec.ledger)).ledger.store
        store.heartbeat = lambda hold, lease: going.wait(5)
        async with streamguard.stream(
            ask([*good()[:3], pause(0.05), *good()[3:]]),
            policy=policy(spec, deliver="live", timeouts=Timeouts(total=0.3)),
            runtime=runtime,
        ) as events:
            await events.batch()
            for _, hold, _ in events._call._reservation._parts:
                hold.heartbeat_due = 0.0
            began = anyio.current_time()
            with pytest.raises(DeadlineExceeded):
                while await events.batch():
                    pass
            assert anyio.current_time() - began < 0.4
        going.set()
        await runtime.aclose()

    run_real(main)


def test_an_outcome_is_priced_as_its_request(virtual: Callable[..., Any]) -> None:
    """A region's price is the request's; a speed that no source has a price for costs None, not the usual."""

    async def main() -> None:
        usage = Usage(input_tokens=1000, output_tokens=1000)
        begun = [Started("msg_1", "claude-opus-4-6")]
        stream = [begun, *good()[1:4], [Metered(usage, stop_reason="end_turn")], [Stopped("end_turn")]]
        costs = []
        for extra in ({}, {"inference_geo": "us"}, {"speed": "warp"}):
            request = {**REQUEST, "model": "claude-opus-4-6", **extra}
            costs.append((await streamguard.run(script(stream, request=request), policy=Policy())).cost.high)
        plain, regional, unknown = costs
        assert (regional, unknown) == (plain * 11 // 10, None)

    virtual(main)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("ends", ["accepted", "deadline", "left"])
def test_a_ledger_that_hangs_at_settlement_does_not_hold_a_call(
    run_real: Any, tmp_path: Any, monkeypatch: Any, own: bool, ends: str
) -> None:
    """A call ends in time, with its answer if it has one; what it cost is settled as soon as the ledger answers."""
    locked, settle = threading.Event(), SqliteStore.settle

    def hangs(store: SqliteStore, *arguments: Any) -> bool:
        with store._lock:
            locked.wait(10)
        return settle(store, *arguments)

    monkeypatch.setattr(SqliteStore, "settle", hangs)

    async def main() -> None:
        spec = budget(ledger=f"sqlite:{tmp_path / 'budget.db'}")
        runtime = Runtime()
        locked.set()
        await streamguard.run(ask(good()), policy=policy(spec), runtime=runtime)
        locked.clear()
        rules = policy(spec, deliver="live", timeouts=Timeouts(total=0.4))
        source = ask(good() if ends == "accepted" else [*good()[:3], stall()])
        began = anyio.current_time()
        call = streamguard.stream(source, policy=rules, runtime=None if own else runtime)
        with pytest.raises(DeadlineExceeded) if ends == "deadline" else contextlib.nullcontext():
            async with call as events:
                async for _ in events:
                    if ends == "left":
                        break
        assert anyio.current_time() - began < 0.4 + 0.1
        assert (call.outcome is not None) == (ends == "accepted")
        locked.set()
        with anyio.fail_after(5):
            while (await balance(runtime, spec))[1]:  # noqa: ASYNC110  set by a thread
                await anyio.sleep(0.01)
        spent = 2 * SPENT if ends == "accepted" else SPENT
        assert await balance(runtime, spec) == (spent, 0, 0 if ends == "accepted" else HOLD)
        await runtime.aclose()

    run_real(main)

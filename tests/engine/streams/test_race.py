"""Two streams of one call: exactly one is delivered, both are closed, settled once and on the record. In virtual time,
on both backends."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import pytest

import streamguard
from streamguard import Policy, PolicyError, Retry, Rule, Runtime
from streamguard.engine.call import Call
from streamguard.engine.telemetry import Hedged
from streamguard.errors import CallError
from streamguard.events import Delta, Failed, Usage
from streamguard.outcome import Outcome
from streamguard.pace.hedge import Hedges, HedgeSpec
from streamguard.pace.limits import Limit, Limits
from streamguard.pace.spec import PaceSpec
from streamguard.request import Request
from streamguard.retry.quota import Quota
from streamguard.testing import ScriptedSource, answer, pause, script, status
from streamguard.testing.clock import BACKENDS, run_virtual
from tests.engine.holds import PRICES, REQUEST, balance, budget
from tests.matrix.stepping import cancelled_at, steps

ON_BOTH = pytest.mark.parametrize("backend", BACKENDS)
HEDGE = HedgeSpec()
AGAIN = Retry(attempts=3, rules=[Rule(when=["*"])])
HEADERS = {"anthropic-ratelimit-requests-limit": "6000", "anthropic-ratelimit-requests-remaining": "6000"}
FIRST, SECOND = "First answer.", "Second answer."
BROKEN = Failed(reason="transport.reset", message="the connection broke")
CUT = Failed(reason="transport.incomplete", message="the stream ended early")


def policy(**sections: Any) -> Policy:
    return Policy(**{"hedge": HEDGE, "retry": AGAIN, "prices": PRICES, "pace": PaceSpec(ramp=0), **sections})


def says(text: str, after: float, rest: float = 0.0) -> list[Any]:
    """An answer whose output begins after so many seconds, and goes on for so many."""
    events = answer(text, usage=Usage(input_tokens=12, output_tokens=4))
    begun = next(place for place, event in enumerate(events) if isinstance(event, Delta))
    return [
        status(200, HEADERS),
        *events[:begun],
        pause(after),
        *events[begun : begun + 1],
        pause(rest),
        *events[begun + 1 :],
    ]


def asks(*attempts: Any) -> ScriptedSource:
    return script(*attempts, request=Request(REQUEST))


def knowing(hooks: tuple[Any, ...] = (), spec: HedgeSpec = HEDGE) -> tuple[Runtime, Hedges]:
    """A runtime that knows first tokens of one second: a second request is due after three."""
    runtime = Runtime(hooks=hooks)
    hedges = runtime.hedges(spec, "m")
    assert hedges is not None
    for _ in range(200):
        hedges.began()
        hedges.first_token(1.0)
    return runtime, hedges


async def asked(source: ScriptedSource, runtime: Runtime, rules: Policy, **options: Any) -> Outcome | CallError:
    """One call, after which nothing is open, held or under way."""
    try:
        came: Outcome | CallError = await Call(source, rules, runtime, **options).run()
    except CallError as failure:
        came = failure
    owes_nothing(source, runtime)
    return came


def owes_nothing(source: ScriptedSource, runtime: Runtime) -> None:
    assert source.opened == source.closed
    assert all(view.inflight == 0 for view in runtime.paces(anyio.current_time()).values())


def told(came: Outcome | CallError) -> list[tuple[Any, ...]]:
    record = came.record if isinstance(came, CallError) else came
    return [(one.number, one.reason or one.completed, one.hedge, one.text) for one in record.attempts]


CASES = {
    "nothing is late": ([says(FIRST, 3.0)], [(1, "whole", None, FIRST)], None),
    "the second is faster": (
        [says(FIRST, 30.0), says(SECOND, 1.0)],
        [(1, "hedge.lost", None, ""), (2, "whole", "won", SECOND)],
        "won",
    ),
    "the first is faster": (
        [says(FIRST, 4.0), says(SECOND, 2.0)],
        [(2, "hedge.lost", "lost", ""), (1, "whole", None, FIRST)],
        "lost",
    ),
    "the second fails": (
        [says(FIRST, 6.0), BROKEN],
        [(2, "transport.reset", "lost", ""), (1, "whole", None, FIRST)],
        "lost",
    ),
    "the first fails later": (
        [[*says(FIRST, 0)[:3], pause(5.0), BROKEN], says(SECOND, 4.0)],
        [(1, "transport.reset", None, ""), (2, "whole", "won", SECOND)],
        "won",
    ),
    "both fail, and the rules go on": (
        [
            [*says(FIRST, 0)[:3], pause(5.0), BROKEN],
            [*says(FIRST, 0)[:3], pause(4.0), CUT],
            says("Third.", 1.0),
        ],
        [
            (1, "transport.reset", None, ""),
            (2, "transport.incomplete", "lost", ""),
            (3, "whole", None, "Third."),
        ],
        "lost",
    ),
    "the second wins, and breaks": (
        [says(FIRST, 30.0), [*says(SECOND, 1.0)[:-3], BROKEN], says("Third.", 1.0)],
        [
            (1, "hedge.lost", None, ""),
            (2, "transport.reset", "won", SECOND),
            (3, "whole", None, "Third."),
        ],
        "won",
    ),
}


@ON_BOTH
@pytest.mark.parametrize("case", CASES)
def test_one_of_two_is_delivered_and_both_are_on_the_record(case, backend) -> None:
    """Records stand in the order in which attempts ended; the slower one has a reason of its own."""
    attempts, records, result = CASES[case]

    async def main() -> None:
        seen: list[Any] = []
        runtime, _ = knowing((seen.append,))
        came = await asked(asks(*attempts), runtime, policy())
        assert told(came) == records
        assert isinstance(came, Outcome)
        assert came.text == records[-1][3]
        assert [one.result for one in seen if isinstance(one, Hedged)] == ([result] if result else [])

    run_virtual(main, backend=backend)


@ON_BOTH
def test_a_second_request_comes_after_its_delay_and_saves_the_wait(backend) -> None:
    """Due after three medians and the allowance for long inputs; the call ends when the second answer does."""

    async def main() -> None:
        runtime, _ = knowing()
        source = asks(says(FIRST, 50.0), says(SECOND, 0.5))
        began = anyio.current_time()
        await asked(source, runtime, policy())
        tokens = -(-Request(REQUEST).input_bytes // 4)
        due = 3.0 + 0.1 * tokens / 1000
        assert source.exchanges[1].opened_at - began == pytest.approx(due)
        assert anyio.current_time() - began == pytest.approx(due + 0.5)

    run_virtual(main, backend=backend)


def cool(runtime: Runtime, hedges: Hedges) -> None:
    now = anyio.current_time()
    runtime.cooldown("m").refused("provider.rate_limited", sent=now, now=now, wait=0.0)


def use_up(runtime: Runtime, hedges: Hedges) -> None:
    for _ in range(10):
        hedges.spend()


NEVER: dict[str, tuple[dict[str, Any], Any]] = {
    "the ramp of a cool-down": ({}, cool),
    "less than a fifth of a limit": ({}, lambda _, hedges: hedges.stated(Limits(tokens=Limit(100, 19)))),
    "everybody is slow": ({}, lambda _, hedges: [hedges.first_token(2.5) for _ in range(32)]),
    "the allowance is spent": ({}, use_up),
    "no retry token": ({"retry": AGAIN.replace(quota=Quota(size=0))}, None),
    "no attempt is left": ({"retry": AGAIN.replace(attempts=2), "first": [status(200), BROKEN]}, None),
    "no room in the budget": ({"budgets": [budget("0.0150")]}, None),
    "paused": ({}, None),
}


@ON_BOTH
@pytest.mark.parametrize("case", NEVER)
def test_never(case, backend) -> None:
    """In each of these states the call waits for its one request."""
    sections, bring_about = NEVER[case]
    sections = dict(sections)
    before = [sections.pop("first")] if "first" in sections else []

    async def main() -> None:
        runtime, hedges = knowing()
        source = asks(*before, [status(200), *says(FIRST, 9.0)[1:]], says(SECOND, 1.0))

        async def later() -> None:
            await anyio.sleep(0.5)
            if bring_about is not None:
                bring_about(runtime, hedges)
            if case == "paused":
                runtime.pause("test")

        async with anyio.create_task_group() as group:
            group.start_soon(later)
            came = await asked(source, runtime, policy(**sections))
        assert [one[1] for one in told(came)] == [*["transport.reset"] * len(before), "whole"]
        assert source.opened == 1 + len(before)

    run_virtual(main, backend=backend)


@ON_BOTH
def test_budgets_hold_both_and_settle_each_once(backend) -> None:
    """While both run, both are held; afterwards each has its charge, and the balance is what they cost."""

    async def main() -> None:
        runtime, _ = knowing()
        rules = policy(budgets=[budget("1.00")])
        held: list[int] = []

        async def look() -> None:
            await anyio.sleep(3.5)
            held.append((await balance(runtime, rules.budgets[0]))[1])

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            came = await asked(asks(says(FIRST, 30.0), says(SECOND, 1.0)), runtime, rules)
        charges = [one.charged for one in came.attempts]
        assert held == [sum(charge.held for each in charges for charge in each)]
        assert [len(each) for each in charges] == [1, 1]
        flat = [charge for each in charges for charge in each]
        wanted = (sum(one.settled for one in flat), 0, sum(one.uncertain for one in flat))
        assert await balance(runtime, rules.budgets[0]) == wanted

    run_virtual(main, backend=backend)


@ON_BOTH
@pytest.mark.parametrize("deliver", ["committed", "restarting"])
def test_nothing_of_the_loser_reaches_the_consumer(deliver, backend) -> None:
    """A consumer of a stream reads one answer, whichever it is."""

    async def main() -> None:
        for attempts, text in (
            ([says(FIRST, 30.0), says(SECOND, 1.0)], SECOND),
            ([says(FIRST, 4.0), says(SECOND, 2.0)], FIRST),
        ):
            runtime, _ = knowing()
            source = asks(*attempts)
            got: list[Any] = []
            async with streamguard.stream(source, policy=policy(deliver=deliver), runtime=runtime) as events:
                async for event in events:
                    got.append(event)
            assert "".join(event.text for event in got if isinstance(event, Delta)) == text
            owes_nothing(source, runtime)

    run_virtual(main, backend=backend)


MOMENTS = [0.0, 0.5, 2.9999, 3.0, 3.001, 3.0011, 3.5, 4.0, 4.0009, 4.001, 4.0011, 4.5, 5.0, 6.0]


@ON_BOTH
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
@pytest.mark.parametrize("faster", ["first", "second"])
def test_whenever_it_is_ended_nothing_is_left(how, moment, faster, backend) -> None:
    """Whoever cancels or interrupts a call while two streams run leaves no stream, turn, hold or token behind, and one
    record for each request that was sent."""

    async def main() -> None:
        runtime, _hedges = knowing()
        rules = policy(budgets=[budget("1.00")])
        assert rules.retry.quota is not None
        times = (4.0, 5.0) if faster == "first" else (30.0, 1.0)
        source = asks(says(FIRST, times[0], rest=1.0), says(SECOND, times[1], rest=1.0))
        call = Call(source, rules, runtime)
        with anyio.move_on_after(moment if how == "cancelled" else 90) as scope:
            async with anyio.create_task_group() as group:

                async def stop() -> None:
                    await anyio.sleep(moment)
                    call.interrupt("test")

                if how == "interrupted":
                    group.start_soon(stop)
                with contextlib.suppress(CallError):
                    await call.run()
                group.cancel_scope.cancel()
        assert scope.cancelled_caught == (how == "cancelled" and call.outcome is None)
        owes_nothing(source, runtime)
        numbers = sorted(one.number for one in call.record.attempts)
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) == max(source.opened, how == "interrupted")
        assert not source.opened or (await balance(runtime, rules.budgets[0]))[1] == 0
        assert runtime.quota(rules.retry.quota).tokens == rules.retry.quota.size

    run_virtual(main, backend=backend)


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("faster", ["first", "second"])
def test_every_step_of_a_race_may_be_the_last(faster, again) -> None:
    """Cancelled at each turn of the event loop, one after the other, a race leaves nothing open, held or running."""
    times = (4.0, 5.0) if faster == "first" else (30.0, 1.0)

    async def main() -> int:
        for step in steps():
            runtime, _ = knowing()
            rules = policy(budgets=[budget("1.00")])
            source = asks(says(FIRST, times[0]), says(SECOND, times[1]))
            came = await cancelled_at(step, Call(source, rules, runtime).run, again=again)
            owes_nothing(source, runtime)
            assert (came.error, came.left) == (None, [])
            assert not source.opened or (await balance(runtime, rules.budgets[0]))[1] == 0
            if came.done:
                return step
        return 0

    assert run_virtual(main) > 10


@pytest.mark.parametrize(
    ("source", "sections", "deliver", "words"),
    [
        (asks(says(FIRST, 0)), {}, "live", "deliver: committed or restarting"),
        (asks(says(FIRST, 0)), {"deliver": "live"}, None, "deliver: committed or restarting"),
        (asks(says(FIRST, 0)), {"retry": Retry()}, None, "retry.attempts is 1"),
        (script(answer(FIRST), request=None), {"prices": {}}, None, "hedge needs a source that shows its request"),
    ],
    ids=["live by the door", "live by the policy", "one attempt", "an opaque source"],
)
def test_what_cannot_be_hedged_is_refused_before_anything_is_sent(source, sections, deliver, words) -> None:
    """Each is a typed error that names the knob."""

    async def main() -> None:
        with pytest.raises(PolicyError, match=words):
            Call(source, policy(**sections), None, deliver=deliver)
        assert source.opened == 0

    run_virtual(main)


@ON_BOTH
def test_a_refused_first_request_tells_the_cool_down(backend) -> None:
    """A 429 of one stream holds everybody else back, though the other stream goes on."""

    async def main() -> None:
        runtime, _ = knowing()
        refused = [pause(4.0), Failed(reason="provider.rate_limited", message="slow down", status=429, billable=False)]
        source = asks([*says(FIRST, 0)[:3], *refused], says(SECOND, 2.0))
        came = await asked(source, runtime, policy())
        assert told(came) == [(1, "provider.rate_limited", None, ""), (2, "whole", "won", SECOND)]
        assert not runtime.cooldown("m").calm(anyio.current_time())

    run_virtual(main, backend=backend)


@ON_BOTH
def test_first_tokens_are_measured_of_first_requests(backend) -> None:
    """A lost first request counts with the time it was waited for, so the quantile is not made of winners."""

    async def main() -> None:
        runtime, hedges = knowing()
        before = len(hedges._order)
        await asked(asks(says(FIRST, 30.0), says(SECOND, 1.0)), runtime, policy())
        assert (len(hedges._order) - before, hedges._order[-1]) == (1, pytest.approx(4.001, abs=0.01))

    run_virtual(main, backend=backend)

"""Attempts wait for their turns, and every turn is settled or given back. In virtual time, on both backends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import msgspec
import pytest

import streamguard
from streamguard import GaveUp, Interrupted, Policy, Retry, Rule, Runtime, Timeouts
from streamguard.budgets.spec import BudgetSpec
from streamguard.engine.call import Call
from streamguard.engine.pacing.local import LocalPacer
from streamguard.errors import CallError
from streamguard.events import Event, Failed, Usage
from streamguard.outcome import Outcome
from streamguard.pace.limits import Limit, Limits
from streamguard.pace.spec import PaceSpec
from streamguard.pricing.price import PriceSpec
from streamguard.testing import ScriptedSource, answer, error, pause, script, stall, status
from streamguard.testing.clock import BACKENDS, run_virtual

ON_BOTH = pytest.mark.parametrize("backend", BACKENDS)
GOOD = "Thirty."
PACE = PaceSpec(ramp=0)
LIMITS = {"anthropic-ratelimit-requests-limit": "60", "anthropic-ratelimit-requests-remaining": "60"}
MANY = {"anthropic-ratelimit-requests-limit": "600", "anthropic-ratelimit-requests-remaining": "600"}
USED_UP = {**LIMITS, "anthropic-ratelimit-requests-remaining": "0"}


def good(headers: dict[str, str] | None = None, seconds: float = 0.0, **usage: int) -> list[Any]:
    """A whole answer after so many seconds, that states limits."""
    counts: dict[str, int] = {"input_tokens": 12, "output_tokens": 2, **usage}
    events: list[Event] = answer(GOOD, usage=Usage(**counts))
    return [status(200, headers or LIMITS), events[0], pause(seconds), *events[1:]]


def pacer_of(runtime: Runtime, source: ScriptedSource, spec: PaceSpec = PACE) -> LocalPacer:
    """The pacer of a source's model."""
    assert source.request is not None
    found = runtime.pacer(spec, source.request.model)
    assert isinstance(found, LocalPacer)
    return found


async def asked(source: ScriptedSource, runtime: Runtime, policy: Policy, **options: Any) -> Outcome | CallError:
    """One call."""
    try:
        return await Call(source, policy, runtime, **options).run()
    except CallError as failure:
        return failure


def record_of(came: Outcome | CallError) -> Any:
    """The last attempt's record."""
    return came.attempts[-1]


@ON_BOTH
def test_calls_go_at_the_rate_that_answers_state(backend) -> None:
    """Once the limit is known, requests leave at it, in the order in which they came; the record says for how long
    each waited."""

    async def main() -> tuple[list[float], list[float]]:
        runtime, policy = Runtime(), Policy(pace=PACE)
        sources = [script(good()) for _ in range(9)]
        began = anyio.current_time()
        await asked(sources[0], runtime, policy)
        records: list[Any] = []

        async def one(source: ScriptedSource) -> None:
            records.append(record_of(await asked(source, runtime, policy)))

        async with anyio.create_task_group() as group:
            for source in sources[1:]:
                group.start_soon(one, source)
                await anyio.sleep(0.001)
        sent = [source.exchanges[0].opened_at - began for source in sources]
        return sent, [record.waited.pace for record in records]

    sent, waited = run_virtual(main, backend=backend)
    assert sent == sorted(sent)
    gaps = [later - earlier for earlier, later in pairwise(sent[2:])]
    assert gaps == pytest.approx([1 / 1.3] * 6, rel=0.02)
    assert waited == pytest.approx(sent[1:], abs=0.01)


@ON_BOTH
def test_without_a_pace_calls_go_as_they_come(backend) -> None:
    """`pace: null` sends the same requests at the same moments as if no answer had stated anything."""

    async def main(policy: Policy, headers: dict[str, str]) -> list[float]:
        runtime = Runtime()
        sources = [script(good(headers, seconds=i / 10)) for i in range(20)]
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for i, source in enumerate(sources):
                await anyio.sleep(0.05)
                group.start_soon(asked, source, runtime, policy)
                if i == 10:
                    await anyio.sleep(1)
        assert runtime.paces(anyio.current_time()) == {}
        return [source.exchanges[0].opened_at - began for source in sources]

    off = run_virtual(main, Policy(pace=None), USED_UP, backend=backend)
    assert off == pytest.approx([0.05 * (i + 1) + (i > 10) for i in range(20)])


ENDS: dict[str, Any] = {
    "a whole answer": (lambda: script(good(MANY)), {}, {"requests": 1, "input": 12, "output": 2}),
    "429": (lambda: script([error("rate_limit_error", headers=MANY)]), {}, {"requests": 0, "input": 0, "output": 0}),
    "529": (lambda: script([error("overloaded_error")]), {}, {"requests": 0, "input": 0, "output": 0}),
    "spend cap": (
        lambda: script([error("rate_limit_error", code="enforced_spend_limit_reached")]),
        {},
        {"requests": 0, "input": 0, "output": 0},
    ),
    "no connection": (
        lambda: script([Failed(reason="transport.connect", message="no", sent=False, billable=False)]),
        {},
        {"requests": 0, "input": 0, "output": 0},
    ),
    "refused before work": (
        lambda: script([error("invalid_request_error")]),
        {},
        {"requests": 0, "input": 0, "output": 0},
    ),
}


@ON_BOTH
@pytest.mark.parametrize(("source", "sections", "used"), ENDS.values(), ids=ENDS)
def test_every_turn_is_reported_once(backend, source, sections: dict[str, Any], used: dict[str, int]) -> None:
    """What is missing in the buckets in the end is what the attempt used; no turn stays open."""

    async def main() -> tuple[float, list[float]]:
        runtime, made = Runtime(), source()
        pacer = pacer_of(runtime, made)
        pacer.pace.seen(
            anyio.current_time(),
            Limits(requests=Limit(600, 600), input_tokens=Limit(60_000, 60_000), output_tokens=Limit(60_000, 60_000)),
        )
        pacer.pace.state.levels = [9.0, 900.0, 900.0, 0.0]
        pacer.pace.knobs = msgspec.structs.replace(pacer.pace.knobs, margin=1e-9)  # buckets that do not fill
        await asked(made, runtime, Policy(pace=PACE, **sections))
        state = pacer.pace.state
        return state.inflight, [state.levels[0] - 9, state.levels[1] - 900, state.levels[2] - 900]

    inflight, left = run_virtual(main, backend=backend)
    assert inflight == 0
    assert left == pytest.approx([-units for units in used.values()], abs=1e-3)


async def interrupted(call: Call, after: float) -> Outcome | CallError:
    """A call that somebody interrupts after some seconds."""
    came: list[Outcome | CallError] = []

    async def run() -> None:
        try:
            came.append(await call.run())
        except CallError as failure:
            came.append(failure)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.sleep(after)
        call.interrupt("test")
    return came[0]


@ON_BOTH
@pytest.mark.parametrize("after", [0.0, 0.3, 1.0, 3.0, 4.4, 8.0])
def test_an_interrupt_gives_the_turn_back(backend, after: float) -> None:
    """Whenever it comes, in the line, before the turn or in the answer: no turn stays open, and nothing unsent is
    charged."""

    async def main() -> tuple[bool, float, float]:
        runtime = Runtime()
        first, source = script(good()), script(good(seconds=5))
        await asked(first, runtime, Policy(pace=PACE))
        pacer = pacer_of(runtime, source)
        pacer.pace.state.levels = [-3.0] * 4
        came = await interrupted(Call(source, Policy(pace=PACE), runtime), after)
        assert isinstance(came, Interrupted)
        return bool(source.exchanges), pacer.pace.state.inflight, pacer.pace.state.levels[0]

    sent, inflight, level = run_virtual(main, backend=backend)
    assert inflight == 0
    assert sent == (after > 4 / 1.3)
    assert level == pytest.approx(min(1.0, -3.0 + 1.3 * after - sent), abs=0.01)


@ON_BOTH
def test_a_cancelled_wait_gives_the_turn_back(backend) -> None:
    """Whoever leaves the line leaves nothing in it: the next one has the turn."""

    async def main() -> tuple[float, float]:
        runtime = Runtime()
        await asked(script(good()), runtime, Policy(pace=PACE))
        left, stays = script(good()), script(good())
        pacer = pacer_of(runtime, left)
        pacer.pace.state.levels = [-1.0] * 4
        began = anyio.current_time()

        async def leaving() -> None:
            with anyio.move_on_after(1.0):
                await asked(left, runtime, Policy(pace=PACE))

        async with anyio.create_task_group() as group:
            group.start_soon(leaving)
            await anyio.sleep(0.1)
            group.start_soon(asked, stays, runtime, Policy(pace=PACE))
        assert left.exchanges == []
        return stays.exchanges[0].opened_at - began, pacer.pace.state.inflight

    at, inflight = run_virtual(main, backend=backend)
    assert (at, inflight) == (pytest.approx(2 / 1.3, rel=0.1), 0)


@ON_BOTH
def test_the_deadline_counts_the_wait_of_a_call_and_not_of_a_job(backend) -> None:
    """Somebody waits for a call, so its turn has to come in time; a job's row has not begun before it."""

    async def main(patient: bool) -> Outcome | CallError:
        runtime, policy = Runtime(), Policy(pace=PACE, timeouts=Timeouts(total=2))
        await asked(script(good()), runtime, policy)
        source = script(good())
        pacer_of(runtime, source).pace.state.levels = [-3.0] * 4
        return await asked(source, runtime, policy, patient=patient)

    late, row = (run_virtual(main, patient, backend=backend) for patient in (False, True))
    assert isinstance(late, streamguard.DeadlineExceeded)
    assert isinstance(row, Outcome)
    assert (row.attempts[0].waited.pace, row.seconds) == (pytest.approx(4 / 1.3, rel=0.1), pytest.approx(0, abs=0.1))


@ON_BOTH
def test_a_denied_budget_gives_the_turn_back(backend) -> None:
    """A request without room is not sent, and takes nobody's turn."""

    async def main() -> tuple[Any, float, float]:
        runtime, source = Runtime(), script(good())
        budget = BudgetSpec(name="b", per="call", cost_usd="0.000001")
        policy = Policy(pace=PACE, budgets=[budget], prices={source.request.model: PriceSpec(input="1", output="10")})
        pacer = pacer_of(runtime, source)
        pacer.pace.seen(anyio.current_time(), Limits(requests=Limit(600, 600)))
        pacer.pace.state.levels = [5.0] * 4
        came = await asked(source, runtime, policy)
        return came, pacer.pace.state.inflight, pacer.pace.state.levels[0]

    came, inflight, level = run_virtual(main, backend=backend)
    assert (type(came), inflight, level) == (streamguard.BudgetExhausted, 0, pytest.approx(5.0, abs=0.1))


@ON_BOTH
def test_nothing_is_sent_while_somebody_paused_or_all_cool_down(backend) -> None:
    """A turn that came during a pause, or after a refusal of somebody else, is not used: the request waits again."""

    async def main() -> tuple[float, float]:
        runtime = Runtime()
        await asked(script(good()), runtime, Policy(pace=PACE))
        source = script(good())
        pacer = pacer_of(runtime, source)
        pacer.pace.state.levels = [-1.0] * 4
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(asked, source, runtime, Policy(pace=PACE))
            await anyio.sleep(0.5)
            cooldown = runtime.cooldown(source.request.model)
            cooldown.refused("provider.rate_limited", sent=began, now=anyio.current_time(), wait=10.0)
        return source.exchanges[0].opened_at - began, pacer.pace.state.inflight

    at, inflight = run_virtual(main, backend=backend)
    assert at >= 10.5
    assert inflight == 0


@ON_BOTH
def test_a_silent_provider_has_fewer_places(backend) -> None:
    """An answer that never began, given up by the clock for it, speaks of a queue."""

    async def main() -> float:
        runtime, source = Runtime(), script([status(200), stall()])
        pacer = pacer_of(runtime, source)
        policy = Policy(pace=PACE, timeouts=Timeouts(first_token=5))
        failed = await asked(source, runtime, policy)
        assert isinstance(failed, GaveUp)
        assert failed.reason == "timeout.first_token"
        assert pacer.pace.state.inflight == 0
        return pacer.pace.state.places

    assert run_virtual(main, backend=backend) == 1.0


@ON_BOTH
def test_a_retry_takes_a_turn_of_its_own(backend) -> None:
    """Each attempt of a call is charged; the one that was refused is given back."""

    async def main() -> tuple[int, float]:
        runtime = Runtime()
        source = script([error("rate_limit_error", headers=LIMITS)], good())
        retry = Retry(attempts=2, rules=[Rule(when="provider.rate_limited")])
        came = await asked(source, runtime, Policy(pace=PACE, retry=retry))
        state = pacer_of(runtime, source).pace.state
        return len(came.attempts), state.own

    attempts, own = run_virtual(main, backend=backend)
    assert attempts == 2
    assert own == pytest.approx(0.7, abs=0.1)


@ON_BOTH
def test_models_of_one_pool_share_a_pace(backend) -> None:
    """And models of others do not."""

    async def main() -> list[str]:
        runtime = Runtime()
        spec = PaceSpec(pools={"big-*": "big"})
        for model in ("big-1", "big-2", "small"):
            await asked(
                script(good(), request={"model": model, "max_tokens": 9, "messages": []}), runtime, Policy(pace=spec)
            )
        return list(runtime.paces(anyio.current_time()))

    assert run_virtual(main, backend=backend) == ["big", "small"]

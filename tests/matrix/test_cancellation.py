"""Whoever leaves a call, and whenever: nothing is left open, held or running, and a cancellation stays one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from streamguard import api
from streamguard.adapters.anthropic.source import messages
from streamguard.engine.runtime import Runtime
from streamguard.errors import CallError
from streamguard.testing import Script, ScriptedServer, ScriptedSource, faults, run_virtual
from streamguard.testing.faults import Say
from tests.clients import plain_client
from tests.matrix.cells import balances
from tests.matrix.configs import configs
from tests.matrix.grid import FAR
from tests.matrix.stepping import cancelled_at, steps

BUDGETED = configs()["strict_budget"]
SCRIPTS: dict[str, Callable[[], Script]] = {
    "a good answer": lambda: Script.of(Say().answer()),
    "a dead document, then a good answer": lambda: faults.BY_ID["F41-number"].script(times=1),
    "an overload, a wait, a good answer": lambda: faults.BY_ID["F24-overloaded"].script(times=1),
    "a reset before the head": lambda: faults.BY_ID["F14-no-answer"].script(),
    "silence": lambda: faults.BY_ID["F02-mid-stream"].script(),
}


async def _settled(runtime: Runtime, spent: int) -> list[str]:
    """What is wrong with the ledgers after a call."""
    wrong = []
    for balance in await balances(runtime):
        if balance.held:
            wrong.append(f"{balance.held} micro-USD are held")
        if balance.taken < spent:
            wrong.append(f"{spent} micro-USD were spent, {balance.taken} are taken")
    return wrong


def _spent(exchanges: Any) -> int:
    return sum(one.bill.input_tokens * 3 + one.bill.output_tokens * 15 for one in exchanges)


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_cancelled_at_every_step(name: str, again: bool) -> None:
    """A call under a strict budget, cancelled at each turn of the loop: closed, settled, and nothing but cancelled."""

    async def main() -> tuple[int, list[str]]:
        wrong = []
        for step in steps():
            source = ScriptedSource(SCRIPTS[name](), request=BUDGETED.request)
            runtime = Runtime(jitter=lambda: 0.5)
            came = await cancelled_at(
                step, lambda s=source, r=runtime: api.run(s, policy=BUDGETED.policy, runtime=r), again=again
            )
            wrong += [f"step {step}: {one}" for one in (*came.left, *await _settled(runtime, _spent(source.exchanges)))]
            if source.opened != source.closed:
                wrong.append(f"step {step}: {source.opened - source.closed} streams are open")
            if came.error is not None and not isinstance(came.error, CallError):
                wrong.append(f"step {step}: {came.error!r}")
            if runtime.calls:
                wrong.append(f"step {step}: the runtime still knows the call")
            if came.done:
                return step, wrong
        return 0, [*wrong, "it never ended"]

    last, wrong = run_virtual(main, within=FAR)
    assert wrong == []
    assert last > 5


def test_cancelled_at_every_step_on_sockets() -> None:
    """The same through the SDK: no pool slot is taken, and the server sees each client go."""

    async def main() -> tuple[int, list[str]]:
        wrong: list[str] = []
        script = faults.BY_ID["F41-number"].script(times=1)
        async with ScriptedServer(script_for=lambda _: script) as server, plain_client(server.url) as client:
            pool = client._client._transport._pool
            for step in steps(3):
                source = messages(client, **faults.request())
                policy = configs()["extraction"].policy
                came = await cancelled_at(step, lambda s=source, p=policy: api.run(s, policy=p))
                taken = [one for one in pool.connections if not (one.is_idle() or one.is_closed())]
                wrong += [f"step {step}: {one}" for one in (*came.left, *taken)]
                if came.done:
                    break
            with anyio.move_on_after(1):
                while any(one.open for one in server.exchanges):  # noqa: ASYNC110  the server is as its users see it
                    await anyio.sleep(0.01)
            wrong += [f"request {one.number} is open" for one in server.exchanges if one.open]
        return step, wrong

    last, wrong = run_virtual(main, grace=0.002, within=FAR)
    assert wrong == []
    assert last > 30


@pytest.mark.parametrize("deliver", ["committed", "live", "restarting"])
@pytest.mark.parametrize("leave", ["break", "raise", "abort"])
def test_left_at_every_event(deliver: Any, leave: str) -> None:
    """A consumer who stops, raises or aborts at any event leaves nothing behind (F72)."""

    async def main() -> list[str]:
        wrong: list[str] = []
        for at in range(40):
            source = ScriptedSource(faults.BY_ID["F14-cut"].script(times=1), request=BUDGETED.request)
            runtime = Runtime(jitter=lambda: 0.5)
            seen = 0
            try:
                async with api.stream(source, policy=BUDGETED.policy, deliver=deliver, runtime=runtime) as events:
                    async for _ in events:
                        seen += 1
                        if seen > at:
                            if leave == "break":
                                break
                            if leave == "raise":
                                raise KeyError(at)
                            events.interrupt("the test")
            except (KeyError, CallError) as error:
                if isinstance(error, KeyError) != (leave == "raise") and seen > at:
                    wrong.append(f"event {at}: {error!r}")
            wrong += [f"event {at}: {one}" for one in await _settled(runtime, _spent(source.exchanges))]
            if source.opened != source.closed or runtime.calls:
                wrong.append(f"event {at}: something is left")
            if seen <= at:
                break
        return wrong

    assert run_virtual(main, within=FAR) == []


def test_a_timer_and_a_cancellation_at_the_same_moment() -> None:
    """Cancelled at the very time at which a clock runs out: the cancellation is not swallowed (F73)."""

    async def main(moment: float) -> str:
        source = ScriptedSource(faults.BY_ID["F02-mid-stream"].script(), request=BUDGETED.request)
        with anyio.move_on_at(anyio.current_time() + moment) as scope:
            try:
                await api.run(source, policy=configs()["clocks"].policy)
            except CallError as error:
                return error.reason
        assert source.opened == source.closed
        return "cancelled" if scope.cancelled_caught else "nothing"

    came = {moment: run_virtual(main, moment) for moment in (59.999, 60.0, 60.001, 119.999, 120.0, 121.0)}
    assert came.pop(121.0) == "timeout.progress"
    assert set(came.values()) <= {"cancelled", "timeout.progress"}
    assert came[59.999] == came[60.001] == "cancelled"

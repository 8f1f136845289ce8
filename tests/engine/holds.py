"""What the tests of dispatch share: a price, a request, its hold, and answers."""

from __future__ import annotations

from typing import Any

from streamguard import (
    Policy,
    Retry,
    Rule,
    Runtime,
)
from streamguard.budgets.ledger import Balance
from streamguard.budgets.spec import BudgetSpec
from streamguard.budgets.upper_bound import bound
from streamguard.events import BlockStarted, BlockStopped, Delta, Failed, Metered, Started, Stopped, Usage
from streamguard.pricing.price import PriceSpec
from streamguard.request import Request
from streamguard.testing.scripted import script
from streamguard.testing.steps import pause

REQUEST = {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}


PRICES = {"m": PriceSpec(input="1", output="10")}


AGAIN = Retry(attempts=2, rules=[Rule(when=["*"])])


USED = Usage(input_tokens=10, output_tokens=100)


SPENT = 10 * 1 + 100 * 10
"""Micro-USD of `USED`."""


BOUND = bound(Request(REQUEST), PRICES["m"].price())


HOLD = BOUND.micro_usd or 0


def budget(usd: str = "1.00", **fields: Any) -> BudgetSpec:
    return BudgetSpec.model_validate({"name": "b", "cost_usd": usd, **fields})


def usd(micro: int) -> str:
    return f"{micro / 1_000_000:.6f}"


def policy(*budgets: BudgetSpec, **sections: Any) -> Policy:
    return Policy(budgets=budgets, prices=PRICES, **sections)


def good(text: str = '{"a": 1}') -> list[Any]:
    return [
        [Started(id="m1", model="m", usage=Usage(input_tokens=10))],
        [BlockStarted(0, "text", type="text")],
        [Delta(0, "text", text)],
        [BlockStopped(0)],
        [Metered(USED, stop_reason="end_turn")],
        [Stopped("end_turn")],
    ]


DEAD = [*good()[:2], [Delta(0, "text", '{"a" 1')], pause(1), *good()[3:]]


REFUSED = Failed(reason="provider.overloaded", message="…", status=529, sent=True, billable=False)


def ask(*attempts: Any, **options: Any):
    return script(*attempts, request=REQUEST, chunk="event", **options)


async def balance(runtime: Runtime, spec: BudgetSpec, **labels: Any) -> tuple[int, int, int]:
    ledger = (await runtime.accounts.ledger(spec.ledger)).ledger
    found: Balance = await ledger.balance(spec.scopes(job=runtime.job, labels=labels)[0].key)
    return found.settled, found.held, found.uncertain

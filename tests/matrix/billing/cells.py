"""One cell: a budget, a request, answers that end in some way, and a caller who may leave; and what must hold of it.

Every true bill is within what was held for it, and within what was charged for it; all together are within the cap.
Records tell an interval that has the truth in it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import anyio

import streamguard
from streamguard import Policy, Runtime
from streamguard.outcome import AttemptRecord, CallRecord
from streamguard.request import Request
from streamguard.testing import ScriptedSource, run_virtual
from streamguard.testing.scripted import Script
from tests.matrix.billing.answers import ENDINGS, Answer, made
from tests.matrix.billing.parts import CONTRIVED, TEXTS
from tests.matrix.billing.rates import Owed
from tests.matrix.billing.requests import Asked, asked
from tests.matrix.billing.reserved import dearest

CALLS, ATTEMPTS = 3, 2
CLOCKS = {"first_token": 20.0, "first_token_per_1k_input": 0.0, "progress": 15.0, "alive": 12.0, "total": 300.0}
AGAIN = {"attempts": ATTEMPTS, "rules": [{"when": ["*"]}]}


class Spent(NamedTuple):
    """One attempt: what it truly cost, and what is told of it."""

    answer: Answer
    owed: Owed
    record: AttemptRecord
    left: bool
    """Whether nobody read it to its end, so that its record cannot know what was made unseen."""


def violations(seed: int) -> tuple[list[str], list[str]]:
    """Run one cell.

    :returns: what does not hold, and the names of the endings that were played.
    """
    chance = random.Random(seed)
    stops = chance.random() < 0.5
    request = asked(chance, small=chance.random() < 0.7)
    while stops and _contrived(request):  # a declared abort is charged by estimates
        request = asked(chance, small=True)
    answers = [_answer(chance, request, stops=stops) for _ in range(CALLS * ATTEMPTS)]
    most = dearest(request, "us")
    caps = (math.ceil(most.micro_usd * _times(chance)), math.ceil(most.tokens * _times(chance)))
    policy = Policy.model_validate(
        {
            "timeouts": CLOCKS,
            "retry": AGAIN,
            "budgets": [
                {"name": "money", "cost_usd": f"{caps[0] / 1_000_000:.6f}", "abort_stops_billing": stops},
                {"name": "tokens", "tokens": caps[1], "abort_stops_billing": stops},
            ],
        }
    )
    leaves = [chance.choice((None, None, None, "cancelled", "left")) for _ in range(CALLS)]
    spent: list[Spent] = run_virtual(_calls, policy, request, answers, leaves)
    where = f"{seed}: {request.model}, {'stops' if stops else 'goes on'}"
    found = [f"{where}: {one.answer.name}: {wrong}" for one in spent for wrong in _check(one)]
    for name, cap, true in (
        ("micro-USD", caps[0], float(sum(one.owed.micro_usd for one in spent))),
        ("tokens", caps[1], sum(one.owed.tokens for one in spent)),
    ):
        if true > cap:
            found.append(f"{where}: {true:.0f} {name} of a cap of {cap}: {[one.answer.name for one in spent]}")
    return found, [one.answer.name.split(":")[0] for one in spent]


def _contrived(request: Asked) -> bool:
    said = json.dumps(request.body, ensure_ascii=False)
    return any(TEXTS[name][0] in said for name in CONTRIVED)


def _times(chance: random.Random) -> float:
    return chance.choice((1.3, 2.5, 4.0, 12.0))


def _answer(chance: random.Random, request: Asked, *, stops: bool) -> Answer:
    return chance.choice(ENDINGS)(chance, made(chance, request, stops=stops))


async def _calls(policy: Policy, request: Asked, answers: list[Answer], leaves: list[str | None]) -> list[Spent]:
    told: list[Any] = []
    runtime = Runtime(jitter=lambda: 0.5, hooks=[told.append])
    spent: list[Spent] = []
    for number, leave in enumerate(leaves):
        its = answers[number * ATTEMPTS : (number + 1) * ATTEMPTS]
        body = Request(request.body, betas=list(request.betas))
        source = ScriptedSource(Script.of(*(one.items for one in its)), request=body, chunk="event")
        told.clear()
        record = await _call(source, policy, runtime, leave, told)
        sent = [one for one in record if one.number <= len(source.exchanges)]
        for exchange, attempt in zip(source.exchanges, sent, strict=False):
            answer = its[exchange.number - 1]
            spent.append(Spent(answer, answer.bill(exchange), attempt, left=not exchange.complete))
    return spent


async def _call(
    source: ScriptedSource, policy: Policy, runtime: Runtime, leave: str | None, told: list[Any]
) -> list[AttemptRecord]:
    """One call, to its end or to where its caller leaves."""
    try:
        if leave == "left":
            async with streamguard.stream(source, policy=policy, runtime=runtime, deliver="live") as stream:
                seen = 0
                async for _ in stream:
                    if (seen := seen + 1) == 3:
                        break
        elif leave == "cancelled":
            with anyio.move_on_after(7.0):
                await streamguard.run(source, policy=policy, runtime=runtime)
        else:
            await streamguard.run(source, policy=policy, runtime=runtime)
    except streamguard.CallError:
        pass
    ends = [getattr(one, "record", None) or getattr(one, "outcome", None) for one in told]
    return [attempt for end in ends if isinstance(end, CallRecord) for attempt in end.attempts]


def _check(one: Spent) -> Iterator[str]:
    """What does not hold of one attempt."""
    true = {"micro_usd": one.owed.micro_usd, "tokens": one.owed.tokens}
    if not one.record.charged:
        if one.owed.tokens:
            yield f"{one.owed} was charged to nobody"
        return
    for charge in one.record.charged:
        owed = float(true[charge.unit])
        if owed > charge.held:
            yield f"{owed:.0f} {charge.unit} of a hold of {charge.held}"
        if owed > charge.settled + charge.uncertain:
            yield f"{owed:.0f} {charge.unit}, and {charge.settled} settled, {charge.uncertain} uncertain"
        if one.answer.unknown and not one.left and charge.unit == "micro_usd" and charge.uncertain < charge.held:
            yield f"{charge.settled} settled of what nobody knows"
    if one.answer.goes_on or one.left:
        return
    usage, cost = one.record.usage, one.record.cost
    told = usage.high.whole_input
    if usage.high.input_tokens is not None and told is not None and one.owed.whole_input > told:
        yield f"{one.owed.whole_input} tokens were read, at most {told} are told"
    if usage.high.output_tokens is not None and one.owed.output > usage.high.output_tokens:
        yield f"{one.owed.output} tokens were made, at most {usage.high.output_tokens} are told"
    if cost.high is not None and usage.high.input_tokens is not None and cost.high < one.owed.micro_usd:
        yield f"{float(one.owed.micro_usd):.1f} micro-USD, at most {cost.high} are told"
    if usage.exact and cost.exact and cost.high != math.ceil(one.owed.micro_usd):
        yield f"{float(one.owed.micro_usd):.1f} micro-USD, and exactly {cost.high} are told"

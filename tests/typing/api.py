"""Code as users write it. It is not run: mypy in strict mode and pyright read it, without any plugin.

`tests/typing/test_typing.py` runs both. What must be an error is marked as one, so that a lost type is noticed.
"""

# ruff: noqa: T201, B018
from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

import anthropic
from pydantic import BaseModel

import streamguard
from streamguard import (
    AttemptRecord,
    Backoff,
    BudgetSpec,
    CallError,
    Caps,
    Check,
    Completion,
    Content,
    Cost,
    GuardMiddleware,
    JsonDocument,
    Outcome,
    Policy,
    Price,
    Retry,
    Rule,
    Runtime,
    Source,
    Timeouts,
    Trip,
    UsageRange,
    View,
)
from streamguard.events import Failed


class Invoice(BaseModel):
    number: str
    total: Decimal


client = anthropic.AsyncAnthropic()
blocking = anthropic.Anthropic()
source = streamguard.messages(
    client,
    model="claude-haiku-5-5",
    max_tokens=1024,
    messages=[{"role": "user", "content": "Extract the invoice as JSON."}],
    temperature=0,  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # the SDK has no such argument
)
source = streamguard.messages(
    client,
    model="claude-haiku-5-5",
    max_tokens=1024,
    messages=[{"role": "user", "content": "Extract the invoice as JSON."}],
    system="You read invoices.",
    extra_headers={"x-team": "billing"},
)
streamguard.messages(client, betas=["some-beta-2026-11-01"], model="m", max_tokens=1, messages=[], anything=1)
typed = streamguard.messages(client, output=Invoice, model="claude-haiku-5-5", max_tokens=5, messages=[])
request: dict[str, Any] = {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": []}
streamguard.messages(client, **request)

# -- policies ----------------------------------------------------------------------------------------------------------

rules: list[Rule] = [
    Rule(when=["json.*", "timeout.*", "transport.*"]),
    Rule(when="stop.max_tokens", max_uses=1, patch={"max_tokens": {"multiply": 2, "max": 8192}}),
    Rule(when=("provider.*",), wait=Backoff(max=30), respect_retry_after=True),
]
policy = Policy(
    timeouts=Timeouts(first_token=30, progress=20, total=120),
    caps=Caps(characters=100_000, cost_usd="0.04"),
    json=JsonDocument(schema=Invoice, fence="strip", trailing="cut"),
    completion=Completion(accept=["end_turn"]),
    content=[Content(reason="content.apology", pattern="(?i)sorry", flags=[])],
    retry=Retry(attempts=3, rules=rules),
    budgets=[BudgetSpec(name="invoices", cost_usd="5.00", window="day")],
    prices={"my-model": {"input": "1.00", "output": "5.00"}},
)
JsonDocument(schema={"type": "object"}, enough_when=["/total"])
JsonDocument(schema=list[Invoice])
JsonDocument(schema=Invoice | None)
JsonDocument(schema="request", where="tools")
Policy(jsn=JsonDocument())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
JsonDocument(fence="off")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
loaded = streamguard.load_policy("streamguard:extraction")
assert_type(loaded, Policy)
assert_type(loaded.replace(json=None), Policy)
first_rule: Rule = policy.retry.rules[0]
reasons: Sequence[str] = first_rule.when


# -- doors -------------------------------------------------------------------------------------------------------------


async def extract() -> Invoice:
    outcome = await streamguard.run(source, policy="streamguard:extraction", output=Invoice)
    assert_type(outcome, Outcome[Invoice])
    assert_type(outcome.data, Any)
    listed = await streamguard.run(source, policy=Path("policy.yaml"), output=list[Invoice])
    assert_type(listed.value, list[Invoice])
    assert_type(await streamguard.run(typed, policy=policy), Outcome[Invoice])
    plain = await streamguard.run(source, policy=policy, runtime=Runtime(), labels={"tenant": "acme"})
    assert_type(plain, Outcome[Any])
    return outcome.value


async def watch() -> None:
    async with streamguard.stream(source, policy=policy, output=Invoice, deliver="restarting") as events:
        async for event in events:
            match event:
                case streamguard.events.Delta(kind="text"):
                    print(event.text, end="")
                case streamguard.events.Restarted():
                    print("again, because of", event.decision.reason if event.decision else "")
                case _:
                    pass
    assert_type(events.outcome, Outcome[Invoice] | None)
    assert_type(events.result(), Outcome[Invoice])
    events.interrupt("me")


async def around() -> None:
    raw = await client.messages.create(model="claude-haiku-5-5", max_tokens=9, messages=[], stream=True)
    async with streamguard.guarded(raw, policy=Policy(json=JsonDocument()), output=Invoice) as events:
        async for _ in events:
            pass
    assert_type(events.result().value, Invoice)


def in_a_thread() -> None:
    outcome = streamguard.sync.run(source, policy="streamguard:extraction", output=Invoice)
    assert_type(outcome, Outcome[Invoice])
    with streamguard.sync.stream(source, policy=policy, output=Invoice) as events:
        for event in events:
            print(event)
    assert_type(events.result(), Outcome[Invoice])
    stream = blocking.messages.create(model="claude-haiku-5-5", max_tokens=9, messages=[], stream=True)
    with streamguard.sync.guarded(stream, policy=Policy(), output=Invoice) as opened:
        for event in opened:
            print(event)
    assert_type(opened.result().value, Invoice)


def behind_the_guard() -> None:
    anthropic.AsyncAnthropic(middleware=[GuardMiddleware("streamguard:extraction", deliver="live")])
    anthropic.Anthropic(middleware=[GuardMiddleware(policy)])
    anthropic.Anthropic(middleware=[GuardMiddleware(lambda request: policy if request.tools else None)])


# -- guards of one's own, and what comes out ---------------------------------------------------------------------------


@streamguard.guard(reason="house.apology")
def no_apologies(view: View) -> str | None:
    return "the answer begins with an apology" if view.text.startswith("I'm sorry") else None


@streamguard.guard(reason="house.moderation", every="block", kinds=["text"])
async def moderated(view: View) -> Trip | None:
    assert_type(view.values.get("/total"), Any | None)
    return None


@streamguard.check(needs=["/total", "/lines"], reason="house.total")
def adds_up(total: Decimal, lines: list[dict[str, Decimal]]) -> bool:
    return total == sum(line["amount"] for line in lines)


@streamguard.check(needs=("/lines/*/sku",), reason="house.sku", missing="call", mode="observe")
async def known(sku: str | None) -> str | None:
    return None


streamguard.check(needs=["/total"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
checked = policy.replace(checks=[adds_up])
Policy(json=JsonDocument(), checks=[Check(reason="check.x", that="doc.total > 0"), adds_up, known])


def own(any_source: Source) -> None:
    streamguard.sync.run(any_source, policy=policy.replace(guards=(no_apologies, moderated)))


async def told() -> None:
    try:
        await streamguard.run(source, policy=policy)
    except CallError as error:
        assert_type(error.record.usage, UsageRange)
        cost: Cost = error.record.cost
        assert_type(cost.usd_low, Decimal | None)
        assert_type(cost.usd_high, Decimal | None)
        for attempt in error.attempts:
            assert_type(attempt, AttemptRecord)
            assert_type(attempt.ended, Trip | Failed | None)
            if attempt.ended is not None and attempt.ended.where is not None:
                print(attempt.ended.where.pointer, attempt.ended.message)
            if attempt.decision is not None:
                print(attempt.decision.why)


price = Price(input=Decimal(1), output=Decimal(5))
streamguard.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

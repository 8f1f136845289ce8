"""Budgets of clients: from the token and nothing else, told in headers, settled when a client leaves."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from streamguard import Policy
from streamguard.budgets.spec import BudgetSpec
from streamguard.proxy.config import Client
from streamguard.testing import pause, stall, wire
from tests.proxy.running import KEY, TOTAL, Running, error_of, until, with_proxy

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
CLIENTS = (
    Client(name="alice", token_env="STREAMGUARD_ALICE"),
    Client(name="bob", token_env="STREAMGUARD_BOB"),
)
OURS: dict[str, Any] = {
    "key": KEY,
    "key_env": "ANTHROPIC_API_KEY",
    "clients": CLIENTS,
    "tokens": {"alice": ALICE, "bob": BOB},
}
OWN = BudgetSpec(name="own", per="tenant:{client}", tokens=6000, cost_usd="1")
SHARED = BudgetSpec(name="shared", per="job", tokens=1_000_000)
GOOD = wire.text_stream("fine", usage={"input_tokens": 500, "output_tokens": 100})
HALF = [wire.message_start(), wire.block_start(), wire.text_delta("a")]


def policy(*budgets: BudgetSpec, **more: Any) -> Policy:
    return Policy(timeouts=TOTAL, budgets=budgets, **more)


def tokens_left(response: Any, budget: str = "own") -> int:
    """What `x-streamguard-budget-left` says."""
    (entry,) = [one for one in response.headers["x-streamguard-budget-left"].split(", ") if one.startswith(budget)]
    parts = dict(part.split("=") for part in entry.split(";")[1:])
    assert parts.keys() <= {"tokens", "usd"}
    return int(parts["tokens"])


@pytest.mark.parametrize("stream", [True, False])
def test_each_client_has_its_own_whatever_it_says(stream: bool) -> None:
    """Alice runs dry and gets 402; Bob does not notice; no header of hers makes her somebody else."""

    async def test(running: Running) -> None:
        lies = {
            "x-streamguard-client": "bob",
            "x-client": "bob",
            "x-tenant": "bob",
            "x-streamguard-labels": "client=bob",
        }
        seen = []
        for _ in range(8):
            response = await running.ask(stream=stream, headers={"x-api-key": ALICE, **lies})
            assert response.status_code == 200
            seen.append(tokens_left(response))
        assert seen == list(range(5400, 600, -600))
        denied = await running.ask(stream=stream, headers={"x-api-key": ALICE, **lies})
        assert (denied.status_code, denied.headers["x-streamguard-reason"]) == (402, "budget.denied")
        assert denied.headers["x-should-retry"] == "false"
        assert error_of(denied.content)["type"] == "billing_error"
        assert len(running.upstream.exchanges) == 8
        assert tokens_left(await running.ask(stream=stream, headers={"x-api-key": BOB})) == 5400

    with_proxy([GOOD], test, policy(OWN), **OURS)


def test_what_is_shared_is_not_shown_to_clients() -> None:
    """A client sees its own balance; where nobody needs a token there is nobody to hide anything from."""

    async def many(running: Running) -> None:
        response = await running.ask(headers={"x-api-key": ALICE})
        assert "shared" not in response.headers["x-streamguard-budget-left"]
        assert tokens_left(response) == 5400

    async def alone(running: Running) -> None:
        assert tokens_left(await running.ask(), "shared") == 999_400

    with_proxy([GOOD], many, policy(OWN, SHARED), **OURS)
    with_proxy([GOOD], alone, policy(SHARED))


def test_live_the_balance_comes_at_the_end() -> None:
    """The head has gone when the price is known: a comment says it."""

    async def test(running: Running) -> None:
        response = await running.ask(headers={"x-api-key": ALICE})
        assert "x-streamguard-budget-left" not in response.headers
        assert b"\n: x-streamguard-budget-left: own;usd=0." in response.content
        assert b"tokens=5400" in response.content

    with_proxy([[*GOOD[:4], pause(0.03), *GOOD[4:]]], test, policy(OWN, deliver="live"), **OURS)


def test_who_leaves_has_paid_and_holds_nothing() -> None:
    """A client that goes in mid-answer: the upstream is left at once, and the hold becomes spent or uncertain."""

    async def test(running: Running) -> None:
        with anyio.move_on_after(0.2):
            await running.ask(headers={"x-api-key": ALICE})
        await until(lambda: not running.proxy.runtime.calls)
        account = await running.proxy.runtime.accounts.for_call([OWN], labels={"client": "alice"})
        left = await account.left()
        ledger = (await running.proxy.runtime.accounts.ledger("memory:")).ledger
        for scope, available in left.items():
            balance = await ledger.balance(scope)
            assert balance.held == 0
            assert balance.settled + balance.uncertain > 0
            assert available < balance.cap

    with_proxy([[*HALF, stall()]], test, policy(OWN), **OURS)


def test_what_cannot_be_bounded_is_the_requests_fault() -> None:
    """A model without a price under a budget in dollars: 400, and nothing is sent."""

    async def test(running: Running) -> None:
        response = await running.ask(headers={"x-api-key": ALICE}, model="nobody-knows-1")
        assert (response.status_code, response.headers["x-streamguard-reason"]) == (400, "budget.unbounded")
        assert running.upstream.exchanges == []

    with_proxy([GOOD], test, policy(OWN), **OURS)

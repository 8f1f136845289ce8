"""Budgets at work: several budgets and ledgers for one attempt."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamguard.budgets.ledger import Denied, LedgerError, LedgerLost
from streamguard.budgets.reservation import Accounts, CallAccount, Reservation
from streamguard.budgets.spec import Aborted, Billed, BudgetSpec, Lost, NotBilled
from streamguard.budgets.upper_bound import Unbounded, bound
from streamguard.events import Usage
from streamguard.outcome import Charge
from streamguard.pricing.price import Price
from streamguard.request import Request

Run = Callable[..., Any]

PRICE = Price(input=Decimal(1), output=Decimal(10))
REQUEST = Request({"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]})
MONEY = bound(REQUEST, PRICE).of("micro_usd")  # type: ignore[union-attr]
TOKENS = bound(REQUEST, PRICE).of("tokens")  # type: ignore[union-attr]


def spec(name: str, **fields: Any) -> BudgetSpec:
    """A budget of a dollar unless a test says otherwise."""
    return BudgetSpec.model_validate({"name": name, "cost_usd": "1.00", **fields})


async def admitted(account: CallAccount, **options: Any) -> Reservation:
    """A reservation that there is room for."""
    answer = await account.reserve(REQUEST, PRICE, **options)
    assert isinstance(answer, Reservation), answer
    return answer


async def taken(accounts: Accounts, one: BudgetSpec) -> list[tuple[int, int, int]]:
    """Settled, held and uncertain of each limit of a budget."""
    ledger = (await accounts.ledger(one.ledger)).ledger
    balances = [await ledger.balance(scope.key) for scope in one.scopes()]
    return [(balance.settled, balance.held, balance.uncertain) for balance in balances]


def wipe(folder: Path) -> None:
    """Remove all files."""
    for file in folder.iterdir():
        file.unlink()


def test_an_attempt_is_held_and_settled_in_every_budget(run_real: Run, tmp_path: Path) -> None:
    """Money and tokens, per call and shared, in memory and in a file, all by the same evidence."""
    job = spec("job", tokens=100_000, ledger="sqlite:budget.db")
    call, tenant = spec("call", per="call"), spec("tenant", per="tenant:acme")

    async def main() -> tuple[Any, ...]:
        accounts = Accounts(base=tmp_path)
        account = await accounts.for_call([job, call, tenant])
        reservation = await admitted(account)
        held = await taken(accounts, job), await taken(accounts, tenant)
        done = await reservation.settle(Billed(Usage(input_tokens=10, output_tokens=20)))
        twice = await reservation.settle(Lost())
        after = await taken(accounts, job), await taken(accounts, tenant)
        await accounts.aclose()
        return held, done, twice, after

    held, done, twice, after = run_real(main)
    assert held == ([(0, MONEY, 0), (0, TOKENS, 0)], [(0, MONEY, 0)])
    assert done == (
        Charge(budget="job", unit="micro_usd", held=MONEY, settled=210, uncertain=0),
        Charge(budget="job", unit="tokens", held=TOKENS, settled=30, uncertain=0),
        Charge(budget="call", unit="micro_usd", held=MONEY, settled=210, uncertain=0),
        Charge(budget="tenant", unit="micro_usd", held=MONEY, settled=210, uncertain=0),
    )
    assert (twice, after) == ((), ([(210, 0, 0), (30, 0, 0)], [(210, 0, 0)]))


def test_a_denial_in_one_ledger_gives_back_the_others(run_real: Run, tmp_path: Path) -> None:
    """Nothing stays held for an attempt that is not sent."""
    first, second = spec("first", ledger="sqlite:one.db"), spec("second", cost_usd="0.000001")

    async def main() -> tuple[Any, ...]:
        accounts = Accounts(base=tmp_path)
        account = await accounts.for_call([first, second])
        answer = await account.reserve(REQUEST, PRICE)
        balances = await taken(accounts, first), await taken(accounts, second)
        await accounts.aclose()
        return answer, balances

    answer, balances = run_real(main)
    assert isinstance(answer, Denied)
    assert answer.bounds is not None
    assert msgspec.structs.replace(answer, bounds=None) == Denied(
        scope="second/job/micro_usd", unit="micro_usd", asked=MONEY, available=1, cap=1, held=0
    )
    assert balances == ([(0, 0, 0)], [(0, 0, 0)])


def test_a_call_without_room_waits_for_its_turn(run_virtual: Run) -> None:
    """`wait` is how long a call queues; the call's own deadline is never passed."""
    one = spec("one", cost_usd="0.02", wait=30.0)

    async def main() -> tuple[Any, ...]:
        accounts = Accounts()
        account = await accounts.for_call([one])
        first = await admitted(account)
        denied = await account.reserve(REQUEST, PRICE, deadline=5.0)
        at = anyio.current_time()
        async with anyio.create_task_group() as tasks:

            async def finish() -> None:
                await anyio.sleep(10)
                await first.settle(NotBilled())

            tasks.start_soon(finish)
            second = await admitted(account)
        return type(denied), at, anyio.current_time(), second.heartbeat_due

    kind, denied_at, granted_at, due = run_virtual(main)
    assert (kind, denied_at, granted_at) == (Denied, pytest.approx(5.0), pytest.approx(15.0))
    assert 15.0 < due <= 35.0


@pytest.mark.parametrize(
    ("one", "request_", "price", "why"),
    [
        (spec("b"), None, PRICE, "budget 'b': the source does not show its request"),
        (spec("b"), REQUEST, None, "budget 'b': the price of model 'm' is unknown"),
        (spec("b", mode="calibrated"), REQUEST, None, "budget 'b': the price of model 'm' is unknown"),
    ],
)
def test_what_has_no_bound_is_not_sent(
    run_virtual: Run, one: BudgetSpec, request_: Request | None, price: Price | None, why: str
) -> None:
    """The reason names the budget that asks for it."""

    async def main() -> Any:
        return await (await Accounts().for_call([one])).reserve(request_, price)

    found = run_virtual(main)
    assert isinstance(found, Unbounded)
    assert found.why.startswith(why)


def test_token_budgets_need_no_price(run_virtual: Run) -> None:
    """A model that nobody priced can still be held to tokens."""

    async def main() -> tuple[Charge, ...]:
        account = await Accounts().for_call([spec("t", cost_usd=None, tokens=100_000)])
        answer = await account.reserve(REQUEST, None)
        assert isinstance(answer, Reservation)
        return await answer.settle(Billed(Usage(input_tokens=1, output_tokens=2)))

    assert run_virtual(main) == (Charge(budget="t", unit="tokens", held=TOKENS, settled=3, uncertain=0),)


def test_every_attempt_is_charged(run_virtual: Run) -> None:
    """The budget of a call is shared by its attempts: what an abort left uncertain stays taken when it is retried."""
    cap = str(Decimal(3 * MONEY - 1) / 1_000_000)
    one, other = spec("one", cost_usd=cap), spec("other", cost_usd=cap, abort_stops_billing=True)

    async def main() -> tuple[Any, ...]:
        accounts = Accounts()
        account = await accounts.for_call([one, other])
        for _ in range(2):
            await (await admitted(account)).settle(Aborted(output_tokens=5))
        third = await account.reserve(REQUEST, PRICE)
        return third, await taken(accounts, one), await taken(accounts, other)

    third, kept, freed = run_virtual(main)
    assert isinstance(third, Denied)
    assert third.scope == "one/job/micro_usd"
    assert kept == [(0, 0, 2 * MONEY)]
    # Nothing says that none of the input is written to a cache: 2 micro-USD a token.
    assert freed == [(2 * ((TOKENS - 1000) * 2 + 261 * 10), 0, 0)]


def test_heartbeats_keep_every_hold(run_virtual: Run) -> None:
    """A reservation says when it is due, keeps what is due, and is never due once settled."""

    async def main() -> tuple[Any, ...]:
        accounts = Accounts()
        account = await accounts.for_call([spec("one"), spec("two", per="call")])
        reservation = await admitted(account, lease=30.0)
        due = [reservation.heartbeat_due]
        await anyio.sleep(9)
        await reservation.heartbeat()
        due.append(reservation.heartbeat_due)
        await anyio.sleep(1)
        await reservation.heartbeat()
        due.append(reservation.heartbeat_due)
        await reservation.settle(NotBilled())
        return (*due, reservation.heartbeat_due)

    assert run_virtual(main) == (10.0, 10.0, 20.0, math.inf)


def test_a_lost_ledger_is_said_and_the_others_are_settled(run_real: Run, tmp_path: Path) -> None:
    """One ledger's loss neither lets the attempt go on nor keeps holds elsewhere."""
    first, second = spec("first", ledger="sqlite:one.db"), spec("second")

    async def main() -> tuple[Any, ...]:
        accounts = Accounts(base=tmp_path)
        account = await accounts.for_call([first, second])
        reservation = await admitted(account, lease=0.0)
        wipe(tmp_path)
        with pytest.raises(LedgerLost):
            await reservation.heartbeat()
        with pytest.raises(LedgerLost):
            await reservation.settle(NotBilled())
        with pytest.raises(LedgerLost):
            await account.reserve(REQUEST, PRICE)
        balances = await taken(accounts, second)
        await accounts.aclose()
        return balances

    assert run_real(main) == [(0, 0, 0)]


def test_a_cancelled_admission_gives_everything_back(run_virtual: Run) -> None:
    """A call that is cancelled while it queues in one ledger holds nothing in the others."""
    call, job = spec("call", per="tenant"), spec("job", cost_usd="0.02", wait=60.0, ledger="memory:#2")

    async def main() -> tuple[Any, ...]:
        accounts = Accounts()
        account = await accounts.for_call([call, job])
        first = await admitted(account)
        with anyio.move_on_after(5):
            await account.reserve(REQUEST, PRICE)
        held = await taken(accounts, call)
        await first.settle(NotBilled())
        return held, await taken(accounts, call), await taken(accounts, job)

    assert run_virtual(main) == ([(0, MONEY, 0)], [(0, 0, 0)], [(0, 0, 0)])


def test_caveats_and_sweeping(run_real: Run, tmp_path: Path) -> None:
    """Assumptions of budgets and of their ledgers are told once; leases that expired are swept everywhere."""
    budgets = [
        spec("one", ledger="sqlite:x.db", abort_stops_billing=True),
        spec("two", ledger="sqlite:x.db", mode="calibrated"),
        spec("three", per="call"),
    ]

    async def main() -> tuple[Any, ...]:
        accounts = Accounts(base=tmp_path)
        said = await accounts.caveats(budgets)
        account = await accounts.for_call(budgets)
        reservation = await admitted(account, lease=0.0)
        swept = await accounts.sweep()
        with pytest.raises(LedgerLost, match="no longer held"):
            await reservation.heartbeat()
        await reservation.settle(NotBilled())
        balances = [await taken(accounts, one) for one in budgets[:2]]
        await accounts.aclose()
        return len(said), len(set(said)), swept, balances

    assert run_real(main) == (4, 4, 2, [[(0, 0, 0)], [(0, 0, 0)]])


def test_calibrated_room_comes_back_when_it_is_needed(run_real: Run, tmp_path: Path) -> None:
    """What has been uncertain for long enough is freed by the call that needs the room."""
    one = spec("one", cost_usd="0.001", mode="calibrated", release_uncertain_after=1e-6)

    async def main() -> tuple[Any, ...]:
        accounts = Accounts(base=tmp_path)
        account = await accounts.for_call([one])
        options = {"input_tokens": 10, "output_tokens": 60}
        await (await admitted(account, **options)).settle(Lost())
        before = await taken(accounts, one)
        await admitted(account, **options)
        return before, await taken(accounts, one)

    assert run_real(main) == ([(0, 0, 610)], [(0, 610, 0)])


def test_two_budgets_of_one_name_are_refused(run_virtual: Run) -> None:
    """Two limits under one name would be one limit, and nobody could say which."""

    async def main() -> None:
        with pytest.raises(LedgerError, match="called the same in one ledger: a/job/micro_usd"):
            await Accounts().for_call([spec("a"), spec("a", cost_usd="2.00")])

    run_virtual(main)


def test_asyncio_cancel_of_a_settlement_settles_every_ledger(tmp_path: Path) -> None:
    """asyncio's own cancellation in the first ledger does not leave the second one's hold open."""
    first, second = spec("first", ledger="sqlite:one.db"), spec("second", ledger="sqlite:two.db")

    async def main() -> list[Any]:
        accounts = Accounts(base=tmp_path)
        account = await accounts.for_call([first, second])
        found = []
        for ticks in range(1, 5):
            reservation = await admitted(account)
            task = asyncio.create_task(reservation.settle(NotBilled()))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            found += [await taken(accounts, first), await taken(accounts, second)]
        await accounts.aclose()
        return found

    assert asyncio.run(main()) == [[(0, 0, 0)]] * 8

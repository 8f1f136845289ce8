"""What every store does, whatever it is made of."""

from __future__ import annotations

import msgspec
import pytest

from streamguard.budgets.ledger import Balance, Denied, LedgerError, LedgerLost
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores.checks import window_of
from streamguard.budgets.upper_bound import MAX_AMOUNT
from streamguard.errors import ConfigError
from tests.budgets.stores.conftest import START, Case

JOB = Scope(key="job/micro_usd", unit="micro_usd", cap=1000)
TENANT = Scope(key="tenant:acme|1/tokens", unit="tokens", cap=500)
BOTH = (JOB, TENANT)


def account(case: Case, scope: Scope, window: str | None = None) -> tuple[int, int, int]:
    """Settled, held and uncertain."""
    balance = case.store.balance(scope.key, window)
    return balance.settled, balance.held, balance.uncertain


def test_a_hold_is_put_aside_and_settled(case: Case) -> None:
    """A reservation holds, settling turns the hold into what was spent and frees the rest."""
    case.store.configure(BOTH)
    assert case.store.reserve("a", {JOB.key: 600, TENANT.key: 100}, 60) is None
    assert case.store.balance(JOB.key) == Balance(scope=JOB.key, unit="micro_usd", cap=1000, held=600)
    assert case.store.settle("a", {JOB.key: Settlement(250, 50), TENANT.key: Settlement(40)})
    assert case.store.balance(JOB.key) == Balance(scope=JOB.key, unit="micro_usd", cap=1000, settled=250, uncertain=50)
    assert case.store.balance(TENANT.key) == Balance(scope=TENANT.key, unit="tokens", cap=500, settled=40)
    assert case.store.balance(JOB.key).available == 700


def test_scopes_are_listed(case: Case) -> None:
    """All scopes come back as they were configured last, by key, for whoever opens the ledger."""
    daily = Scope(key="a b/tokens", unit="tokens", cap=7, window="day", release_after=3600.5)
    assert list(case.store.scopes()) == []
    case.store.configure([TENANT, JOB, daily])
    case.store.configure([msgspec.structs.replace(JOB, cap=5)])
    assert list(case.open().scopes()) == [daily, msgspec.structs.replace(JOB, cap=5), TENANT]


def test_all_scopes_or_none(case: Case) -> None:
    """One scope without room denies all, names itself, and nothing is held anywhere."""
    case.store.configure(BOTH)
    assert case.store.reserve("a", {JOB.key: 100, TENANT.key: 450}, 60) is None
    denied = case.store.reserve("b", {JOB.key: 100, TENANT.key: 51}, 60)
    assert denied == Denied(scope=TENANT.key, unit="tokens", asked=51, available=50, cap=500, held=450)
    assert (account(case, JOB), account(case, TENANT)) == ((0, 100, 0), (0, 450, 0))


def test_the_cap_itself_can_be_spent(case: Case) -> None:
    """A budget is usable to its last micro-USD, and not beyond."""
    case.store.configure([JOB])
    assert case.store.reserve("a", {JOB.key: 1000}, 60) is None
    assert case.store.reserve("b", {JOB.key: 0}, 60) is None
    assert isinstance(case.store.reserve("c", {JOB.key: 1}, 60), Denied)


def test_what_costs_nothing_is_reserved_again_and_again(case: Case) -> None:
    """A model whose price is 0 holds nothing, and the ledger that only knows such holds goes on."""
    case.store.configure([JOB])
    for hold in "abc":
        assert case.store.reserve(hold, {JOB.key: 0}, 60) is None
        assert case.store.settle(hold, {JOB.key: Settlement(0)})
    assert (account(case, JOB), case.store.rebuild()) == ((0, 0, 0), [])


def test_settling_twice_is_settling_once(case: Case) -> None:
    """Only the first settlement counts, wherever the second comes from."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 600}, 60)
    assert case.store.settle("a", {JOB.key: Settlement(100, 20)})
    assert not case.open().settle("a", {JOB.key: Settlement(500)})
    assert not case.store.settle("unheard-of", {JOB.key: Settlement(500)})
    assert account(case, JOB) == (100, 0, 20)


def test_reserving_the_same_hold_again_changes_nothing(case: Case) -> None:
    """A repeated request (a lost answer) does not hold twice."""
    case.store.configure([JOB])
    assert case.store.reserve("a", {JOB.key: 600}, 60) is None
    assert case.store.reserve("a", {JOB.key: 600}, 60) is None
    assert account(case, JOB) == (0, 600, 0)


def test_a_scope_left_out_of_a_settlement_stays_uncertain(case: Case) -> None:
    """What nobody has evidence for is not freed."""
    case.store.configure(BOTH)
    case.store.reserve("a", {JOB.key: 600, TENANT.key: 70}, 60)
    case.store.settle("a", {JOB.key: Settlement(1)})
    assert (account(case, JOB), account(case, TENANT)) == ((1, 0, 0), (0, 0, 70))


def test_a_bill_beyond_the_hold_is_recorded_as_it_is(case: Case) -> None:
    """The truth is written down even where the bound was wrong, and the budget is then overdrawn."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 600}, 60)
    case.store.settle("a", {JOB.key: Settlement(1500)})
    assert account(case, JOB) == (1500, 0, 0)
    denied = case.store.reserve("b", {JOB.key: 1}, 60)
    assert denied == Denied(scope=JOB.key, unit="micro_usd", asked=1, available=0, cap=1000, held=0)


def test_an_expired_lease_turns_the_whole_hold_uncertain(case: Case) -> None:
    """A crash frees nothing: the hold moves from held to uncertain, once."""
    case.store.configure(BOTH)
    case.store.reserve("a", {JOB.key: 600, TENANT.key: 70}, 60)
    case.store.reserve("b", {JOB.key: 10}, 600)
    case.advance(59)
    assert case.store.sweep() == 0
    case.advance(2)
    assert case.open().sweep() == 2
    assert case.store.sweep() == 0
    assert (account(case, JOB), account(case, TENANT)) == ((0, 10, 600), (0, 0, 70))


def test_a_heartbeat_keeps_a_lease(case: Case) -> None:
    """Each heartbeat is good for a lease; a late one, after a sweep, says that the hold is lost."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 600}, 60)
    for _ in range(3):
        case.advance(50)
        case.store.heartbeat("a", 60)
        assert case.store.sweep() == 0
    case.advance(61)
    assert case.store.sweep() == 1
    with pytest.raises(LedgerLost, match="hold a is no longer held"):
        case.store.heartbeat("a", 60)
    with pytest.raises(LedgerLost, match="hold zzz"):
        case.store.heartbeat("zzz", 60)


def test_a_heartbeat_never_shortens_a_lease(case: Case) -> None:
    """A short heartbeat leaves a long lease as it is."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 600}, 600)
    case.store.heartbeat("a", 1)
    case.advance(500)
    assert case.store.sweep() == 0


def test_late_evidence_still_counts(case: Case) -> None:
    """A process that was only slow settles after the sweep, once."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 600}, 60)
    case.advance(61)
    case.store.sweep()
    assert case.store.settle("a", {JOB.key: Settlement(200, 100)})
    assert not case.store.settle("a", {JOB.key: Settlement(0)})
    assert account(case, JOB) == (200, 0, 100)


def test_reconcile_a_hold(case: Case) -> None:
    """What a hold left uncertain is replaced by what it cost, once."""
    case.store.configure(BOTH)
    case.store.reserve("a", {JOB.key: 600, TENANT.key: 70}, 60)
    assert not case.store.reconcile_hold("a", {JOB.key: 1})
    case.store.settle("a", {JOB.key: Settlement(100, 500), TENANT.key: Settlement(0, 70)})
    assert case.store.reconcile_hold("a", {JOB.key: 30})
    assert not case.store.reconcile_hold("a", {JOB.key: 30})
    assert (account(case, JOB), account(case, TENANT)) == ((130, 0, 0), (0, 0, 70))
    assert case.store.reconcile_hold("a", {TENANT.key: 0})
    assert not case.store.reconcile_hold("a", {TENANT.key: 5})
    assert account(case, TENANT) == (0, 0, 0)


def test_reconcile_a_scope(case: Case) -> None:
    """A provider's report replaces all that is uncertain in a scope; open holds and late evidence do not mix in."""
    case.store.configure([JOB])
    for name in ("a", "b", "c"):
        case.store.reserve(name, {JOB.key: 300}, 60)
    case.store.settle("a", {JOB.key: Settlement(10, 200)})
    case.store.reserve("d", {JOB.key: 1}, 600)
    case.advance(61)
    case.store.sweep()
    assert account(case, JOB) == (10, 1, 800)
    assert case.store.reconcile_scope(JOB.key, 77)
    assert not case.store.reconcile_scope(JOB.key, 77)
    # "b" was at work still: nobody had counted what it spent. "a" had been settled.
    assert case.store.settle("b", {JOB.key: Settlement(300)})
    assert not case.store.settle("b", {JOB.key: Settlement(300)})
    assert not case.store.settle("a", {JOB.key: Settlement(300)})
    assert account(case, JOB) == (387, 1, 0)


def test_uncertain_amounts_are_freed_only_where_the_scope_says_so(case: Case) -> None:
    """A calibrated scope frees after its time, a strict one never; both see the same hold."""
    soft = Scope(key="soft/micro_usd", unit="micro_usd", cap=1000, release_after=3600.0)
    case.store.configure([JOB, soft])
    case.store.reserve("a", {JOB.key: 300, soft.key: 300}, 60)
    case.store.settle("a", {JOB.key: Settlement(100, 200), soft.key: Settlement(100, 200)})
    case.advance(3599)
    assert case.store.sweep() == 0
    case.advance(2)
    assert case.store.sweep() == 1
    case.advance(10**6)
    assert case.store.sweep() == 0
    assert (account(case, JOB), account(case, soft)) == ((100, 0, 200), (100, 0, 0))


@pytest.mark.parametrize(
    ("window", "before", "seconds", "after"),
    [
        ("hour", "2026-11-21T03", 3600.0, "2026-11-21T04"),
        ("day", "2026-11-21", 86_400.0, "2026-11-22"),
        ("month", "2026-11", 10 * 86_400.0, "2026-12"),
    ],
)
def test_a_window_starts_again_and_a_hold_stays_where_it_began(
    case: Case, window: str, before: str, seconds: float, after: str
) -> None:
    """A new window has its whole cap, and what settles late counts in the window of its reservation."""
    scope = Scope(key="w/tokens", unit="tokens", cap=100, window=window)  # type: ignore[arg-type]
    case.store.configure([scope])
    assert case.store.reserve("a", {scope.key: 90}, 10**7) is None
    denied = case.store.reserve("b", {scope.key: 20}, 60)
    assert denied == Denied(scope=scope.key, unit="tokens", asked=20, available=10, cap=100, held=90, window=before)
    case.advance(seconds)
    assert case.store.reserve("c", {scope.key: 100}, 10**7) is None
    case.store.settle("a", {scope.key: Settlement(50, 7)})
    assert account(case, scope, before) == (50, 0, 7)
    assert case.store.balance(scope.key) == Balance(scope=scope.key, unit="tokens", cap=100, held=100, window=after)
    assert case.store.reconcile_scope(scope.key, 3, before)
    assert account(case, scope, before) == (53, 0, 0)


@pytest.mark.parametrize("days", [0.5, 40, 100.3, 465, 1100, 1557.9, 27_000, 28_250])
def test_every_store_names_windows_alike(case: Case, days: float) -> None:
    """Leap days and turns of years do not put two stores into different windows."""
    scopes = [Scope(key=span, unit="tokens", cap=1, window=span) for span in ("hour", "day", "month")]
    case.store.configure(scopes)
    case.advance(days * 86_400 + 1)
    named = [case.store.balance(scope.key).window for scope in scopes]
    assert named == [window_of(scope.window, START + days * 86_400 + 1) for scope in scopes]


def test_a_cap_can_change_while_holds_are_open(case: Case) -> None:
    """The latest cap counts at once for everybody; below what is taken it only denies."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 600}, 60)
    case.open().configure([Scope(key=JOB.key, unit="micro_usd", cap=500)])
    denied = case.store.reserve("b", {JOB.key: 1}, 60)
    assert denied == Denied(scope=JOB.key, unit="micro_usd", asked=1, available=0, cap=500, held=600)
    case.store.configure([Scope(key=JOB.key, unit="micro_usd", cap=601)])
    assert case.store.reserve("b", {JOB.key: 1}, 60) is None


def test_configuring_again_keeps_the_balance(case: Case) -> None:
    """A restarted process finds what was spent."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 600}, 60)
    case.store.settle("a", {JOB.key: Settlement(600)})
    other = case.open()
    other.configure([JOB])
    assert other.balance(JOB.key).settled == 600


@pytest.mark.parametrize(
    "changed",
    [
        Scope(key=JOB.key, unit="tokens", cap=1000),
        Scope(key=JOB.key, unit="micro_usd", cap=1000, window="day"),
    ],
)
def test_a_scope_is_never_reinterpreted(case: Case, changed: Scope) -> None:
    """Another unit or window under the same name would make nonsense of the balance."""
    case.store.configure([JOB])
    with pytest.raises(LedgerError, match="give the budget another name"):
        case.store.configure([TENANT, changed])
    with pytest.raises(LedgerError, match="configure it before"):
        case.store.balance(TENANT.key)


def test_unknown_scopes_are_an_error_not_a_free_budget(case: Case) -> None:
    """A scope nobody configured has no cap, so nothing can be held in it."""
    case.store.configure([JOB])
    for act in (
        lambda: case.store.reserve("a", {JOB.key: 1, "nope": 1}, 60),
        lambda: case.store.balance("nope"),
        lambda: case.store.reconcile_scope("nope", 1),
    ):
        with pytest.raises(ConfigError, match="no budget scope 'nope'"):
            act()
    assert account(case, JOB) == (0, 0, 0)


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT + 1, 1.5, True, "1", None])
def test_what_cannot_be_counted_is_refused(case: Case, amount: object) -> None:
    """A negative or fractional amount would give budget back, so no verb takes one."""
    case.store.configure([JOB])
    case.store.reserve("a", {JOB.key: 1}, 60)
    for act in (
        lambda: case.store.reserve("b", {JOB.key: amount}, 60),  # type: ignore[dict-item]
        lambda: case.store.settle("a", {JOB.key: Settlement(amount)}),  # type: ignore[arg-type]
        lambda: case.store.settle("a", {JOB.key: Settlement(0, amount)}),  # type: ignore[arg-type]
        lambda: case.store.reconcile_hold("a", {JOB.key: amount}),  # type: ignore[dict-item]
        lambda: case.store.reconcile_scope(JOB.key, amount),  # type: ignore[arg-type]
        lambda: case.store.reserve("b", {}, 60),
    ):
        with pytest.raises(ValueError, match=r"whole number|at least one scope"):
            act()
    with pytest.raises(LedgerError, match="whole number"):
        case.store.configure([Scope(key="x", unit="tokens", cap=amount)])  # type: ignore[arg-type]
    assert account(case, JOB) == (0, 1, 0)


def test_large_amounts_keep_every_digit(case: Case) -> None:
    """Amounts up to 2**53 - 1 come back as they went in."""
    big = Scope(key="big", unit="micro_usd", cap=MAX_AMOUNT)
    case.store.configure([big])
    assert case.store.reserve("a", {big.key: MAX_AMOUNT - 2}, 60) is None
    assert account(case, big) == (0, MAX_AMOUNT - 2, 0)
    case.store.settle("a", {big.key: Settlement(9_007_199_254_740_001, 987)})
    assert account(case, big) == (9_007_199_254_740_001, 0, 987)
    assert case.store.rebuild() == []


def test_rebuilding_finds_nothing_wrong(case: Case) -> None:
    """The counters are the sums of the rows, through every verb, and many rows."""
    case.store.configure([JOB, TENANT])
    for index in range(700):
        case.store.reserve(f"h{index}", {JOB.key: 1, TENANT.key: 1}, 60)
        if index % 3:
            case.store.settle(f"h{index}", {JOB.key: Settlement(1), TENANT.key: Settlement(0, index % 2)})
    case.advance(61)
    case.store.sweep()
    case.store.reconcile_hold("h0", {JOB.key: 0})
    before = (account(case, JOB), account(case, TENANT))
    assert case.store.rebuild() == []
    assert (account(case, JOB), account(case, TENANT)) == before


def test_hopeless_or_worth_waiting() -> None:
    """Waiting helps while open holds or a new window could make room."""
    facts = {"scope": "s", "unit": "tokens", "cap": 100, "available": 10, "held": 20}
    asked = [(30, ""), (31, ""), (31, "2026-11"), (101, "2026-11")]
    assert [Denied(asked=amount, window=window, **facts).hopeless for amount, window in asked] == [  # type: ignore[arg-type]
        False,
        True,
        False,
        True,
    ]


def test_only_what_is_old_enough_is_reconciled(case: Case) -> None:
    """What became uncertain after the bill was read stays."""
    case.store.configure([JOB])
    for name in ("old", "new"):
        case.store.reserve(name, {JOB.key: 100}, 600)
        case.store.settle(name, {JOB.key: Settlement(0, 100)})
        case.advance(100)
    oldest = [(doubt.kind, doubt.holds, doubt.amount) for doubt in case.store.uncertain(JOB.key)]
    assert oldest == [("aborted", 2, 200)]
    since = case.store.uncertain(JOB.key)[0].since
    assert case.store.reconcile_scope(JOB.key, 7, None, since + 50)
    assert account(case, JOB) == (7, 0, 100)
    assert not case.store.reconcile_scope(JOB.key, 7, None, since + 50)


def test_the_smallest_cap_counts(case: Case) -> None:
    """A policy's own cap travels with the reservation; a cap that was set holds until it is unset."""
    case.store.configure([JOB])
    assert case.store.reserve("a", {JOB.key: 100}, 60, {JOB.key: 99}) is not None
    case.store.set_cap(JOB.key, 50)
    case.store.configure([JOB])
    assert [scope.cap for scope in case.store.scopes()] == [50]
    denied = case.store.reserve("a", {JOB.key: 60}, 60, {JOB.key: 10**6})
    assert denied is not None
    assert (denied.cap, denied.available, case.store.balance(JOB.key).cap) == (50, 50, 50)
    case.store.set_cap(JOB.key, None)
    assert case.store.reserve("a", {JOB.key: 60}, 60) is None
    with pytest.raises(LedgerError):
        case.store.set_cap("nobody", 1)


def test_many_uncertain_holds_are_swept_and_reconciled(case: Case) -> None:
    """More than one piece of a script: nothing is left out, nothing is counted twice."""
    case.store.configure([JOB])
    for number in range(450):
        case.store.reserve(f"h{number}", {JOB.key: 1}, 1)
    case.advance(10)
    assert case.store.sweep() == 450
    assert [(doubt.kind, doubt.holds) for doubt in case.store.uncertain(JOB.key)] == [("lost", 450)]
    assert case.store.reconcile_scope(JOB.key, 3)
    assert account(case, JOB) == (3, 0, 0)
    assert case.store.settle("h7", {JOB.key: Settlement(1)})
    assert account(case, JOB) == (4, 0, 0)

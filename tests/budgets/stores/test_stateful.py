"""Any order of verbs keeps every promise: one random walk over each store, against a plain model."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from streamguard.budgets.ledger import Denied, LedgerLost
from streamguard.budgets.spec import Scope, Settlement
from tests.budgets.stores.conftest import Case, make_case

A = Scope(key="a/micro_usd", unit="micro_usd", cap=100)
B = Scope(key="b/tokens", unit="tokens", cap=60, window="hour")
C = Scope(key="c/micro_usd", unit="micro_usd", cap=80, release_after=500.0)
SCOPES = (A, B, C)
LEASE = 60


class Walk(RuleBasedStateMachine):
    """What any number of processes may do to one ledger, in any order."""

    make: Any

    def __init__(self) -> None:
        super().__init__()
        self.case: Case = self.make()
        self.case.store.configure(SCOPES)
        self.count = 0
        self.open: dict[str, dict[str, int]] = {}
        """Holds that nobody settled yet, as the model has them."""
        self.closed: list[str] = []

    @initialize()
    def begin(self) -> None:
        """Nothing is taken."""
        for scope in SCOPES:
            assert self.case.store.balance(scope.key).taken == 0

    @rule(amounts=st.dictionaries(st.sampled_from([scope.key for scope in SCOPES]), st.integers(0, 40), min_size=1))
    def reserve(self, amounts: dict[str, int]) -> None:
        """A reservation succeeds exactly if every scope has room."""
        room = {key: self.case.store.balance(key).available for key in amounts}
        self.count += 1
        name = f"h{self.count}"
        answer = self.case.store.reserve(name, amounts, LEASE)
        assert isinstance(answer, Denied) == any(amount > room[key] for key, amount in amounts.items())
        if answer is None:
            self.open[name] = amounts

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """A hold settles once at any split that it covers."""
        if not self.open:
            return
        name = data.draw(st.sampled_from(sorted(self.open)))
        settlements = {}
        for key, amount in self.open[name].items():
            spent = data.draw(st.integers(0, amount))
            settlements[key] = Settlement(spent, data.draw(st.integers(0, amount - spent)))
        before = [self.case.store.balance(key) for key in settlements]
        changed = self.case.store.settle(name, settlements)
        again = [self.case.store.balance(key) for key in settlements]
        assert not self.case.store.settle(
            name, {key: Settlement(share.uncertain, share.settled) for key, share in settlements.items()}
        )
        assert again == [self.case.store.balance(key) for key in settlements]
        if not changed:  # reconciled or released after a sweep
            assert before == again
        del self.open[name]
        self.closed.append(name)

    @rule(name=st.integers(0, 200), amount=st.integers(0, 5))
    def reconcile(self, name: int, amount: int) -> None:
        """A reconciliation never raises what is taken beyond what was uncertain plus the report."""
        if self.closed:
            hold = self.closed[name % len(self.closed)]
            taken = {scope.key: self.case.store.balance(scope.key).uncertain for scope in SCOPES}
            self.case.store.reconcile_hold(hold, {A.key: min(amount, taken[A.key])})

    @rule(scope=st.sampled_from(SCOPES))
    def reconcile_scope(self, scope: Scope) -> None:
        """A report of zero frees what is uncertain."""
        self.case.store.reconcile_scope(scope.key, 0)
        assert self.case.store.balance(scope.key).uncertain == 0

    @rule(seconds=st.sampled_from([1, 30, 61, 501, 3600]))
    def pass_time(self, seconds: int) -> None:
        """Leases expire, windows end."""
        self.case.advance(seconds)

    @rule()
    def sweep(self) -> None:
        """A second sweep finds nothing."""
        self.case.store.sweep()
        assert self.case.store.sweep() == 0

    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        """A heartbeat keeps a hold or says that it is lost."""
        if self.open:
            with contextlib.suppress(LedgerLost):  # swept before
                self.case.store.heartbeat(data.draw(st.sampled_from(sorted(self.open))), LEASE)

    @rule()
    def open_again(self) -> None:
        """Another process goes on where this one was."""
        self.case.store = self.case.open()

    @invariant()
    def within_the_cap(self) -> None:
        """Settled, held and uncertain together never exceed a cap, and none is negative."""
        for scope in SCOPES:
            balance = self.case.store.balance(scope.key)
            assert min(balance.settled, balance.held, balance.uncertain) >= 0
            assert balance.taken <= scope.cap

    @invariant()
    def counters_are_sums(self) -> None:
        """Rebuilding changes nothing."""
        assert list(self.case.store.rebuild()) == []

    def teardown(self) -> None:
        """Let go."""
        self.case.close()


@pytest.mark.parametrize(("kind", "examples"), [("memory", 60), ("sqlite", 40), ("redis", 25)])
def test_any_order_of_verbs_keeps_every_promise(
    kind: str, examples: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Caps hold at every step, settling twice is once, and counters are the sums of rows."""
    machine = type(
        "WalkOn", (Walk,), {"make": lambda self: make_case(kind, Path(tempfile.mkdtemp(dir=tmp_path)), request)}
    )
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

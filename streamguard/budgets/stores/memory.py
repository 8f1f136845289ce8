"""Balances of one process, and the model of all stores: what it does is what they do.

In charge of holds and sums in plain dictionaries. It forgets with the process, so it limits what one process spends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from streamguard.budgets.ledger import LATE, Balance, Denied, Doubt, DoubtKind, Repair
from streamguard.budgets.spec import Scope, Settlement
from streamguard.budgets.stores.checks import (
    check_amounts,
    check_same,
    check_scopes,
    check_shares,
    lease_lost,
    unknown_scope,
    window_of,
)

KEPT_WINDOWS = 3
"""Windows of a scope that are kept though they are over."""


class _Row(msgspec.Struct):
    """A hold in one scope and window."""

    window: str
    amount: int
    lease: float
    state: Literal["held", "swept", "closed", "reconciled"] = "held"
    uncertain: int = 0
    since: float = 0.0
    """When it became uncertain."""


class _Account(msgspec.Struct):
    settled: int = 0
    held: int = 0
    uncertain: int = 0
    finished: int = 0
    """What the rows that are gone settled at: where `rebuild` begins."""
    rows: int = 0
    """Rows in `MemoryStore._rows`, open or uncertain."""

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.settled, self.held, self.uncertain


class MemoryStore:
    """Balances of one process. They end with it, so they limit what it spends, not what happened before.

    :param clock: Unix seconds; for windows and leases.
    """

    blocks = False
    caveats: Sequence[str] = ("a ledger in memory knows only this process, and forgets with it",)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._scopes: dict[str, Scope] = {}
        self._set: dict[str, int] = {}
        """Caps that were set by hand."""
        self._accounts: dict[str, dict[str, _Account]] = {}
        """Scope key → window → account. A finished window is kept only while something in it is open."""
        # Rows of holds that are open or partly uncertain. What is finished is folded into one sum per window, so memory
        # stays bounded however many calls there are.
        self._rows: dict[str, dict[str, _Row]] = {}

    def configure(self, scopes: Sequence[Scope]) -> None:
        check_scopes(scopes)
        with self._lock:
            for scope in scopes:
                known = self._scopes.get(scope.key, scope)
                check_same(scope, known.unit, known.window)
            for scope in scopes:
                self._scopes[scope.key] = scope
                self._accounts.setdefault(scope.key, {})

    def set_cap(self, scope: str, cap: int | None) -> None:
        with self._lock:
            known = self._scope(scope)
            if cap is None:
                self._set.pop(scope, None)
            else:
                check_scopes([msgspec.structs.replace(known, cap=cap)])
                self._set[scope] = cap

    def scopes(self) -> Sequence[Scope]:
        with self._lock:
            return [msgspec.structs.replace(self._scopes[key], cap=self._cap(key)) for key in sorted(self._scopes)]

    def _cap(self, key: str, own: int | None = None) -> int:
        caps = (self._scopes[key].cap, self._set.get(key), own)
        return min(cap for cap in caps if cap is not None)

    def reserve(
        self, hold: str, amounts: Mapping[str, int], lease: float, caps: Mapping[str, int] | None = None
    ) -> Denied | None:
        check_amounts(amounts)
        with self._lock:
            if hold in self._rows:
                return None
            now = self._clock()
            windows: dict[str, str] = {}
            for key, amount in amounts.items():
                scope = self._scope(key)
                window = windows[key] = window_of(scope.window, now)
                account = self._account(key, window)
                cap = self._cap(key, (caps or {}).get(key))
                free = cap - sum(account.counts)
                if amount > free:
                    return Denied(
                        scope=key,
                        unit=scope.unit,
                        asked=amount,
                        available=max(0, free),
                        cap=cap,
                        held=account.held,
                        window=window,
                    )
            self._rows[hold] = {
                key: _Row(window=windows[key], amount=amount, lease=now + lease) for key, amount in amounts.items()
            }
            for key, amount in amounts.items():
                account = self._account(key, windows[key])
                account.held += amount
                account.rows += 1
            return None

    def heartbeat(self, hold: str, lease: float) -> None:
        with self._lock:
            rows = self._rows.get(hold, {})
            if not rows or any(row.state != "held" for row in rows.values()):
                raise lease_lost(hold)
            until = self._clock() + lease
            for row in rows.values():
                row.lease = max(row.lease, until)

    def settle(self, hold: str, settlements: Mapping[str, Settlement]) -> bool:
        check_shares(settlements)
        with self._lock:
            done = False
            for key, row in self._rows.get(hold, {}).items():
                if row.state != "closed":
                    done = True
                    self._close(key, row, settlements.get(key, Settlement(0, row.amount)))
            self._tidy(hold)
            return done

    def _close(self, key: str, row: _Row, settlement: Settlement) -> None:
        account = self._account(key, row.window)
        if row.state == "reconciled":
            row.since = 0.0
        if row.state == "held":
            account.held -= row.amount
        account.uncertain += settlement.uncertain - row.uncertain
        account.settled += settlement.settled
        account.finished += settlement.settled
        row.state, row.uncertain = "closed", settlement.uncertain
        row.since = row.since or self._clock()

    def reconcile_hold(self, hold: str, settled: Mapping[str, int]) -> bool:
        check_amounts(settled)
        with self._lock:
            rows = {key: row for key, row in self._rows.get(hold, {}).items() if key in settled and row.uncertain}
            for key, row in rows.items():
                self._clear(key, row, settled[key])
            self._tidy(hold)
            return bool(rows)

    def reconcile_scope(self, scope: str, settled: int, window: str | None = None, before: float | None = None) -> bool:
        check_amounts({scope: settled})
        with self._lock:
            wanted = window if window is not None else window_of(self._scope(scope).window, self._clock())
            found = [
                (hold, rows[scope])
                for hold, rows in self._rows.items()
                if scope in rows and rows[scope].window == wanted and rows[scope].uncertain
                if before is None or rows[scope].since < before
            ]
            for index, (hold, row) in enumerate(found):
                self._clear(scope, row, settled if index == 0 else 0)
                self._tidy(hold)
            return bool(found)

    def _clear(self, key: str, row: _Row, settled: int) -> None:
        account = self._account(key, row.window)
        account.uncertain -= row.uncertain
        account.settled += settled
        account.finished += settled
        # Who holds it may still be at work, and settle late.
        row.state, row.uncertain = "reconciled" if row.state == "swept" else "closed", 0
        row.since = self._clock()

    def uncertain(self, scope: str, window: str | None = None) -> Sequence[Doubt]:
        with self._lock:
            wanted = window if window is not None else window_of(self._scope(scope).window, self._clock())
            found: dict[DoubtKind, list[_Row]] = {}
            for rows in self._rows.values():
                row = rows.get(scope)
                if row is not None and row.window == wanted and row.uncertain:
                    found.setdefault("lost" if row.state == "swept" else "aborted", []).append(row)
            return [
                Doubt(
                    kind=kind,
                    holds=len(rows),
                    amount=sum(row.uncertain for row in rows),
                    since=min(row.since for row in rows),
                )
                for kind, rows in sorted(found.items())
            ]

    def _tidy(self, hold: str) -> None:
        """Forget a hold of which nothing is open."""
        rows = self._rows.get(hold)
        if rows is not None and all(row.state == "closed" and not row.uncertain for row in rows.values()):
            del self._rows[hold]
            for key, row in rows.items():
                self._account(key, row.window).rows -= 1

    def balance(self, scope: str, window: str | None = None) -> Balance:
        with self._lock:
            known = self._scope(scope)
            window = window_of(known.window, self._clock()) if window is None else window
            settled, held, uncertain = self._accounts[scope].get(window, _Account()).counts
            return Balance(
                scope=scope,
                unit=known.unit,
                cap=self._cap(scope),
                settled=settled,
                held=held,
                uncertain=uncertain,
                window=window,
            )

    def sweep(self) -> int:
        with self._lock:
            now, changed = self._clock(), 0
            for hold, rows in list(self._rows.items()):
                for key, row in rows.items():
                    release = self._scopes[key].release_after
                    if row.state == "held" and row.lease <= now:
                        account = self._account(key, row.window)
                        account.held -= row.amount
                        account.uncertain += row.amount
                        row.state, row.uncertain, row.since = "swept", row.amount, now
                        changed += 1
                    elif row.uncertain and release is not None and row.since + release <= now:
                        self._clear(key, row, 0)
                        changed += 1
                    elif row.state == "reconciled" and row.since + LATE <= now:
                        row.state = "closed"
                self._tidy(hold)
            return changed

    def rebuild(self) -> Sequence[Repair]:
        with self._lock:
            true = {
                (key, window): _Account(settled=account.finished, finished=account.finished, rows=account.rows)
                for key, windows in self._accounts.items()
                for window, account in windows.items()
            }
            for rows in self._rows.values():
                for key, row in rows.items():
                    account = true[key, row.window]
                    account.held += row.amount if row.state == "held" else 0
                    account.uncertain += row.uncertain
            repairs = []
            for (key, window), account in true.items():
                was = self._accounts[key][window].counts
                if was != account.counts:
                    repairs.append(Repair(scope=key, window=window, was=was, now=account.counts))
                self._accounts[key][window] = account
            return repairs

    def close(self) -> None:
        """Nothing to let go of."""

    def _account(self, key: str, window: str) -> _Account:
        windows = self._accounts[key]
        if window not in windows:
            # A clock may step back, so a few windows are kept though they are over.
            for old in sorted(windows)[:-KEPT_WINDOWS]:
                if not windows[old].rows:
                    del windows[old]
            windows[window] = _Account()
        return windows[window]

    def _scope(self, key: str) -> Scope:
        if key not in self._scopes:
            raise unknown_scope(key)
        return self._scopes[key]

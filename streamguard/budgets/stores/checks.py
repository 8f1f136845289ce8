"""What all stores refuse, in the same words, and the names of windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from streamguard.budgets.ledger import LedgerError, LedgerLost
from streamguard.budgets.spec import Scope, Settlement, Window
from streamguard.budgets.upper_bound import MAX_AMOUNT


def window_of(window: Window | None, at: float) -> str:
    """The name of the window that a moment (Unix seconds) belongs to; empty for none."""
    if window is None:
        return ""
    return datetime.fromtimestamp(at, UTC).strftime(WINDOW_FORMATS[window])


WINDOW_FORMATS: Mapping[Window, str] = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


def check_amounts(amounts: Mapping[str, int]) -> None:
    """Refuse what cannot be counted.

    :raises ValueError: no scope, or an amount that is no whole number from 0 to `MAX_AMOUNT`.
    """
    if not amounts:
        raise ValueError("a hold needs at least one scope")
    for scope, amount in amounts.items():
        if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT:
            raise ValueError(f"{scope}: an amount must be a whole number from 0 to {MAX_AMOUNT}, not {amount!r}")


def check_shares(settlements: Mapping[str, Settlement]) -> None:
    """Refuse what cannot be counted: a negative settlement would give a budget out twice.

    :raises ValueError: a settlement that is no whole number from 0 to `MAX_AMOUNT`.
    """
    for scope, settlement in settlements.items():
        for amount in (settlement.settled, settlement.uncertain):
            check_amounts({scope: amount})


def check_scopes(scopes: Iterable[Scope]) -> None:
    """Refuse caps that cannot be counted.

    :raises LedgerError: a cap that is no whole number from 0 to `MAX_AMOUNT`.
    """
    for scope in scopes:
        if type(scope.cap) is not int or not 0 <= scope.cap <= MAX_AMOUNT:
            raise LedgerError(f"{scope.key}: a cap must be a whole number from 0 to {MAX_AMOUNT}, not {scope.cap!r}")


def check_same(scope: Scope, unit: str, window: str | None) -> None:
    """Refuse to reinterpret a scope.

    :raises LedgerError: unit or window differ from what the ledger has.
    """
    if (scope.unit, scope.window) != (unit, window):
        raise LedgerError(
            f"budget scope {scope.key!r} is per {window or 'lifetime'} in {unit} in this ledger, and the policy now "
            f"says per {scope.window or 'lifetime'} in {scope.unit}: give the budget another name"
        )


def unknown_scope(key: str) -> LedgerError:
    """For a scope nobody configured."""
    return LedgerError(f"this ledger has no budget scope {key!r}: configure it before reserving")


def lease_lost(hold: str) -> LedgerLost:
    """For a heartbeat that came too late."""
    return LedgerLost(f"hold {hold} is no longer held: its lease expired, or somebody settled it")

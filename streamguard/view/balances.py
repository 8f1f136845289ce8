"""The accounts of the budgets that calls of a runtime use, as far as a look at them is cheap.

In charge of which scopes are worth asking for, and of asking their ledgers no more than once a second, while somebody
looks. A ledger that does not answer is shown as unknown; what that means for calls is the engine's business.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import anyio

from streamguard.budgets.ledger import LedgerError, LedgerLost
from streamguard.engine.runtime import RunningCall, Runtime
from streamguard.view import rows

MAX_SCOPES: Final = 50
"""Scopes that are shown, the latest used."""

EVERY: Final = 1.0
"""Seconds between two questions to the ledgers."""

PATIENCE: Final = 0.5
"""Seconds that a ledger may take to answer."""


class Balances:
    """What the budgets have left."""

    def __init__(self, runtime: Runtime) -> None:
        self.shown: dict[str, Any] = {}
        """Scope key → its account; only the budget's name while that is unknown."""
        self._runtime = runtime
        self._scopes: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """Scope key → the budget's name, and the address of its ledger."""
        self._asked: float | None = None

    def learn(self, call: RunningCall) -> None:
        """A call uses the budgets of its policy."""
        for spec in call.policy.budgets:
            if spec.per == "call":
                continue
            try:
                scopes = spec.scopes(job=self._runtime.job, labels=call.snapshot().labels)
            except ValueError:
                continue  # the call lacks a label and fails by itself
            for scope in scopes:
                self._scopes[scope.key] = (spec.name, spec.ledger)
                self._scopes.move_to_end(scope.key)
        while len(self._scopes) > MAX_SCOPES:
            key, _ = self._scopes.popitem(last=False)
            self.shown.pop(key, None)

    async def refresh(self) -> None:
        """Ask the ledgers, if nobody has within the last second."""
        now = anyio.current_time()
        if not self._scopes or (self._asked is not None and now - self._asked < EVERY):
            return
        self._asked = now
        fresh: dict[str, Any] = dict.fromkeys(self._scopes)
        with anyio.move_on_after(PATIENCE):
            for key, (name, address) in list(self._scopes.items()):
                try:
                    queue = await self._runtime.accounts.ledger(address)
                    fresh[key] = rows.budget(name, await queue.ledger.balance(key))
                except (LedgerLost, LedgerError):
                    fresh[key] = None
        self.shown = {
            key: account or {"name": self._scopes[key][0]} for key, account in fresh.items() if key in self._scopes
        }

"""A job's budgets: what is left of them while it runs, for the progress line.

In charge of looking. What is reserved and settled is the engine's business.
"""

from __future__ import annotations

import anyio

from streamguard.budgets.ledger import LedgerError, LedgerLost
from streamguard.engine.runtime import Runtime
from streamguard.jobs.job import Job
from streamguard.jobs.progress.summary import BudgetState, Tally

LOOK_EVERY = 2.0
"""Seconds between looks at the balances."""


async def watch_budgets(job: Job, runtime: Runtime, tally: Tally) -> None:
    """Keep `tally.budget` up to date, until cancelled. Returns at once if no budget is the whole job's."""
    scopes = [
        (spec, scope)
        for spec in job.policy.budgets
        if spec.per != "call" and "{" not in spec.per
        for scope in spec.scopes(job=job.name)
    ]
    while scopes:
        states: list[BudgetState] = []
        for spec, scope in scopes:
            try:
                balance = await (await runtime.accounts.ledger(spec.ledger)).ledger.balance(scope.key)
            except (LedgerError, LedgerLost):
                continue  # not known to its ledger before the first call; and a lost one ends the job elsewhere
            spent = balance.settled + balance.held + balance.uncertain
            states.append(BudgetState(spec.name, scope.unit, spent, balance.cap))
        tally.budget = max(states, key=lambda state: state.spent / state.cap, default=None)
        await anyio.sleep(LOOK_EVERY)

"""What budgets hold for a whole batch, under a name that survives the process.

In charge of one hold per ledger for all rows of a batch: the sum of the most that each can cost at half the price. Its
name is the batch's own, noted before it is made, and its lease outlives any batch, so that whoever reads the results,
hours and processes later, settles it. Made again under the same name it is the same hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from streamguard.budgets.ledger import Denied, Hold, LedgerError
from streamguard.budgets.reservation import Accounts
from streamguard.budgets.spec import BudgetSpec, Scope, Settlement
from streamguard.budgets.upper_bound import Unbounded, bound
from streamguard.jobs.batches.log import Batch, Member
from streamguard.jobs.batches.prices import BatchPrices
from streamguard.jobs.input.input import RowRequest
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.usage import Unit

LEASE: Final = 26 * 3600.0
"""Seconds: a batch ends within 24 hours of its creation (Message Batches API reference, 2026-11)."""


class BatchHolds:
    """The budgets of a job, for its batches.

    :param policy: with the job's budgets.
    :param accounts: the ledgers.
    :param job: the job's name.
    """

    def __init__(self, policy: Policy, accounts: Accounts, job: str) -> None:
        self._budgets = tuple(policy.budgets)
        self._prices = BatchPrices(policy.prices)
        self._accounts = accounts
        self._job = job

    def member(self, request: RowRequest) -> Member | None:
        """Return what a row holds in a batch; `None` if a budget cannot bound it, or one per call has no room."""
        key, fingerprint = request.entry.custom_id, request.entry.fingerprint or ""
        if not self._budgets:
            return Member(key, fingerprint)
        asked = Request(request.params)
        price = self._prices.for_request(asked)
        priced = any(spec.cost_usd is not None for spec in self._budgets)
        most = bound(asked, price, needs_price=priced)
        if isinstance(most, Unbounded):
            return None
        found = Member(key, fingerprint, most.micro_usd, most.tokens)
        for spec in self._budgets:
            if spec.per == "call" and any(_of(found, scope.unit) > scope.cap for scope in spec.scopes()):
                return None
        return found

    def amounts(self, members: Sequence[Member]) -> dict[str, dict[str, int]]:
        """Return what a batch holds: ledger → scope → amount."""
        found: dict[str, dict[str, int]] = {}
        for spec, scope, member in self._claims(members):
            held = found.setdefault(spec.ledger, {})
            held[scope.key] = held.get(scope.key, 0) + _of(member, scope.unit)
        return found

    async def reserve(self, batch: Batch) -> Denied | None:
        """Hold a batch's amounts in every ledger, or in none. The same batch again changes nothing.

        :raises LedgerLost: a ledger cannot be reached.
        :raises LedgerError: a ledger refuses to be used.
        """
        done: list[str] = []
        for address, amounts in batch.holds.items():
            scopes = self._scopes(address, batch.members)
            queue = await self._accounts.ledger(address)
            await queue.configure(scopes.values())
            caps = {key: scope.cap for key, scope in scopes.items()}
            denied = await queue.ledger.reserve_as(batch.token, amounts, lease=LEASE, caps=caps)
            if denied is not None:
                for earlier in done:
                    await self._settle(earlier, batch, {})
                return denied
            done.append(address)
        return None

    async def settle(self, batch: Batch, spent: Mapping[str, tuple[int | None, int | None]]) -> None:
        """Settle a batch's holds, once.

        :param spent: what each row took, by its key: micro-USD and tokens, `None` where nobody knows. A row that is
            not in it was not billed.
        :raises LedgerLost: a ledger cannot be reached.
        """
        for address in batch.holds:
            await self._settle(address, batch, spent)

    async def _settle(self, address: str, batch: Batch, spent: Mapping[str, tuple[int | None, int | None]]) -> None:
        sums: dict[str, Settlement] = dict.fromkeys(batch.holds[address], Settlement(0))
        for spec, scope, member in self._claims(batch.members):
            if spec.ledger != address or member.key not in spent:
                continue
            known = spent[member.key][0 if scope.unit == "micro_usd" else 1]
            before = sums[scope.key]
            sums[scope.key] = (
                Settlement(before.settled, before.uncertain + _of(member, scope.unit))
                if known is None
                else Settlement(before.settled + known, before.uncertain)
            )
        queue = await self._accounts.ledger(address)
        await queue.settle(Hold(id=batch.token, amounts=batch.holds[address], lease=LEASE), sums)

    def _claims(self, members: Sequence[Member]) -> list[tuple[BudgetSpec, Scope, Member]]:
        """Every limit that a row of the batch counts in. Budgets per call were looked at row by row."""
        found = []
        for spec in self._budgets:
            if spec.per == "call":
                continue
            same = spec.scopes(job=self._job, labels={}) if "{" not in spec.per else None
            for member in members:
                scopes = same if same is not None else spec.scopes(job=self._job, labels={"custom_id": member.key})
                found += [(spec, scope, member) for scope in scopes]
        return found

    def _scopes(self, address: str, members: Sequence[Member]) -> dict[str, Scope]:
        """:raises LedgerError: two budgets are called the same."""
        owners: dict[str, tuple[str, Scope]] = {}
        for spec, scope, _ in self._claims(members):
            if spec.ledger != address:
                continue
            if owners.setdefault(scope.key, (spec.name, scope))[1] != scope:
                raise LedgerError(f"two budgets are called the same in one ledger: {scope.key}; rename one")
        return {key: scope for key, (_, scope) in owners.items()}


def _of(member: Member, unit: Unit) -> int:
    return (member.micro_usd or 0) if unit == "micro_usd" else member.tokens

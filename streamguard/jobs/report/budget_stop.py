"""Words for a job that a budget stopped: where the money is, and each way to go on."""

from __future__ import annotations

from streamguard.budgets.ledger import Balance
from streamguard.budgets.spec import BudgetSpec


def budget_stop(asked: int | None, balance: Balance, spec: BudgetSpec) -> str:
    """Return what stopped the job, in sentences.

    :param asked: what the row that did not fit could have cost at the most, in the balance's unit.
    :param balance: of the budget's scope, once no call of the job runs any more.
    :param spec: the budget.
    """

    def amount(value: int) -> str:
        return f"{value:,} tokens" if balance.unit == "tokens" else f"${value / 1_000_000:,.6f}"

    most = "an unknown amount" if asked is None else f"up to {amount(asked)}"
    uncertain = " (answers that ended before the provider had counted them)" if balance.uncertain else ""
    held = " (by other runs, or by one that was killed)" if balance.held else ""
    return (
        f"not sent: the request may cost {most}, and budget {balance.scope} has {amount(balance.available)} left "
        f"of {amount(balance.cap)}: {amount(balance.settled)} spent, {amount(balance.held)} held{held}, "
        f"{amount(balance.uncertain)} uncertain{uncertain}. To go on: {'; '.join(_ways(balance, spec))}"
    )


def _ways(balance: Balance, spec: BudgetSpec) -> list[str]:
    ways = ["raise the budget and run again", "ask with a smaller max_tokens, so that each request holds less"]
    place = spec.ledger.partition(":")[2] if spec.ledger.startswith("sqlite:") else spec.ledger
    if balance.uncertain:
        ways.append(f"tell what the bill says (streamguard budget reconcile {place} {balance.scope} --settled …)")
        if not spec.abort_stops_billing:
            ways.append("say abort_stops_billing: true in the budget, if your provider stops billing at a disconnect")
    if balance.held:
        ways.append("wait for what is held: it is settled, or becomes uncertain, within three minutes")
    if balance.window:
        ways.append(f"wait for the next {spec.window}")
    return ways

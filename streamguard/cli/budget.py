"""`streamguard budget`: the signatures of the commands that look at a ledger and correct it."""

from __future__ import annotations

from typing import Annotated

import typer

from streamguard.cli.options import (
    LedgerAddress,
    ScopeKey,
    finish,
)

budget = typer.Typer(
    help="Look at a ledger of budgets, and correct it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@budget.command("show")
def budget_show(
    context: typer.Context,
    ledger: LedgerAddress,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a scope.")] = False,
) -> None:
    """What was spent, is held, is uncertain and is left, by scope."""

    def body() -> int:
        from streamguard.cli.commands import budget as command

        return command.show(ledger, command.Options(as_json=as_json))

    finish(context, body)


@budget.command("reconcile")
def budget_reconcile(
    context: typer.Context,
    ledger: LedgerAddress,
    scope: ScopeKey,
    settled: Annotated[
        str, typer.Option("--settled", help="What the uncertain amount truly cost: US dollars, or tokens.")
    ],
    hold: Annotated[str | None, typer.Option("--hold", help="Of one hold only.")] = None,
    window: Annotated[str | None, typer.Option("--window", help="Of an earlier hour, day or month.")] = None,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="TIME", help="Only what is uncertain since before then, such as 2026-12-01."),
    ] = None,
) -> None:
    """Replace what is uncertain by what it truly cost, once the bill is known."""

    def body() -> int:
        from streamguard.cli.commands import budget as command

        return command.reconcile(
            ledger, command.Options(scope=scope, amount=settled, hold=hold, window=window, before=before)
        )

    finish(context, body)


@budget.command("set")
def budget_set(
    context: typer.Context,
    ledger: LedgerAddress,
    scope: ScopeKey,
    cap: Annotated[str | None, typer.Option("--cap", help="The cap: US dollars, or tokens.")] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Let the policies' own caps count again.")] = False,
) -> None:
    """Hold a budget's cap down, at once and for everybody who shares it, running processes too, until it is unset."""

    def body() -> int:
        from streamguard.cli.commands import budget as command

        return command.set_cap(ledger, command.Options(scope=scope, amount=cap, unset=unset))

    finish(context, body)

"""`streamguard budget`: what a ledger says was spent, is held and is uncertain, and how a person corrects it.

In charge of the three verbs of an operator: `show`, `reconcile`, `set`. It spends nothing and knows no policy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import anyio
import msgspec
from rich.cells import cell_len

from streamguard.budgets.ledger import Balance, Doubt, Ledger, LedgerError
from streamguard.budgets.spec import Scope
from streamguard.budgets.stores import open_ledger
from streamguard.budgets.upper_bound import MAX_AMOUNT
from streamguard.cli.commands.exits import Exit
from streamguard.files.sqlite_file import copied, is_writable
from streamguard.pricing.price import MICRO, micro_usd
from streamguard.terminal import columns, fitted, packed, printable
from streamguard.usage import Unit

PLAIN_WIDTH = 140
"""Columns of a table that goes to no terminal."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the ledger."""

    scope: str | None = None
    amount: str | None = None
    window: str | None = None
    hold: str | None = None
    before: str | None = None
    unset: bool = False
    as_json: bool = False


def show(address: str, options: Options) -> int:
    """Print every scope's account."""

    async def body(ledger: Ledger) -> list[tuple[Balance, Sequence[Doubt]]]:
        await ledger.sweep()
        return [(await ledger.balance(key), await ledger.uncertain(key)) for key in await _keys(ledger)]

    found = _with(address, body, looking=True)
    if options.as_json:
        sys.stdout.write("".join(f"{json.dumps(_balance_json(*one))}\n" for one in found))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _shown(address, found, columns(sys.stdout))))
    return Exit.OK


def reconcile(address: str, options: Options) -> int:
    """Replace what is uncertain in a scope, or of one hold, by what it truly cost."""

    async def body(ledger: Ledger) -> str:
        scope = await _scope(ledger, options.scope)
        amount = _amount(options.amount, scope.unit, "--settled")
        if options.hold is not None:
            done = await ledger.reconcile_hold(options.hold, {scope.key: amount})
            what = f"of hold {options.hold}"
        else:
            before = None if options.before is None else _moment(options.before)
            done = await ledger.reconcile_scope(scope.key, amount, options.window, before)
            what = f"in window {options.window}" if options.window else "now"
            what += f", since before {options.before}" if options.before else ""
        if not done:
            raise LedgerError(f"{scope.key}: nothing is uncertain {what}")
        return f"{scope.key}: what was uncertain {what} is settled at {_amount_text(amount, scope.unit)}"

    _say(_with(address, body))
    return Exit.OK


def set_cap(address: str, options: Options) -> int:
    """Hold a scope's cap down, or let go of it."""

    async def body(ledger: Ledger) -> str:
        scope = await _scope(ledger, options.scope)
        if options.unset == (options.amount is not None):
            raise LedgerError("give --cap AMOUNT, or --unset")
        await ledger.set_cap(scope.key, None if options.unset else _amount(options.amount, scope.unit, "--cap"))
        now = (await _scope(ledger, scope.key)).cap
        said = f"{scope.key}: the cap is {_amount_text(now, scope.unit)} now"
        if options.unset:
            return f"{said}, as the policy says that was used last"
        return (
            f"{said}, it was {_amount_text(scope.cap, scope.unit)}. It holds at once and for everybody, running "
            "processes too, until --unset; a policy's own smaller cap still counts"
        )

    _say(_with(address, body))
    return Exit.OK


def _say(text: str) -> None:
    sys.stdout.write(fitted(printable(text), 0, columns(sys.stdout)) + "\n")


def _with(address: str, body: Any, *, looking: bool = False) -> Any:
    """Run something with an existing ledger.

    :param looking: change nothing, so that a copy will do where the file cannot be written.
    :raises LedgerError: there is none at the address: looking at a budget must not make one.
    """
    if "://" not in address and not address.startswith(("sqlite:", "memory:")):
        address = f"sqlite:{address}"
    kind, _, rest = address.partition(":")
    if kind == "memory":
        raise LedgerError("a ledger in memory lives in its own process: name a file or a Redis server")
    file = Path(rest.partition("?")[0]) if kind == "sqlite" else None

    async def main(place: str) -> Any:
        ledger = await anyio.to_thread.run_sync(open_ledger, place)
        try:
            return await body(ledger)
        finally:
            await ledger.aclose()

    if file is None:
        return anyio.run(main, address)
    try:
        if not file.exists():
            raise LedgerError(f"{file}: there is no such file")
        if not looking or not file.is_file() or is_writable(file):
            return anyio.run(main, address)
        with copied(file) as copy:
            try:
                return anyio.run(main, f"sqlite:{copy}")
            except LedgerError as error:
                raise LedgerError(str(error).replace(str(copy), str(file))) from error
    except OSError as mistake:
        raise LedgerError(f"{file}: cannot be read: {(mistake.strerror or str(mistake)).lower()}") from mistake


def _moment(text: str) -> float:
    """A time as people write it, as Unix seconds; UTC, if it says no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise LedgerError(f"--before {text!r}: give a time such as 2026-12-01T03:00 (UTC)") from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


async def _keys(ledger: Ledger) -> list[str]:
    return [scope.key for scope in await ledger.scopes()]


async def _scope(ledger: Ledger, key: str | None) -> Scope:
    known = {scope.key: scope for scope in await ledger.scopes()}
    if key in known:
        return known[key]
    names = ", ".join(known) or "none at all"
    raise LedgerError(f"this ledger has no scope {key!r}; it has {names}")


def _amount(text: str | None, unit: Unit, option: str) -> int:
    """US dollars or tokens, as people write them."""
    try:
        value = Decimal((text or "").strip().removeprefix("$").replace("_", ""))
        amount = micro_usd(value) if unit == "micro_usd" else int(value)
        exact = value.is_finite() and (unit == "micro_usd" or amount == value)
    except (InvalidOperation, ValueError, OverflowError):
        exact = False
        amount = 0
    if not exact or not 0 <= amount <= MAX_AMOUNT:
        what = 'US dollars, such as "12.50"' if unit == "micro_usd" else "whole tokens, such as 250000"
        raise LedgerError(f"{option} {text!r}: give {what}")
    return amount


def _amount_text(amount: int, unit: Unit) -> str:
    return f"${Decimal(amount) / MICRO:.6f}" if unit == "micro_usd" else f"{amount:,} tokens"


def _balance_json(balance: Balance, doubts: Sequence[Doubt]) -> Mapping[str, Any]:
    kinds = [msgspec.structs.asdict(doubt) for doubt in doubts]
    return {**msgspec.structs.asdict(balance), "available": balance.available, "uncertain_kinds": kinds}


_KINDS = {
    "aborted": "aborted or cut before the provider counted",
    "lost": "of processes that died, or whose lease ran out",
}

_HINT = (
    "uncertain: calls that were aborted or crashed before the provider counted. It stays taken until somebody who has "
    "seen the bill says what it cost: streamguard budget reconcile LEDGER SCOPE --settled AMOUNT"
)


def _shown(address: str, found: Sequence[tuple[Balance, Sequence[Doubt]]], width: int | None) -> Iterator[str]:
    """What a person is shown: a table where it fits, else a block a scope. A scope is never broken: it is to be copied.

    :param width: see `terminal.columns`.
    """
    balances = [balance for balance, _ in found]
    if not balances:
        yield f"{printable(address)}: no budget was ever used here"
        return
    rows = [_cells(balance) for balance in balances]
    yield from _table(rows, width) or (line for row in rows for line in _block(row, width))
    for balance, doubts in found:
        for doubt in doubts:
            yield from fitted(_doubt_text(balance, doubt), 0, width).split("\n")
    if any(balance.uncertain for balance in balances):
        yield from fitted(_HINT, 0, width).split("\n")


_COLUMNS = ("scope", "window", "spent", "held", "uncertain", "left", "cap")


def _cells(balance: Balance) -> tuple[str, ...]:
    amounts = (balance.settled, balance.held, balance.uncertain, balance.available, balance.cap)
    shown = [_amount_text(amount, balance.unit) for amount in amounts]
    return (printable(balance.scope), balance.window or "-", *shown)


def _table(rows: Sequence[tuple[str, ...]], width: int | None) -> list[str]:
    """A line a scope; nothing if the lines were too long."""
    widths = [max(map(cell_len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > (PLAIN_WIDTH if width is None else width):
        return []
    return [
        "  ".join(_padded(cell, index, widths[index]) for index, cell in enumerate(row)) for row in (_COLUMNS, *rows)
    ]


def _padded(cell: str, index: int, width: int) -> str:
    space = " " * (width - cell_len(cell))
    return cell + space if index < 2 else space + cell


def _block(row: tuple[str, ...], width: int | None) -> Iterator[str]:
    """The scope on a line of its own, and its figures below."""
    scope, window, *amounts = row
    yield scope
    figures = [f"{name} {amount}" for name, amount in zip(_COLUMNS[2:], amounts, strict=True)]
    if window != "-":
        figures.insert(0, f"window {window}")
    for line in packed(figures, (PLAIN_WIDTH if width is None else width) - 2):
        yield f"  {line}"


def _doubt_text(balance: Balance, doubt: Doubt) -> str:
    since = datetime.fromtimestamp(doubt.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    attempts = "1 attempt" if doubt.holds == 1 else f"{doubt.holds:,} attempts"
    return (
        f"{printable(balance.scope)}: {_amount_text(doubt.amount, balance.unit)} uncertain in {attempts} "
        f"{_KINDS[doubt.kind]}, the oldest since {since}"
    )

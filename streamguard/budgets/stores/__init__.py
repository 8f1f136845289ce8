"""The stores, by the address a budget names them with."""

from __future__ import annotations

from pathlib import Path

from streamguard.budgets.ledger import Ledger, LedgerError


def open_ledger(address: str, *, base: Path | None = None) -> Ledger:
    """The ledger at an address: `memory:`, `sqlite:PATH` or `redis://HOST:PORT/DB?ledger=NAME`.

    Each call gives a ledger of its own: two of the same file or server share balances, two of `memory:` share nothing.

    :param base: the folder that a relative path is relative to; the current one, if `None`.
    :raises LedgerError: no such kind of ledger, or one that refuses to be used.
    :raises LedgerLost: the store cannot be reached.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "memory":
        from streamguard.budgets.stores.memory import MemoryStore

        return Ledger(MemoryStore())
    if scheme == "sqlite":
        from streamguard.budgets.stores.sqlite import SqliteStore

        return Ledger(SqliteStore.at(rest, base=base))
    if scheme in ("redis", "rediss", "unix"):
        try:
            from streamguard.budgets.stores.redis import RedisStore
        except ImportError as error:
            raise LedgerError(
                "a ledger in Redis needs the redis package: pip install 'streamguard-llm[redis]'"
            ) from error

        return Ledger(RedisStore.at(address))
    raise LedgerError(
        f"unknown kind of ledger {scheme!r}: use memory:, sqlite:PATH or redis://HOST:PORT/DB?ledger=NAME"
    )

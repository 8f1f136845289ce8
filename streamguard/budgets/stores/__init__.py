"""The stores, by the address a budget names them with."""

from __future__ import annotations

from pathlib import Path

from streamguard.budgets.ledger import Ledger, LedgerError
from streamguard.files.extras import needs

_REDIS = ("redis", "rediss", "unix")


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
    if scheme in _REDIS:
        check_installed(address)
        from streamguard.budgets.stores.redis import RedisStore

        return Ledger(RedisStore.at(address))
    raise LedgerError(
        f"unknown kind of ledger {scheme!r}: use memory:, sqlite:PATH or redis://HOST:PORT/DB?ledger=NAME"
    )


def check_installed(address: str) -> None:
    """Ask for what a ledger at this address needs, before anything else is begun.

    :raises LedgerError: it is not installed.
    """
    if address.partition(":")[0] in _REDIS:
        with needs("a ledger in Redis", "redis", LedgerError):
            import redis  # noqa: F401

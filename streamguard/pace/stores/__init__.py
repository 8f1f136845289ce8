"""Where a shared pace is kept, by the address that a policy names it with.

A pace fails open: whoever cannot reach its store goes on alone. So a store refuses nothing but what it cannot read.
"""

from __future__ import annotations

from pathlib import Path

from streamguard.files.extras import needs
from streamguard.pace.stores.base import PaceError, PaceStore


def open_pace_store(address: str, *, base: Path | None = None) -> PaceStore:
    """Open the store at `sqlite:PATH` or `redis://HOST:PORT/DB`.

    :param base: the folder that a relative path is relative to; the current one, if `None`.
    :raises PaceError: no such kind of store, or a file of something else.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "sqlite" and rest:
        from streamguard.pace.stores.sqlite import SqlitePaceStore

        return SqlitePaceStore(Path(rest) if base is None else base / rest)
    if scheme in ("redis", "rediss", "unix"):
        with needs("a shared pace in Redis", "redis", PaceError):
            import redis  # noqa: F401
        from streamguard.pace.stores.redis import RedisPaceStore

        return RedisPaceStore.at(address)
    raise PaceError(f"pace.shared: unknown kind of store {scheme!r}: use sqlite:PATH or redis://HOST:PORT/DB")

"""Where a shared pace is kept, by the address that a policy names it with.

A pace fails open: whoever cannot reach its store goes on alone. So a store refuses nothing but what it cannot read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from streamguard.errors import ConfigError, StreamguardError
from streamguard.files.extras import needs
from streamguard.pace.reports import Report
from streamguard.pace.sharing import Ask, Step
from streamguard.pace.state import Knobs


class PaceLost(StreamguardError):
    """The store of a shared pace cannot be reached now. The program goes on by itself."""


class PaceError(ConfigError):
    """The store of a shared pace cannot be used as it is named."""


class PaceStore(Protocol):
    """Keeps the paces of any number of pools. Blocking, and safe to use from any thread."""

    blocks: bool
    """Whether a step may wait for a file or a server."""

    def step(
        self,
        key: str,
        knobs: Knobs,
        *,
        program: str,
        heard_at: float,
        reports: Sequence[Report],
        ask: Ask | None,
    ) -> Step:
        """Take one step, in one transaction; see `take_step`.

        :param key: of account, endpoint and pool.
        :raises PaceLost: the store cannot be reached.
        """

    def close(self) -> None:
        """Let go of files and sockets."""


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

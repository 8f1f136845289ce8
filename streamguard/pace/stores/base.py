"""What a store of shared paces is, and how it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from streamguard.errors import ConfigError, StreamguardError
from streamguard.pace.reports import Report
from streamguard.pace.sharing import Ask, SharedState, Step
from streamguard.pace.state import Knobs

T = TypeVar("T")


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

    def change(self, key: str, verb: Callable[[SharedState, float], T]) -> T:
        """Change a state in one transaction, and return what the verb does.

        :param verb: is given the state and the store's clock. It may be called again, on a fresher state.
        :raises PaceLost: the store cannot be reached.
        """

    def close(self) -> None:
        """Let go of files and sockets."""

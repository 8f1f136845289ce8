"""What a scripted provider saw and would bill, one record per request; the same in memory and over sockets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from streamguard.events import Usage
from streamguard.testing.play import Facts
from streamguard.testing.steps import Truth
from streamguard.testing.wire import INPUT_TOKENS


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """The true tokens of one request. What an estimate and a ledger are checked against."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Bill) -> Bill:
        return Bill(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    @property
    def usage(self) -> Usage:
        """The same in neutral words."""
        return Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cache_read_tokens=self.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens,
        )


def total(bills: Iterable[Bill]) -> Bill:
    """Return the sum of bills.

    :param bills: of any number of attempts.
    """
    return sum(bills, Bill())


class Exchange(msgspec.Struct, kw_only=True):
    """One request and what became of it. Times are of the clock of the backend that played it, unless they say else."""

    number: int
    """Which attempt of the script was played, 1-based."""
    path: str = "/v1/messages"
    method: str = "POST"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Names in lower case. Empty in memory."""
    body: Any = None
    """The request's JSON, as patched for this attempt; `None` for none."""
    opened_at: float
    """When the request had arrived."""
    arrived_monotonic: float
    """The same on `time.monotonic()`, which all processes of a machine share."""
    head_at: float | None = None
    """When the response head went out; `None`: never."""
    status: int | None = None
    closed_at: float | None = None
    """When the attempt was over for the provider; `None`: it still runs."""
    disconnected_at: float | None = None
    """When the provider saw that the client had gone before the end; `None`: it had not."""
    disconnected_monotonic: float | None = None
    bytes_sent: int = 0
    """Of the response. Of its body only, in memory."""
    deltas_sent: int = 0
    complete: bool = False
    """Whether the script ran to its end."""
    refused: bool = False
    """Whether the provider did no work on it: nothing was sent to it, or it turned the request down."""
    violations: list[str] = msgspec.field(default_factory=list)
    """What the client should have done and had not, such as going away in time."""
    facts: Facts | None = None

    @property
    def open(self) -> bool:
        """Whether the attempt still runs."""
        return self.closed_at is None

    @property
    def bill(self) -> Bill:
        """What the provider bills for this request, as of now.

        Without a `truth` step it is what the script's own usage says, 12 input tokens where it says nothing; an error
        response costs nothing. The default is a provider that stops at a disconnect and bills what it had made.
        """
        known = self.facts
        truth = known.truth if known else None
        if known is None or (truth is None and (self.refused or (self.status or 0) >= 400)):
            return Bill()
        truth = truth or Truth()
        return Bill(
            input_tokens=_first(truth.input, known.input_tokens, INPUT_TOKENS),
            output_tokens=self._output(known, truth),
            cache_read_tokens=truth.cache_read,
            cache_write_tokens=truth.cache_write,
        )

    def _output(self, known: Facts, truth: Truth) -> int:
        whole = truth.output if truth.output is not None else known.output_tokens
        if whole is None and not truth.stops and known.deltas is None:
            # It goes on until the request's own limit.
            limit = self.body.get("max_tokens") if isinstance(self.body, Mapping) else None
            whole = limit if isinstance(limit, int) else None
        if whole is None:
            whole = known.deltas
        if whole is not None and (self.complete or not truth.stops):
            return whole
        made = self.deltas_sent
        if whole is not None and known.deltas:
            made = -(-whole * made // known.deltas)
        if not self.complete:
            made += truth.lag
        return made if whole is None else min(made, whole)


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)

"""The errors, all of them.

* :exc:`StreamguardError`
    * :exc:`ConfigError`: bad input, found before anything is sent
        * :exc:`PolicyError`: a policy, in a file or in code
        * :exc:`SchemaError`: a JSON Schema
        * :exc:`JobError`: a job file, its input or its template
    * :exc:`CallError`: a call that ended without an outcome; carries the call's whole record
        * :exc:`GaveUp`: an attempt tripped or failed and the policy does not retry (any more)
        * :exc:`DeadlineExceeded`: a deadline of the whole call
        * :exc:`BudgetExhausted`: no budget has room; nothing was sent
        * :exc:`Interrupted`: somebody interrupted
    * :exc:`~streamguard.ledger.LedgerError`: a ledger that refuses to be used as asked
        * :exc:`~streamguard.ledger.LedgerLost`: a ledger that cannot be reached (inside a call: `budget.lost`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from streamguard.outcome import AttemptRecord, CallRecord


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake in an input, with its place."""

    problem: str
    """What is wrong and what would be right."""
    file: str | None = None
    line: int | None = None
    """1-based."""
    column: int | None = None
    """1-based, in characters."""
    pointer: str | None = None
    """JSON Pointer into the input, where it has a structure."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.pointer, self.problem) if part)


class StreamguardError(Exception):
    """Whatever this package raises. It can be pickled and copied whole, so it comes out of a process pool as it is."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made again of `args`, which the keyword-only arguments below are no part of.
        return _rebuilt, (type(self), self.args, vars(self))


def _rebuilt(kind: type[StreamguardError], args: tuple[Any, ...], state: dict[str, Any]) -> StreamguardError:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class ConfigError(StreamguardError):
    """Bad input. Nothing was sent. Holds every mistake at once in `problems`, of which the first is also spread out.

    ```python
    try:
        source = streamguard.messages(client, **request)
    except streamguard.ConfigError as error:
        for problem in error.problems:
            print(problem)
    ```
    """

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problem=problems)
        found = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.problems: tuple[Problem, ...] = found or (Problem(problem="something is wrong, and nobody said what"),)
        super().__init__(*self.problems)

    @property
    def file(self) -> str | None:
        return self.problems[0].file

    @property
    def line(self) -> int | None:
        return self.problems[0].line

    @property
    def column(self) -> int | None:
        return self.problems[0].column

    @property
    def pointer(self) -> str | None:
        return self.problems[0].pointer

    @property
    def problem(self) -> str:
        return self.problems[0].problem

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class PolicyError(ConfigError):
    """A policy that cannot be used.

    ```python
    try:
        policy = streamguard.load_policy("policy.yaml")
    except streamguard.PolicyError as error:
        print(error)  # policy.yaml:4:3: /timeouts/frist_token: unknown key; did you mean "first_token"?
    ```
    """


class SchemaError(ConfigError):
    """A JSON Schema that cannot be used."""


class JobError(ConfigError):
    """A job, its input or its template that cannot be used."""


class CallError(StreamguardError):
    """A call that ended without an outcome.

    ```python
    try:
        await streamguard.run(source, policy=policy)
    except streamguard.CallError as error:
        print(error.reason, [attempt.reason for attempt in error.attempts])
    ```
    """

    sdk_error: BaseException | None = None
    """Where a client of the SDK was asked: the SDK's own exception for the last attempt, if it had one. Not the cause
    of this error, since the SDK asks again for calls that fail because of it."""

    def __init__(self, message: str, *, reason: str, record: CallRecord) -> None:
        super().__init__(message)
        self.reason = reason
        """Why, as a key of `verdict.REASONS`."""
        self.record = record
        """The same record that an outcome has: every attempt, usage, cost, labels."""

    @property
    def attempts(self) -> Sequence[AttemptRecord]:
        """Every attempt, the last one last."""
        return self.record.attempts


class GaveUp(CallError):
    """The last attempt tripped or failed, and the policy says to give up."""

    def __init__(self, message: str, *, reason: str, record: CallRecord, retry_at: datetime | None = None) -> None:
        super().__init__(message, reason=reason, record=record)
        self.retry_at = retry_at
        """When to come back (UTC), as far as the provider or the policy's waits say."""


class DeadlineExceeded(CallError):
    """A deadline of the whole call passed, in the queue, between attempts or in one."""

    def __init__(self, message: str, *, reason: str, record: CallRecord, knob: str) -> None:
        super().__init__(message, reason=reason, record=record)
        self.knob = knob
        """The policy key that set the deadline."""


class BudgetExhausted(CallError):
    """No room in a budget. The request in question was not sent.

    ```python
    try:
        await streamguard.run(source, policy=policy)
    except streamguard.BudgetExhausted as error:
        print(error.scope, error.asked, error.available, error.unit)
    ```
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        record: CallRecord,
        scope: str,
        asked: int | None,
        available: int | None,
        unit: str,
    ) -> None:
        super().__init__(message, reason=reason, record=record)
        self.scope = scope
        """The budget that has no room."""
        self.asked = asked
        """What the request could have cost at most, in `unit`."""
        self.available = available
        """What the budget had left, in `unit`."""
        self.unit = unit
        """`micro_usd` or `tokens`."""


class Interrupted(CallError):
    """A person or a signal, not the policy, ended the call."""

    def __init__(self, message: str, *, reason: str, record: CallRecord, by: str) -> None:
        super().__init__(message, reason=reason, record=record)
        self.by = by
        """Who or what interrupted, in the caller's own words."""

"""Checks of one's own: a function, plain or `async def`, over finished values of the document.

In charge of how such a check is made, and of what its answer means. `arguments` says when it is called.

    @check(needs=["/total", "/lines"], reason="house.total")
    def adds_up(total: Decimal, lines: list[Any]) -> bool:
        return total == sum(line["amount"] for line in lines)

    @check(needs=["/lines/*/sku"], reason="house.sku")
    async def known(sku: str) -> str | None:
        return None if await catalogue.has(sku) else f"there is no article {sku}"

The answer: `None` or `True` for fine, a text as the trip's message, `False` where there is no more to say, a `Trip` as
it is. What the function raises is the trip `guard.failed`, never swallowed: a check that did not run has not passed.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, cast, get_args

import msgspec

from streamguard.errors import PolicyError, Problem
from streamguard.events import Event
from streamguard.files.json_pointer import Path, pointer
from streamguard.guards.base import AttemptContext, AwaitedWatch, Mode, failed
from streamguard.guards.checks.arguments import Arguments, Call, Needs
from streamguard.guards.checks.spec import items_at
from streamguard.guards.checks.types import SchemaTypes
from streamguard.guards.checks.values import shown
from streamguard.guards.checks.watch import GUARD, FollowingWatch, placed
from streamguard.guards.custom import is_async, reason_problem
from streamguard.guards.document.finished import ANY_KEY, plain
from streamguard.guards.document.subscriptions import Followed
from streamguard.verdict import Trip, Where

CheckAnswer = Trip | bool | str | None
"""What a check's function may answer."""

Missing = Literal["skip", "reject", "call"]
"""What to do where a needed value is absent or null: do not call the function, trip, or call it with `None`."""

CheckFunction = Callable[..., CheckAnswer] | Callable[..., Awaitable[CheckAnswer]]


class CustomCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A check made of a function: see `check`."""

    function: CheckFunction
    needs: tuple[str, ...]
    reason: str
    name: str
    missing: Missing = "skip"
    mode: Mode | None = None

    def __call__(self, *values: Any) -> Any:
        """The function itself, for tests of it."""
        return self.function(*values)

    @property
    def asynchronous(self) -> bool:
        """Whether the function is awaited."""
        return is_async(self.function)

    def mistakes(self, schema: Any) -> Iterator[str]:
        """Say which needed values documents of a JSON Schema cannot have.

        :param schema: `True` for none.
        """
        types = SchemaTypes(schema)
        for number, (text, path) in enumerate(zip(self.needs, Needs.of(self.needs).paths, strict=True)):
            for wrong in items_at(types, path)[2]:
                yield f"needs[{number}] of {self.name}, {text!r}: {wrong.problem}"

    def watch(self, ctx: AttemptContext, now: float) -> CustomCheckWatch | AsyncCheckWatch:
        """The state for one attempt."""
        return AsyncCheckWatch(self) if self.asynchronous else CustomCheckWatch(self)


def check(
    *,
    needs: Sequence[str],
    reason: str,
    missing: Missing = "skip",
    mode: Mode | None = None,
    name: str | None = None,
) -> Callable[[CheckFunction], CustomCheck]:
    """Make a check of a function over finished values of the document.

    The function is called once, as soon as the last value that it needs is complete. Whole numbers are `int`, other
    numbers exact `Decimal`s, everything else is as `json` reads it.

    :param needs: JSON Pointers of the values, which are the function's arguments in this order. With `*`, which stands
        for any name or index, the function is called once for each item.
    :param reason: why an attempt was aborted, under a prefix of your own (`house.total`) or `check.`.
    :param missing: what to do where a value is absent or null: do not call the function (`skip`, the default), trip
        (`reject`), or call it with `None` (`call`).
    :param mode: `observe` records a trip and does not act on it; `None` is the policy's mode.
    :param name: for records; by default the function's own.
    :raises PolicyError: naming the argument.
    """
    _verify(needs, reason, missing, mode)

    def wrap(function: CheckFunction) -> CustomCheck:
        if not callable(function):
            raise PolicyError(f"@check needs a function, not {function!r}")
        own = name or str(getattr(function, "__name__", type(function).__name__))
        _can_be_called(function, own, len(needs))
        return CustomCheck(function=function, needs=tuple(needs), reason=reason, name=own, missing=missing, mode=mode)

    return wrap


def _verify(needs: Sequence[str], reason: str, missing: str, mode: str | None) -> None:
    problem = reason_problem(reason)
    if isinstance(needs, str) or not needs or not all(isinstance(one, str) for one in needs):
        problem = problem or f"needs must be a list of JSON Pointers such as ['/total', '/lines'], not {needs!r}"
    elif missing not in get_args(Missing):
        problem = problem or f"missing must be one of {', '.join(get_args(Missing))}, not {missing!r}"
    elif mode not in (None, *get_args(Mode)):
        problem = problem or f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}"
    else:
        try:
            Needs.of(needs)
        except ValueError as mistake:
            problem = problem or f"needs: {mistake}"
    if problem is not None:
        raise PolicyError(f"@check: {problem}")


def _can_be_called(function: CheckFunction, name: str, count: int) -> None:
    """Refuse a function that does not take as many arguments as there are needs."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin that does not say
    try:
        signature.bind(*range(count))
    except TypeError as mistake:
        takes = f"{name}{signature}"
        what = f"needs names {count} {'value' if count == 1 else 'values'}, and {takes} does not take them: {mistake}"
        raise PolicyError(f"@check: {what}") from None


class _Asked(NamedTuple):
    """A call of the function, and what brought it about."""

    values: tuple[Any, ...]
    call: Call
    document: Followed
    event: Event


class _FunctionWatch(FollowingWatch):
    """A function over finished values, on one attempt."""

    def __init__(self, spec: CustomCheck) -> None:
        super().__init__()
        self.reason = spec.reason
        self.skipped = 0
        """How often it was not called, because a value was absent or null."""
        self._spec = spec
        self._needs = Needs.of(spec.needs)
        self._arguments: dict[int, Arguments] = {}

    def places(self, schema: Any) -> tuple[Path, ...]:
        """The places of the needed values."""
        mistakes = [] if schema is None else list(self._spec.mistakes(schema.schema))
        if mistakes:
            raise PolicyError([Problem(pointer="/checks", problem=one) for one in mistakes])
        return self._needs.paths

    def whole(self, text: str) -> Any:
        """Read an accepted document as Python code expects it."""
        return plain(text)

    def due(self, event: Event) -> Iterator[_Asked | Trip]:
        """The calls that the events so far have made due; a trip for one that cannot be made."""
        for number, document, place, value in self.told():
            if number not in self._arguments:
                self._arguments[number] = Arguments(self._needs)
            for call in self._arguments[number].take(place, value):
                asked = self._asked(call, document, event)
                if asked is not None:
                    yield asked

    def _asked(self, call: Call, document: Followed, event: Event) -> _Asked | Trip | None:
        asked = _Asked((), call, document, event)
        try:
            values = tuple(None if one is None else one.fresh() for one in call.values)
        except ValueError as error:  # a number that Python does not read
            return self.raised(error, asked)
        if self._spec.missing == "call" or None not in values:
            return asked._replace(values=values)
        self.skipped += 1
        if self._spec.missing == "skip":
            return None
        absent = self._named(call)[values.index(None)]
        return self._trip(f"{self._spec.name} needs {absent}, which is absent or null", "absent", asked)

    def raised(self, error: Exception, asked: _Asked) -> Trip:
        """The trip that an exception is."""
        trip, where = failed(self._spec.name, error), self._where(asked)
        return msgspec.structs.replace(trip, message=f"{trip.message} ({placed(where)})", knob=GUARD, where=where)

    def verdict(self, asked: _Asked, answer: object) -> Trip | None:
        """What an answer means."""
        if answer is None or answer is True:
            return None
        if isinstance(answer, Trip):
            where, guard, knob = (
                answer.where or self._where(asked),
                answer.guard or self._spec.name,
                answer.knob or GUARD,
            )
            return msgspec.structs.replace(answer, where=where, guard=guard, knob=knob)
        if isinstance(answer, str) or answer is False:
            seen = self._seen(asked.call)
            return self._trip(answer or f"{self._spec.name} does not hold: {seen}", seen, asked)
        expected = "True, False, None, a message or a Trip"
        return self.raised(TypeError(f"answered {answer!r}, which is not {expected}"), asked)

    def _trip(self, message: str, observed: str, asked: _Asked) -> Trip:
        where = self._where(asked)
        return Trip(
            reason=self.reason,
            message=f"{message} ({placed(where)})",
            knob=GUARD,
            limit=self._spec.name,
            observed=observed,
            where=where,
            guard=self._spec.name,
        )

    def _where(self, asked: _Asked) -> Where:
        call = asked.call
        return self.where(call.by, pointer(call.item or self._needs.paths[0]), asked.document, asked.event)

    def _named(self, call: Call) -> list[str]:
        """The places of the values of a call."""
        return [
            pointer(call.item[at] if part == ANY_KEY else part for at, part in enumerate(path))
            for path in self._needs.paths
        ]

    def _seen(self, call: Call) -> str:
        """The values of a call. Read once more: the function may have changed what it was given."""
        values = [None if one is None else one.fresh() for one in call.values]
        exact = [Decimal(one) if type(one) is int else one for one in values]
        return ", ".join(
            f"{name or 'the document'} is {shown(one)}" for name, one in zip(self._named(call), exact, strict=True)
        )


class CustomCheckWatch(_FunctionWatch):
    """A plain function on one attempt."""

    def feed(self, event: Event, now: float) -> Trip | None:
        for asked in self.due(event):
            trip = asked if isinstance(asked, Trip) else self._ask(asked)
            if trip is not None:
                return trip
        return None

    def _ask(self, asked: _Asked) -> Trip | None:
        try:
            answer = self._spec.function(*asked.values)
        except Exception as error:  # a check that did not run has not passed
            return self.raised(error, asked)
        return self.verdict(asked, answer)


class AsyncCheckWatch(_FunctionWatch, AwaitedWatch):
    """An `async def` function on one attempt."""

    def __init__(self, spec: CustomCheck) -> None:
        super().__init__(spec)
        self._due: list[_Asked] = []

    def feed(self, event: Event, now: float) -> Trip | None:
        for asked in self.due(event):
            if isinstance(asked, Trip):
                return asked
            self._due.append(asked)
        return None

    def pending(self) -> Sequence[_Asked]:
        """The calls that wait, which from now on are the caller's to make."""
        due, self._due = self._due, []
        return due

    async def check(self, due: _Asked) -> Trip | None:
        """Call the function. Cancellation goes through; what the function raises is the trip `guard.failed`."""
        try:
            answer = await cast("Awaitable[CheckAnswer]", self._spec.function(*due.values))
        except Exception as error:  # a check that did not run has not passed
            return self.raised(error, due)
        return self.verdict(due, answer)

"""What a guard is: a frozen spec (`Guard`) that makes a small state machine for each attempt (`Watch`).

Guards do no I/O, read no clock and log nothing: `now` is an argument. A watch is fed every event of its attempt, in
order, until it trips, has enough or the attempt ends. It never sees the consumer, the socket or other watches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from streamguard.errors import PolicyError, Problem
from streamguard.events import Delta, Event
from streamguard.files.json_pointer import pointer
from streamguard.files.mistakes import Mistake, mistakes
from streamguard.guards.grounding.source import SourceTexts
from streamguard.pricing.price import Price
from streamguard.pricing.tokens import TokenScale
from streamguard.redaction import redacted
from streamguard.request import Request
from streamguard.verdict import Enough, Trip

Mode = Literal["enforce", "observe"]
"""`observe`: the guard is fed like any other, its trip is recorded once, and never acted on."""

NEVER = math.inf
"""The deadline of a watch that waits for no clock."""


class Settings(BaseModel):
    """A part of a configuration: frozen, hashable, strict about types, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, ser_json_inf_nan="strings"
    )

    def replace(self, **fields: Any) -> Self:
        """Return the same with some fields replaced, checked like a new one.

        :param fields: by their names in policy files, or by their names in Python.
        """
        names = {field.alias or name: name for name, field in type(self).model_fields.items()}
        aliases = {name: alias for alias, name in names.items()}
        kept = {aliases[name]: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**kept | {aliases.get(name, name): value for name, value in fields.items()})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Pydantic's own, but for `update`, which it would take unchecked: see `replace`."""
        return self.replace(**update) if update else super().model_copy(deep=deep)


class Spec(Settings):
    """A part of a policy.

    :raises PolicyError: every mistake at once, in the words that a policy file gets.
    """

    if not TYPE_CHECKING:  # type checkers know the fields

        def __init__(self, /, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as mistake:
                raise PolicyError(_problems(mistake, type(self), fields)) from None

        __init__.__pydantic_base_init__ = True  # so that it is not called for what stands in another section


def _problems(mistake: ValidationError, kind: type[Spec], fields: Mapping[str, Any]) -> list[Problem]:
    found = mistakes(mistake.errors(include_url=False), dict(fields), _json_schema(kind))
    return [Problem(file=kind.__name__, pointer=pointer(one.path) or None, problem=_said(one)) for one in found]


def _said(mistake: Mistake) -> str:
    return mistake.problem + ("" if mistake.offset is None else f" (character {mistake.offset + 1})")


@lru_cache(maxsize=64)
def _json_schema(kind: type[Spec]) -> dict[str, Any]:
    return kind.model_json_schema(by_alias=True, mode="validation")


class AttemptContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard may know about its attempt before the first event."""

    attempt: int = 1
    """1-based."""
    request: Request | None = None
    """The request as patched for this attempt; `None` for an opaque source."""
    sees_bytes: bool = True
    """Whether the source shows pings and raw bytes (the `alive` clock needs them)."""
    times_connection: bool = False
    """Whether the source keeps the time to connect by itself, so that the head belongs to `first_token`."""
    price: Price | None = None
    """The model's price; `None` if unknown."""
    scale: TokenScale = TokenScale()
    """How to make tokens of weighed text, for this model, as known when the attempt began."""
    input_tokens: int | None = None
    """Input tokens, estimated; `None` if unknown."""
    sources: SourceTexts | None = None
    """What values are held against; `None` for the text of `request`."""
    max_tokens_knob: str | None = None
    """The knob that lowered the request's `max_tokens`, if one did: reaching it is that knob's trip."""


@runtime_checkable
class Watch(Protocol):
    """A guard's state on one attempt. `now` is always the running backend's clock, in seconds, and never goes back."""

    deadline: float
    """When to call `expire()`; `inf` for never. May change at any call."""

    def waiting(self, now: float) -> None:
        """From now on we wait for the provider, not for the consumer."""

    def heard(self, now: float) -> None:
        """Bytes arrived, whatever they were. The wait is over."""

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        """Take the next event."""

    def expire(self, now: float) -> Trip | None:
        """The deadline has passed. `None` if after all nothing is wrong."""


class Guard(Protocol):
    """A condition on a stream: frozen, hashable, shared by all attempts and calls."""

    @property
    def name(self) -> str:
        """A short name for records, such as `timeouts`."""

    @property
    def mode(self) -> Mode | None:
        """Own mode, or `None` for the policy's."""

    def watch(self, ctx: AttemptContext, now: float) -> Watch:
        """The state for one attempt, which begins `now`."""


class BaseWatch:
    """A watch without a clock: subclasses override what they need.

    `wants` names the event types it must be fed; the panel skips it for all others. `None` means all.
    """

    wants: tuple[type, ...] | None = None
    deadline: float = NEVER
    of_values: bool = False
    """Whether its trips are about what a document says, which is whole and valid all the same: a rule with
    `accept: marked` can keep such an answer."""
    hopeless: Trip | None = None
    """Why no answer to this request can be accepted, known before it is sent; `None` if some answer can."""

    def waiting(self, now: float) -> None:
        pass

    def heard(self, now: float) -> None:
        pass

    def ahead(self, deltas: Sequence[Delta]) -> None:
        """What one read brought and `feed` will be given next. Never called for most streams, and nothing may show of
        it but the cost."""

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        raise NotImplementedError

    def expire(self, now: float) -> Trip | None:
        return None


class AwaitedWatch(BaseWatch):
    """A watch whose checks are asynchronous: the panel collects them, the engine awaits them.

    After each event the engine awaits `check` for each item of `pending()`, in order, before the event is delivered.
    """

    def pending(self) -> Sequence[Any]:
        """Return what waits for a check, and forget it: from now on it is the caller's to check."""
        raise NotImplementedError

    async def check(self, due: Any) -> Trip | Enough | None:
        """Check one of them. Cancellation goes through; what a function raises is the trip `guard.failed`."""
        raise NotImplementedError


def failed(name: str, error: Exception) -> Trip:
    """Return the trip that a guard's exception is."""
    errors = [*_single(error)]
    return Trip(
        reason="guard.failed",
        message=f"guard {name} raised {'; '.join(f'{type(one).__name__}: {redacted(str(one))}' for one in errors)}",
        observed=type(errors[0]).__name__,
        guard=name,
    )


def _single(error: Exception) -> Iterator[Exception]:
    """The exceptions of a group, whose own words say nothing."""
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from _single(one)
    else:
        yield error


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard of documents makes of an attempt: see `HoldsDocument`."""

    text: str
    """The document's own text, without fences, preamble and trailing text."""
    value: Any = None
    """The parsed value, checked if `complete`; else as much as was finished."""
    complete: bool = False
    """Whether `value` was accepted: parsed strictly in full and valid."""
    instance: Any = msgspec.UNSET
    """What the policy's type made of the accepted document; unset without a type."""

    @property
    def result(self) -> Any:
        """What a call gives its caller: the instance if there is a type, else the value."""
        return self.value if self.instance is msgspec.UNSET else self.instance


@runtime_checkable
class HoldsDocument(Protocol):
    """A watch that knows the answer's document. The first one of an attempt gives the outcome its value."""

    def document(self) -> Document:
        """The document so far."""

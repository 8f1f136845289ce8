"""Guards of one's own: a function, plain or `async def`, becomes a guard.

In charge of when such a function is called, what it is shown and what its answer means. A plain function runs inside
the panel, an asynchronous one is awaited by the engine after the panel and before delivery.

    @guard(reason="house.shouting", every=200)
    def no_shouting(view: View) -> str | None:
        return "all capitals" if view.text.isupper() else None

    @guard(reason="house.moderation", every="block")
    async def moderated(view: View) -> str | None:
        return await moderation.problem(view.new)

The answer: `None` for fine, a string as the trip's message, a `Trip` or an `Enough` as it is. What the function raises
is the trip `guard.failed`, never swallowed: a check that did not run has not passed.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal, cast, get_args

import msgspec

from streamguard.errors import PolicyError
from streamguard.events import BlockStopped, Delta, DeltaKind, Event, Stopped
from streamguard.guards.base import AttemptContext, AwaitedWatch, BaseWatch, Mode, failed
from streamguard.guards.document.so_far import NONE, HasDocuments, SoFar
from streamguard.verdict import OWN_PREFIXES, REASONS, Enough, Trip, Where

Answer = Trip | Enough | str | None
"""What a function may answer."""

Every = Literal["delta", "block"] | int
"""When a function is called: with each delta, at the end of each block, or every so many characters. Always once more
at the end of the message, or where a guard that has enough ends it, unless nothing has come since the last call."""


class View:
    """What a function of your own is shown. Not to be changed.

    ```python
    def too_long(view: streamguard.View) -> str | None:
        return "more than 100 characters" if len(view.text) > 100 else None
    ```
    """

    __slots__ = ("_text", "_values", "attempt", "event", "new", "stopped")

    def __init__(
        self,
        *,
        text: str | Sequence[str],
        new: str = "",
        event: Event = Stopped(),  # noqa: B008  frozen
        stopped: bool = False,
        attempt: AttemptContext = AttemptContext(),  # noqa: B008  frozen
        values: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = NONE,
    ) -> None:
        self._text = text
        self._values = values
        self.new = new
        """The end of `text` that was not shown before."""
        self.event = event
        """What brought this call about: a `Delta`, a `BlockStopped` or `Stopped`."""
        self.stopped = stopped
        """Whether the message is complete, so that no more text will come."""
        self.attempt = attempt
        """The attempt's number, request, price."""

    @property
    def text(self) -> str:
        """All text so far of the kinds asked for, in the order in which it came. Joined when it is asked for: a
        function that only reads `new` costs the same however long the answer is."""
        if not isinstance(self._text, str):
            self._text = "".join(self._text)
        return self._text

    @property
    def values(self) -> Mapping[str, Any]:
        """The document's finished values so far, by JSON Pointer, in the order in which they were complete.

        A string is there with its closing quote, an object or array with its bracket, a number with the character after
        it. Whole numbers are `int`, other numbers exact `Decimal`s. Empty without a `json` section, and with
        `duplicate_names: allow` until the document is accepted. Of several tool calls it is the latest one's input.

            if view.values.get("/currency") == "XXX": …

        Costs nothing until it is asked for, and from then on one more pass over the document.
        """
        if callable(self._values):
            self._values = self._values()
        return self._values

    def __repr__(self) -> str:
        return f"View(new={self.new!r}, event={self.event!r}, stopped={self.stopped!r})"


class CustomGuard(msgspec.Struct, frozen=True, kw_only=True):
    """A guard made of a function: see `guard`."""

    function: Callable[[View], Answer] | Callable[[View], Awaitable[Answer]]
    reason: str
    name: str
    every: Every = "delta"
    kinds: tuple[DeltaKind, ...] = ("text",)
    mode: Mode | None = None

    def __call__(self, view: View) -> Any:
        """The function itself, for tests of it."""
        return self.function(view)

    @property
    def asynchronous(self) -> bool:
        """Whether the function is awaited."""
        return is_async(self.function)

    def watch(self, ctx: AttemptContext, now: float) -> CustomWatch | AsyncWatch:
        return AsyncWatch(self, ctx) if self.asynchronous else CustomWatch(self, ctx)


def guard(
    *,
    reason: str,
    every: Every = "delta",
    kinds: Sequence[DeltaKind] = ("text",),
    mode: Mode | None = None,
    name: str | None = None,
) -> Callable[[Callable[[View], Answer] | Callable[[View], Awaitable[Answer]]], CustomGuard]:
    """Make a guard of a function from a `View` to an answer.

    ```python
    @streamguard.guard(reason="house.apology")
    def no_apologies(view: streamguard.View) -> str | None:
        return "it begins with an apology" if view.text.startswith("I'm sorry") else None
    ```

    :param reason: why an attempt was aborted, under a prefix of your own (`house.shouting`) or `content.`.
    :param every: `delta`, `block`, or a number of characters. A function that reads all text with each delta takes
        quadratic time: let it read `view.new`, or say a number of characters.
    :param kinds: of which output the text is: `text`, `thinking`, `tool_input`.
    :param mode: `observe` records a trip and does not act on it; `None` is the policy's mode.
    :param name: for records; by default the function's own.
    :raises PolicyError: naming the argument.
    """
    _check(reason, every, kinds, mode)

    def wrap(function: Callable[[View], Any]) -> CustomGuard:
        if not callable(function):
            raise PolicyError(f"@guard needs a function, not {function!r}")
        own = name or str(getattr(function, "__name__", type(function).__name__))
        return CustomGuard(function=function, reason=reason, name=own, every=every, kinds=tuple(kinds), mode=mode)

    return wrap


_DOTTED: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_TAKEN: Final = frozenset(reason.partition(".")[0] + "." for reason in REASONS) - frozenset(OWN_PREFIXES)


def reason_problem(reason: object) -> str | None:
    """Say what is wrong with a reason of one's own, if anything is."""
    if not isinstance(reason, str) or not _DOTTED.fullmatch(reason):
        return f"reason must be dotted lower-case words such as 'house.shouting', not {reason!r}"
    if reason.startswith(tuple(_TAKEN)):
        return f"reason {reason!r} has a prefix of this package's own; use one of yours, such as 'house.'"
    return None


def _check(reason: str, every: Every, kinds: Sequence[str], mode: str | None) -> None:
    problem = reason_problem(reason)
    if problem is not None:
        pass
    elif isinstance(every, bool) or not (every in ("delta", "block") or (isinstance(every, int) and every > 0)):
        problem = f"every must be 'delta', 'block' or a positive number of characters, not {every!r}"
    elif isinstance(kinds, str) or not kinds or not set(kinds) <= set(get_args(DeltaKind)):
        problem = f"kinds must be a tuple of {', '.join(get_args(DeltaKind))}, not {kinds!r}"
    elif mode not in (None, *get_args(Mode)):
        problem = f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}"
    if problem is not None:
        raise PolicyError(f"@guard: {problem}")


def is_async(function: Any) -> bool:
    """Whether calling a function gives something to await."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class _Views:
    """Collects the text of one attempt and says when a view is due."""

    def __init__(self, spec: CustomGuard, ctx: AttemptContext) -> None:
        self._kinds = frozenset(spec.kinds)
        self._step = spec.every if isinstance(spec.every, int) else (1 if spec.every == "delta" else 0)
        self._ctx = ctx
        self._shown: list[str] = []
        self._pieces: list[str] = []
        self._pending = 0
        self._so_far: SoFar | None = None

    def follow(self, documents: HasDocuments) -> None:
        self._so_far = SoFar(documents)

    def take(self, event: Event) -> View | None:
        if type(event) is Delta:
            if self._so_far is not None:
                self._so_far.note(event)
            if event.kind not in self._kinds or not event.text:
                return None
            self._pieces.append(event.text)
            self._pending += len(event.text)
            if self._step and self._pending >= self._step:
                return self._view(event)
        elif self._pieces and (type(event) is Stopped or (self._step == 0 and type(event) is BlockStopped)):
            return self._view(event)
        return None

    def _view(self, event: Event) -> View:
        new = "".join(self._pieces)
        self._shown.append(new)
        self._pieces.clear()
        self._pending = 0
        so_far = _Prefix(self._shown, len(self._shown))
        values = NONE if self._so_far is None else self._so_far.now()
        stopped = type(event) is Stopped
        return View(text=so_far, new=new, event=event, stopped=stopped, attempt=self._ctx, values=values)


class _Prefix(Sequence[str]):
    """The first pieces of a list that grows."""

    def __init__(self, pieces: list[str], count: int) -> None:
        self._pieces, self._count = pieces, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._pieces[: self._count][index]

    def __iter__(self) -> Iterator[str]:
        return islice(self._pieces, self._count)


class _ViewWatch(BaseWatch):
    """A function on one attempt."""

    wants = (Delta, BlockStopped, Stopped)

    def __init__(self, spec: CustomGuard, ctx: AttemptContext) -> None:
        self._spec = spec
        self._views = _Views(spec, ctx)

    def follow(self, documents: HasDocuments) -> None:
        """Let the function look up values of the documents that another watch reads, before the first event."""
        self._views.follow(documents)


class CustomWatch(_ViewWatch):
    """A plain function on one attempt."""

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        view = self._views.take(event)
        if view is None:
            return None
        try:
            answer = self._spec.function(view)
        except Exception as error:  # a check that did not run has not passed
            return failed(self._spec.name, error)
        return _verdict(self._spec, view, answer)

    def last_look(self, event: Event, now: float) -> Trip | Enough | None:
        """The answer is ended here: show what was not shown yet."""
        return self.feed(event, now)


class AsyncWatch(_ViewWatch, AwaitedWatch):
    """An `async def` function on one attempt."""

    def __init__(self, spec: CustomGuard, ctx: AttemptContext) -> None:
        super().__init__(spec, ctx)
        self._due: list[View] = []

    def feed(self, event: Event, now: float) -> None:
        view = self._views.take(event)
        if view is not None:
            self._due.append(view)

    def last_look(self, event: Event, now: float) -> None:
        """The answer is ended here: what was not shown yet is due."""
        self.feed(event, now)

    def pending(self) -> list[View]:
        """The views that wait for a check, which from now on are the caller's to check."""
        due, self._due = self._due, []
        return due

    async def check(self, view: View) -> Trip | Enough | None:
        """Ask the function. Cancellation goes through; what the function raises is the trip `guard.failed`."""
        try:
            answer = await cast("Awaitable[Answer]", self._spec.function(view))
        except Exception as error:  # a check that did not run has not passed
            return failed(self._spec.name, error)
        return _verdict(self._spec, view, answer)


def _verdict(spec: CustomGuard, view: View, answer: object) -> Trip | Enough | None:
    if answer is None or isinstance(answer, Enough):
        return answer
    if isinstance(answer, Trip):
        return answer if answer.guard else msgspec.structs.replace(answer, guard=spec.name)
    if isinstance(answer, str):
        where = Where(block=getattr(view.event, "index", None), char=len(view.text))
        return Trip(reason=spec.reason, message=answer or "the guard tripped", where=where, guard=spec.name)
    expected = "None, a message, a Trip or an Enough"
    return failed(spec.name, TypeError(f"answered {answer!r}, which is not {expected}"))

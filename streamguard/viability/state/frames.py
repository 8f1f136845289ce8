"""What is kept per open value while a document is followed: `Frame`, and per constraint on it a `Tracker`.

A tracker holds the alternatives of one constraint that are still alive on one value. The tracker is dead when none is
left. If the value has closed with one left, the constraint is met. Trackers die once and never come back, so a parent
need only look when one of its children's has died. Does not know what the alternatives say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from streamguard.viability.schema.formula import Constraint
from streamguard.viability.schema.protocols import Alternative
from streamguard.viability.state.strings import StringState, Text
from streamguard.viability.syntax.grammar import ARRAY, NUMBER, OBJECT, STRING

Reasons = tuple[tuple[Any, int], ...]
"""What killed the last alternatives: each an atom, or a constraint that no value of the kind met; and the level of the
value that it is about."""


Judged = Callable[[Any, Any], bool | None]
"""Asks the final judge whether a value satisfies a schema; `None` where it cannot say."""


class State(Protocol):
    """What one alternative has seen of one open value. `ObjectState`, `StringState` and the others are such."""

    subs: tuple[Tracker, ...]
    """The constraints beside it, on the same value."""

    @property
    def alt(self) -> Alternative:
        """The alternative."""


class Tracker:
    """One constraint on one open value."""

    __slots__ = ("constraint", "states", "why")

    def __init__(self, constraint: Constraint, states: list[Any], why: Reasons) -> None:
        self.constraint = constraint
        self.states = states
        self.why = why


def dead_part(child: Tracker | None, subs: tuple[Tracker, ...]) -> Reasons | None:
    """What killed a container's open child or one of the constraints beside it, or `None` where all are alive."""
    if child is not None and not child.states:
        return child.why
    for sub in subs:
        if not sub.states:
            return sub.why
    return None


class NumberState:
    """One alternative on one number."""

    __slots__ = ("alt", "subs", "taken")

    def __init__(self, alt: Any, taken: set[Any] | None) -> None:
        self.alt = alt
        self.taken = taken
        self.subs: tuple[Tracker, ...] = ()


class ConstantState:
    """One alternative on `true`, `false` or `null`: nothing is left to be seen."""

    __slots__ = ("alt", "subs")

    def __init__(self, alt: Any) -> None:
        self.alt = alt
        self.subs: tuple[Tracker, ...] = ()


class Frame:
    """One open value. `build`: whether its Python value is wanted by somebody."""

    text: Text | None = None
    """Of a string."""
    seen: set[str]
    """Names of an object."""
    name: str | None = None
    name_text: Text | None = None
    parts: list[str]
    """Of a number."""
    free = False
    """Whether nothing can kill the number before it has an exponent."""
    room = -1.0
    """Characters that a string may still have, where nothing but their number is asked; negative where more is."""
    unread: list[str]
    """Of such a string: what `text` has not been fed yet."""
    count = 0
    """Items that have begun."""
    distinct = False
    """Whether somebody asks for equal items."""
    canon: set[Any]
    """Closed items, canonical, if so."""
    build = False
    value: Any = None

    def __init__(self, kind: int, level: int) -> None:
        self.kind = kind
        self.level = level
        self.trackers: list[Tracker] = []
        self.by_constraint: dict[Any, Tracker] = {}
        if kind == OBJECT:
            self.seen = set()
        elif kind == ARRAY:
            self.canon = set()
        elif kind == NUMBER:
            self.parts = []

    def add(self, value: Any) -> None:
        """A value inside has closed: kept, if somebody wants the whole of this one."""
        if not self.build:
            return
        if self.value is None:
            self.value = {} if self.kind == OBJECT else []
        if self.kind == OBJECT:
            self.value[self.name] = value
        else:
            self.value.append(value)

    def read(self) -> Text | None:
        """The string's text, up to date."""
        text = self.text
        if self.room >= 0 and self.unread and text is not None:
            text.feed("".join(self.unread))
            self.unread = []
        return text

    def track(self, constraint: Constraint, taken: set[Any] | None = None) -> Tracker | None:
        """The tracker of a constraint on this value; `None` where the constraint accepts everything."""
        if not constraint.key and taken is None:
            return None
        key = constraint if taken is None else (constraint, id(taken))
        tracker = self.by_constraint.get(key)
        if tracker is None:
            states: list[Any] = []
            for alternative in constraint.alternatives(self.kind):
                alt: Any = alternative  # of the kind at hand, which mypy cannot know
                if self.kind == STRING:
                    state: Any = StringState(alt, taken or ())
                    if not state.possible():
                        continue
                elif self.kind == NUMBER:
                    state = NumberState(alt, taken)
                elif self.kind in (OBJECT, ARRAY):
                    state = alt.state(self)
                else:
                    state = ConstantState(alt)
                if alt.subs:
                    state.subs = tuple(t for t in (self.track(sub) for sub in alt.subs) if t is not None)
                    if not all(sub.states for sub in state.subs):
                        continue
                if alt.wants_value:
                    self.build = True
                states.append(state)
            tracker = Tracker(constraint, states, () if states else ((constraint, self.level),))
            self.by_constraint[key] = tracker
            self.trackers.append(tracker)
        return tracker

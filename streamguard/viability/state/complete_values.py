"""Names and values that a piece has whole, taken in one step.

A value that is accepted once it is complete had no dead beginning, so where a name or a value stands in one piece from
its first character to its last, nothing has to be followed in between. These functions do that for objects and arrays
of plain keywords. What they say no to is left untouched, and goes its usual way character by character: there the first
dead one is found. Does not know syntax.
"""

from __future__ import annotations

import math
from typing import Any

from streamguard.viability.state.frames import Frame
from streamguard.viability.state.number_text import parse
from streamguard.viability.state.strings import Text, units
from streamguard.viability.syntax.grammar import ARRAY, CONSTANTS, NUMBER, OBJECT, STRING
from streamguard.viability.syntax.values_equal import canonical


def take_name(frame: Frame, name: str) -> bool:
    """A member of that name, which has not come before, follows; whether every alternative surely has room for it."""
    key = name if name.isascii() else units(name)
    for tracker in frame.trackers:
        for state in tracker.states:
            alt = state.alt
            if not alt.simple:
                return False
            if key not in (alt.known if state.left is None else state.left):
                return False
    for tracker in frame.trackers:
        for state in tracker.states:
            state.query = state.alt.child(name)
            state.missing.pop(name, None)
            if state.left is not None:
                del state.left[key]
    frame.seen.add(name)
    frame.name = name
    return True


def name_goes_on(frame: Frame, name: Text, fragment: str) -> bool:
    """More of a name; whether in every alternative it is surely still the beginning of one that may come."""
    if name.pending or "\\" in fragment or not fragment.isascii():
        return False
    so_far = name.head + fragment
    if name.exact != len(name.head) or not so_far.isascii():
        return False
    found = []
    for tracker in frame.trackers:
        for state in tracker.states:
            if state.names is not None:
                names = [name for name in state.names if name.startswith(so_far)]
                if not names:
                    return False
                found.append((state, names))
    for state, names in found:
        state.names = names
    name.feed(fragment)
    return True


def has_room(frame: Frame) -> bool:
    """Whether every alternative of an object surely has room for another member."""
    for tracker in frame.trackers:
        for state in tracker.states:
            alt = state.alt
            if not (alt.unlimited or (alt.simple and (state.left or alt.open))):
                return False
    return True


def has_room_for_item(frame: Frame) -> bool:
    """The same for another item of an array."""
    i = frame.count
    for tracker in frame.trackers:
        for state in tracker.states:
            alt = state.alt
            if not alt.simple or alt.unique or i >= alt.hi:
                return False
            state.query = alt.child(i)
    return True


def take_member(frame: Frame, kind: int, raw: str, value: Any = ...) -> bool:
    """The value of the member whose name has come; whether every alternative accepts it. `value`: where it is known."""
    for tracker in frame.trackers:
        for state in tracker.states:
            if not state.alt.simple:
                return False
            query = state.query
            if query is not None and query.key:
                if value is ...:
                    value = _read(kind, raw)
                if not query.fits[type(value)](value):
                    return False
    if frame.build:
        frame.add(_read(kind, raw) if value is ... else value)
    return True


def take_item(frame: Frame, kind: int, raw: str, value: Any = ...) -> bool:
    """The next item of an array; whether every alternative has room for it and accepts it."""
    i = frame.count
    queries = []
    for tracker in frame.trackers:
        for state in tracker.states:
            alt = state.alt
            if not alt.simple or i >= alt.hi:
                return False
            query = alt.child(i)
            if query.key:
                if value is ...:
                    value = _read(kind, raw)
                if not query.fits[type(value)](value):
                    return False
            queries.append((state, query))
    if value is ... and (frame.build or frame.distinct):
        value = _read(kind, raw)
    if frame.distinct:
        same = canonical(value)
        if same in frame.canon:
            return False
        frame.canon.add(same)
    for state, query in queries:
        state.query = query
    frame.count += 1
    frame.add(value)
    return True


def free_characters(frame: Frame) -> float:
    """How many characters a string that begins may have with nothing to look at but their number; negative for none."""
    room = math.inf
    for tracker in frame.trackers:
        for state in tracker.states:
            alt = state.alt
            if alt.candidates is not None or alt.watches or alt.subs:
                return -1.0
            room = min(room, alt.hi)
    return room


def enter(parent: Frame, child: Frame) -> bool:
    """A value begins inside a container; whether every alternative has room for it and a use for its kind."""
    i = parent.count
    items = parent.kind == ARRAY
    for tracker in parent.trackers:
        for state in tracker.states:
            alt = state.alt
            if not alt.simple:
                return False
            if items:
                if i >= alt.hi or alt.unique:
                    return False
                state.query = alt.child(i)
            query = state.query
            made = child.track(query) if query is not None and query.key else None
            if made is not None and not made.states:
                return False
            state.child = made
    if items:
        parent.count = i + 1
    return True


def leave(frame: Frame, parent: Frame) -> bool:
    """An object or array ends inside a container; whether every alternative accepts it, and the container takes it."""
    for tracker in frame.trackers:
        for state in tracker.states:
            alt = state.alt
            if not alt.simple or alt.judges:
                return False
            if state.missing if frame.kind == OBJECT else frame.count < alt.lo:
                return False
    if parent.distinct:
        return False
    for tracker in parent.trackers:
        for state in tracker.states:
            if not state.alt.simple:
                return False
    for tracker in parent.trackers:
        for state in tracker.states:
            state.child = None
    parent.add(frame.value)
    return True


def _read(kind: int, raw: str) -> Any:
    if kind == STRING:
        return raw
    if kind == NUMBER:
        return parse(raw)
    return [] if kind == ARRAY else CONSTANTS[kind]

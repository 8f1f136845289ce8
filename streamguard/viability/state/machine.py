"""Follows one document, as the scanner tells it, through the constraints of a schema.

In charge of: one frame per open value, handing each token to what it concerns, carrying deaths upwards, and finding the
exact character where a piece of a string, name or number killed the document. Says why in a sentence. Does not know
syntax.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from streamguard.viability.explain.messages import (
    CLOSE,
    COMMA,
    ITEM,
    NAME,
    OPEN,
    WRITTEN,
    expected,
    expected_next,
    explain,
)
from streamguard.viability.schema.formula import Constraint
from streamguard.viability.state.complete_values import (
    enter,
    free_characters,
    has_room,
    has_room_for_item,
    leave,
    name_goes_on,
    take_item,
    take_member,
    take_name,
)
from streamguard.viability.state.frames import Frame, NumberState, Reasons, Tracker
from streamguard.viability.state.number_text import MAX_DIGITS_HELD as MOST_OF_A_NUMBER
from streamguard.viability.state.number_text import NumberText, parse
from streamguard.viability.state.strings import Text
from streamguard.viability.syntax.grammar import ARRAY, CONSTANTS, EXPONENT, NUMBER, OBJECT, STRING, TRUE
from streamguard.viability.syntax.protocol import Cause
from streamguard.viability.syntax.values_equal import canonical

_REASONS: Final = 64
"""Reasons from which on each is kept once."""


class Machine:
    """A `Listener` for one document."""

    __slots__ = ("_died", "_frames", "_idle", "_judge", "_log", "_plain", "_recording", "_repeats", "_root", "_skip")

    def __init__(self, root: Constraint, *, judge: Any, plain: bool, repeats: bool) -> None:
        self._judge = judge
        self._root = root
        self._plain = plain
        self._repeats = repeats
        self._frames: list[Frame] = []
        self._skip = 0  # containers open in which nothing is asked
        self._idle = False  # whether the open scalar or name concerns nobody
        self._log: list[tuple[Tracker, list[Any], Reasons]] = []
        self._recording = False  # whether deaths go into `_log`, to be undone
        self._died = False  # whether a tracker has died since the last look

    # -- tokens --------------------------------------------------------------------------------------------------------

    def value_open(self, kind: int) -> Cause | None:
        if self._skip:
            if kind <= ARRAY:
                self._skip += 1
            return None
        frames = self._frames
        child = Frame(kind, len(frames))
        if not frames:
            root = child.track(self._root)
            if root is not None and not root.states:
                return self._cause(root.why, OPEN, kind)
        else:
            parent = frames[-1]
            child.build = parent.build
            if not enter(parent, child):
                if parent.kind == ARRAY:
                    if parent.count == 0:
                        self._each(parent, lambda state: state.promise(parent))
                        if cause := self._settle(OPEN, kind):
                            return cause
                    parent.count += 1
                self._each(parent, lambda state: state.bind(parent, child), reasons=True)
                self._look(parent)
                if cause := self._settle(OPEN, kind):
                    return cause
        if kind >= TRUE:
            return self._closed(CONSTANTS[kind], kind)
        if child.trackers or child.build:
            self._idle = False
            frames.append(child)
            if kind in (STRING, NUMBER):
                self._idle = not child.build and all(s.alt.trivial for t in child.trackers for s in t.states)
                if kind == STRING:
                    child.text = Text(self._root.logic.longest)
                    child.unread = []
                    child.room = free_characters(child)
                else:
                    child.free = all(s.alt.unbounded for t in child.trackers for s in t.states)
            elif child.build:
                child.value = {} if kind == OBJECT else []
        elif kind <= ARRAY:
            self._skip = 1
        else:
            self._idle = True
            frames.append(child)
        return None

    def name_open(self) -> Cause | None:
        if self._skip:
            return None
        frame = self._frames[-1]
        self._idle = True
        for tracker in frame.trackers:
            for state in tracker.states:
                if not state.alt.unlimited:
                    self._idle = False
                    break
        if self._idle:
            for tracker in frame.trackers:
                for state in tracker.states:
                    state.names = None
            return None
        frame.name_text = Text(self._root.logic.longest)
        frame.name = None
        self._each(frame, lambda state: state.promise(frame, self._repeats))
        return self._settle(COMMA)

    def chars(self, fragment: str) -> Cause | None:
        if self._skip or self._idle:
            return None
        frame = self._frames[-1]
        if frame.kind == NUMBER:
            if frame.free and not self._plain:
                if "e" not in fragment and "E" not in fragment:
                    frame.parts.append(fragment)
                    return None
                frame.free = False
        elif frame.room >= len(fragment) and "\\" not in fragment:  # the likely case
            frame.room -= len(fragment)
            frame.unread.append(fragment)
            return None
        elif (text := frame.read()) is not None:  # nothing dies, mostly
            frame.room = -1.0
            text.feed(fragment)
            for tracker in frame.trackers:
                for state in tracker.states:
                    if state.alt.dead(text, state) is not None:
                        break
                else:
                    continue
                break
            else:
                return None
            self._log.clear()
            self._undo()
        elif frame.name_text is not None and name_goes_on(frame, frame.name_text, fragment):
            return None
        cause = self._chars(fragment)
        if cause is None:
            return None
        # Dead: which character did it? Undo, and halve.
        low, high = 1, len(fragment)  # dead with `high`
        while low < high:
            middle = (low + high) // 2
            self._undo()
            found = self._chars(fragment[:middle])
            if found is None:
                low = middle + 1
            else:
                high, cause = middle, found
        self._undo()
        if low > 1:
            self._chars(fragment[: low - 1])
        char = fragment[low - 1]
        # To blame is what dies at this very character, and not what has died before it in the same piece.
        cause = self._chars(char) or cause
        self._undo()
        byte = 0 if char < "\x80" else self._byte(char)
        return Cause(
            keyword=cause.keyword,
            schema_pointer=cause.schema_pointer,
            message=cause.message,
            expected=cause.expected,
            level=cause.level,
            at=low - 1,
            byte=byte,
        )

    def value_close(self, kind: int) -> Cause | None:
        if self._skip:
            if kind <= ARRAY:
                self._skip -= 1
                if not self._skip:
                    return self._closed(None, kind)
            return None
        frame = self._frames[-1]
        value: Any = frame.value
        if kind == STRING:
            if not self._idle:
                text = frame.read()
                assert text is not None  # made when the string began
                value = text.finish()
                self._each(frame, lambda state: state.alt.failing(value))
        elif kind == NUMBER:
            if not self._idle:
                try:
                    value = parse("".join(frame.parts))
                except ValueError:  # more digits than Python reads: nothing is known of its value
                    value = None
                else:
                    self._each(frame, lambda state: state.alt.failing(value))
        else:
            if len(self._frames) > 1 and leave(frame, self._frames[-2]):
                self._frames.pop()
                return None
            self._each(frame, lambda state: state.final(frame, self._judge))
        if cause := self._settle(CLOSE, kind):
            return cause
        self._frames.pop()
        return self._closed(value, kind)

    def name_close(self, name: str) -> Cause | None:
        if self._skip:
            return None
        frame = self._frames[-1]
        frame.seen.add(name)
        frame.name = name
        self._each(frame, lambda state: state.name_closed(frame, name))
        return self._settle(NAME)

    def comma(self, kind: int) -> Cause | None:
        if self._skip:
            return None
        frame = self._frames[-1]
        if kind == ARRAY:
            if has_room_for_item(frame):
                return None
            self._each(frame, lambda state: state.promise(frame))
        elif has_room(frame):
            return None
        else:
            self._each(frame, lambda state: state.promise(frame, self._repeats))
        return self._settle(COMMA)

    def whole_name(self, name: str) -> bool:
        return self._skip > 0 or take_name(self._frames[-1], name)

    def whole_value(self, kind: int, raw: str) -> bool:
        if self._skip:
            return True
        frame = self._frames[-1]
        return take_item(frame, kind, raw) if frame.kind == ARRAY else take_member(frame, kind, raw)

    def whole_container(self, value: Any, text: str, begin: int, end: int) -> bool:
        if self._skip:
            return True
        if self._plain and EXPONENT(text, begin, end):  # a number may have a dead beginning, though it is accepted
            return False
        frame = self._frames[-1]
        kind = OBJECT if type(value) is dict else ARRAY
        try:
            return take_item(frame, kind, "", value) if frame.kind == ARRAY else take_member(frame, kind, "", value)
        except RecursionError:  # too deep to be said at once, which comes before anything has happened
            return False

    def expected_next(self, at: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        missing, found = expected_next(self._frames, self._root, at)
        return missing, () if self._skip else found

    # -- inside --------------------------------------------------------------------------------------------------------

    def _chars(self, fragment: str) -> Cause | None:
        self._recording = True
        try:
            return self._follow(self._frames[-1], fragment)
        finally:
            self._recording = False

    def _follow(self, frame: Frame, fragment: str) -> Cause | None:
        if self._log:
            self._log.clear()
        if (text := frame.text) is not None:
            text.feed(fragment)
            self._each(frame, lambda state: state.alt.dead(text, state))
            return self._settle(WRITTEN)
        if frame.kind == OBJECT:
            name = frame.name_text
            assert name is not None  # made when the name began
            name.feed(fragment)
            self._each(frame, lambda state: state.name_dead(name))
            return self._settle(WRITTEN)
        frame.parts.append(fragment)
        so_far = "".join(frame.parts)
        if len(so_far) > MOST_OF_A_NUMBER:
            return None
        significand = so_far.lower().partition("e")[0]
        if len(significand) < len(so_far):  # what was dead before the exponent stays so, though it may underflow to 0
            before = NumberText(significand, plain=self._plain)
            self._each(frame, lambda state: _number_dead(state, before))
        number = NumberText(so_far, plain=self._plain)
        self._each(frame, lambda state: _number_dead(state, number))
        return self._settle(WRITTEN)

    def _undo(self) -> None:
        """Take back the latest `_chars()`."""
        for tracker, states, why in reversed(self._log):
            tracker.states, tracker.why = states, why
        self._log.clear()
        frame = self._frames[-1]
        if frame.kind == NUMBER:
            frame.parts.pop()
            return
        if frame.text is not None:
            frame.text = frame.text.without_last()
        elif frame.name_text is not None:
            frame.name_text = frame.name_text.without_last()
        for tracker in frame.trackers:
            for state in tracker.states:
                state.reset()

    def _byte(self, char: str) -> int:
        """The byte of a character that killed: the first after which no character with the same bytes would do."""
        encoded = char.encode("utf-8", "surrogatepass")
        for k in range(1, len(encoded)):
            if not any(self._would_live(other) for other in _siblings(encoded[:k], len(encoded))):
                return k - 1
        return len(encoded) - 1

    def _would_live(self, char: str) -> bool:
        cause = self._chars(char)
        self._undo()
        return cause is None

    def _closed(self, value: Any, kind: int) -> Cause | None:
        """A value has closed, and stands: its parent is told."""
        if not self._frames:
            return None
        parent = self._frames[-1]
        parent.add(value)
        self._each(parent, lambda state: state.child_closed(parent, value))
        if parent.distinct:
            parent.canon.add(canonical(value))
        return self._settle(ITEM, kind)

    def _each(self, frame: Frame, ask: Any, *, reasons: bool = False) -> None:
        """Drop the states of which `ask` knows what kills them."""
        for tracker in frame.trackers:
            states = tracker.states
            kept: list[Any] | None = None
            why: Reasons = ()
            for place, state in enumerate(states):
                found = ask(state)
                if found is None:
                    died = next((sub for sub in state.subs if not sub.states), None) if state.subs else None
                    if died is None:
                        if kept is not None:
                            kept.append(state)
                        continue
                    why += died.why
                else:
                    why += found if reasons else ((found, frame.level),)
                if kept is None:
                    kept = states[:place]
            if kept is not None:
                self._drop(tracker, kept, why)

    def _drop(self, tracker: Tracker, kept: list[Any], why: Reasons) -> None:
        if self._recording:
            self._log.append((tracker, tracker.states, tracker.why))
        if len(why) > _REASONS:  # the same ones, which would double at each level
            why = tuple(reversed(dict.fromkeys(reversed(why))))
        tracker.states, tracker.why = kept, why
        if not kept:
            self._died = True

    def _look(self, frame: Frame) -> bool:
        """Look at a frame after something below died; whether a tracker died of it."""
        died = False
        for tracker in frame.trackers:
            states = tracker.states
            kept: list[Any] | None = None
            why: Reasons = ()
            for place, state in enumerate(states):
                found = state.problem(frame)
                if found is not None:
                    why += found
                    if kept is None:
                        kept = states[:place]
                elif kept is not None:
                    kept.append(state)
            if kept is not None:
                self._drop(tracker, kept, why)
                died = died or not kept
        return died

    def _settle(self, event: int, kind: int = 0) -> Cause | None:
        """Carry deaths upwards from the innermost frame."""
        if not self._died:
            return None
        self._died = False
        for frame in reversed(self._frames[:-1]):
            if not self._look(frame):
                break
        main = self._frames[0].by_constraint.get(self._root)
        if main is not None and not main.states:
            return self._cause(main.why, event, kind)
        return None

    def _cause(self, why: Reasons, event: int, kind: int) -> Cause:
        blamed, level = why[-1]
        atom = blamed.why(kind) if isinstance(blamed, Constraint) else blamed
        found = expected([reason for reason, at in why if at == level], self._frames, event)
        return Cause(
            keyword=atom.keyword,
            schema_pointer=atom.pointer,
            message=explain(atom, found, self._frames[-1] if self._frames else None, event, kind),
            expected=found,
            level=level,
        )


def _number_dead(state: NumberState, number: NumberText) -> Any:
    if state.alt.trivial:
        return None
    return state.alt.dead(number, state.taken)


def _siblings(begin: bytes, size: int) -> Iterator[str]:
    """Characters of so many bytes that begin with these: all of them, or a sample of a great many."""
    left = size - len(begin)
    step = 1 if left < 3 else 61  # 64³ would be too many
    for number in range(0, 64**left, step):
        tail = bytes(0x80 | number >> 6 * k & 0x3F for k in reversed(range(left)))
        try:
            yield (begin + tail).decode("utf-8")
        except UnicodeDecodeError:
            continue

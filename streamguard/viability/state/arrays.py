"""Arrays: a conjunction of array keywords, and how far one open array has got with it.

In charge of: what is asked of each item, how many fit, how many must match `contains`, and that items differ.
"""

from __future__ import annotations

import math
from typing import Any

from streamguard.viability.schema.formula import AllOf, AnyOf, Logic, Satisfiable, Satisfier
from streamguard.viability.schema.nodes import UNKNOWN, Atom, Node, Sources, denied
from streamguard.viability.schema.normal_form import Conj
from streamguard.viability.state.frames import Frame, Judged, Reasons, Tracker, dead_part
from streamguard.viability.syntax.grammar import ARRAY, CONSTANTS
from streamguard.viability.syntax.trampoline import Steps
from streamguard.viability.syntax.values_equal import canonical


class ArrayAlt:
    """A conjunction of array keywords."""

    __slots__ = (
        "_children",
        "bad_items",
        "contains",
        "hi",
        "items",
        "judges",
        "lo",
        "logic",
        "no_unique",
        "repeats_from",
        "simple",
        "sources",
        "subs",
        "unique",
        "wants_value",
    )  # fmt: skip

    def __init__(self, logic: Logic, conj: Conj) -> None:
        self.logic = logic
        self.items: list[tuple[list[Node], Node | None, Atom]] = []
        self.bad_items: list[tuple[list[Node], Node | None, Atom]] = []  # some item violates
        self.contains: list[tuple[Node, float, float, Atom]] = []
        self.lo: float = 0
        self.hi: float = math.inf
        self.unique: Atom | None = None
        self.no_unique: Atom | None = None
        self.judges: list[tuple[Atom, bool]] = []
        self.subs: tuple[AnyOf, ...] = ()
        self.sources = Sources()
        for atom, positive in conj.ordered():
            if atom.tag == "items":
                (self.items if positive else self.bad_items).append((*atom.arg, atom))
            elif atom.tag == "size":
                lo, hi = atom.arg
                if lo > self.lo:
                    self.lo, self.sources["lo"] = lo, atom
                if hi < self.hi:
                    self.hi, self.sources["hi"] = hi, atom
            elif atom.tag == "contains":
                self.contains.append((*atom.arg, atom))
            elif atom.tag == "unique":
                if positive:
                    self.unique = atom
                else:
                    self.no_unique = atom
            elif atom.tag == "judge":
                self.judges.append((atom, positive))
            elif atom.tag == "choice":
                self.subs += (logic.choice(atom, ARRAY),)
        self.wants_value = bool(self.judges or self.unique or self.no_unique)
        self.repeats_from = max((len(first) for first, _, _ in (*self.items, *self.bad_items)), default=0)
        self._children: dict[int, AllOf] = {}

    def literals(self, i: int) -> list[tuple[Node, bool]]:
        found = []
        for first, rest, _ in self.items:
            node = first[i] if i < len(first) else rest
            if node is not None:
                found.append((node, True))
        return found

    def child(self, i: int) -> AllOf:
        """What is asked of item `i`."""
        i = min(i, self.repeats_from)
        query = self._children.get(i)
        if query is None:
            query = self._children[i] = self.logic.query(self.literals(i))
        return query

    def matching(self, i: int, node: Node, matches: bool) -> AllOf:
        """What is asked of item `i` if it is to match, or not to match, a schema."""
        return self.logic.query(self.child(i).key | {(node, matches)})

    def evidence(self, bad: tuple[list[Node], Node | None, Atom], i: int) -> AllOf | None:
        first, rest, _ = bad
        node = first[i] if i < len(first) else rest
        return None if node is None else self.matching(i, node, False)

    def possible(self, sat: Satisfiable) -> Steps[Any]:
        """Whether some array satisfies it, by what is known of other constraints. Never wrongly `False` in the end."""
        hi = yield self._reach(sat)
        lo = max(self.lo, *(least for _, least, _, _ in self.contains), 2 if self.no_unique else 0, 0)
        if lo > hi or any(least > most for _, least, most, _ in self.contains):
            return False
        for node, least, _, _ in self.contains:
            if least and not (yield self.some(sat, 0, hi, lambda i, node=node: self.matching(i, node, True))):
                return False
        for bad in self.bad_items:
            if not (yield self.some(sat, 0, hi, lambda i, bad=bad: self.evidence(bad, i))):
                return False
        for sub in self.subs:
            if not (yield sat.choice(sub)):
                return False
        return True

    def _reach(self, sat: Satisfiable) -> Steps[Any]:
        """How many items there can be."""
        for i in range(int(min(self.hi, self.repeats_from + 1))):
            if not (yield sat(self.child(i))):
                return i
        if self.unique and not self.repeats_from and self.hi > 1:
            finite = self.logic.finite(self.child(0))
            if finite is not None:
                return min(self.hi, len(finite))
        return self.hi

    def some(self, sat: Satisfiable, start: int, hi: float, ask: Any) -> Steps[bool]:
        """Whether what is asked of some item from `start` on can be met."""
        for i in range(start, int(min(hi, max(self.repeats_from, start) + 1))):
            query = ask(i)
            if query is not None and (yield sat(query)):
                return True
        return False

    def finish(self, sat: Satisfier) -> None:
        self.simple = not (self.bad_items or self.contains or self.no_unique or self.subs)
        reach = sat.answer(self._reach)
        if reach < self.hi:
            self.hi = reach
            self.sources["hi"] = self._blocking(reach, sat)
            if not self.repeats_from and self.unique and reach:
                self.sources["hi"] = self.unique

    def _blocking(self, i: float, sat: Satisfier) -> Atom:
        """What keeps item `i` from coming."""
        for first, rest, atom in self.items:
            node = first[int(i)] if i < len(first) else rest
            if node is not None and not sat(self.logic.query([(node, True)])):
                return atom
        return next((atom for _, _, atom in self.items), self.unique or UNKNOWN)

    def state(self, frame: Frame) -> ArrayState:
        if self.unique or self.no_unique:
            frame.build = frame.distinct = True
        return ArrayState(self)


class ArrayState:
    """One alternative on one open array."""

    __slots__ = ("alt", "bad_left", "child", "counts", "evidence", "query", "same", "subs", "tests")

    def __init__(self, alt: ArrayAlt) -> None:
        self.alt = alt
        self.subs: tuple[Tracker, ...] = ()
        self.counts = [0] * len(alt.contains)
        self.bad_left = list(alt.bad_items)
        self.same = False  # whether two items were equal
        self.child: Tracker | None = None
        self.query: AllOf | None = None
        self.tests: list[Tracker | None] = []
        self.evidence: list[tuple[Any, Tracker | None]] = []

    def promise(self, frame: Frame) -> Atom | None:
        """An item is to come: what makes that impossible, or `None`. `frame.count` items have begun."""
        alt = self.alt
        i = frame.count
        if i >= alt.hi:
            return alt.sources["hi"]
        sat = alt.logic.sat
        query = alt.child(i)
        room = alt.hi - i
        for (node, least, most, atom), count in zip(alt.contains, self.counts, strict=True):
            if count >= most:
                query = alt.logic.query(query.key | {(node, False)})
            elif room <= least - count:
                if room < least - count:
                    return atom
                query = alt.logic.query(query.key | {(node, True)})
            else:
                continue
            if not sat(query):
                return atom
        if query.key and not sat(query):
            return next((atom for _, _, atom in alt.items), UNKNOWN)
        if alt.unique and frame.canon:
            finite = alt.logic.finite(query)
            if finite is not None and finite <= frame.canon:
                return alt.unique
        self.query = query
        return None

    def bind(self, frame: Frame, child: Frame) -> Reasons | None:
        """The item begins."""
        alt = self.alt
        i = frame.count - 1
        query = self.query
        assert query is not None  # promise() came before
        if alt.unique:
            if child.kind in CONSTANTS:
                if canonical(CONSTANTS[child.kind]) in frame.canon:
                    return ((alt.unique, frame.level),)
                self.child = child.track(query)
            else:
                self.child = child.track(query, frame.canon)
        else:
            self.child = child.track(query) if query.key else None
        if alt.contains:
            tests: list[Any] = []
            for (node, _, _, _), _ in zip(alt.contains, self.counts, strict=True):
                tests.append(child.track(alt.logic.query([(node, True)])))
            self.tests = tests
        if self.bad_left:
            self.evidence = []
            for bad in self.bad_left:
                asked = alt.evidence(bad, i)
                if asked is not None:
                    self.evidence.append((bad, child.track(asked)))
        return None

    def problem(self, frame: Frame) -> Reasons | None:
        dead = dead_part(self.child, self.subs)
        if dead is not None:
            return dead
        if self.bad_left and frame.count:
            hopeful = [bad for bad, tracker in self.evidence if tracker is None or tracker.states]
            for bad in self.bad_left:
                if bad not in hopeful and not self._could_still(frame, bad):
                    return ((denied(bad[2]), frame.level),)
        return None

    def _could_still(self, frame: Frame, bad: Any) -> bool:
        alt = self.alt
        found: bool = alt.logic.sat.answer(
            lambda search: alt.some(search, frame.count, alt.hi, lambda i: alt.evidence(bad, i))
        )
        return found

    def child_closed(self, frame: Frame, value: Any) -> Atom | None:
        alt = self.alt
        for k, test in enumerate(self.tests):
            if test is None or test.states:
                self.counts[k] += 1
        self.tests = []
        self.child = None
        if alt.unique and canonical(value) in frame.canon:
            return alt.unique
        if alt.no_unique and canonical(value) in frame.canon:
            self.same = True
        if alt.no_unique and not self.same and frame.count >= alt.hi:
            return denied(alt.no_unique)
        for (_, least, most, atom), count in zip(alt.contains, self.counts, strict=True):
            if count > most or count + (alt.hi - frame.count) < least:
                return atom
        if self.bad_left:
            found = [bad for bad, tracker in self.evidence if tracker is None or tracker.states]
            self.bad_left = [bad for bad in self.bad_left if bad not in found]
            self.evidence = []
            for bad in self.bad_left:
                if not self._could_still(frame, bad):
                    return denied(bad[2])
        return None

    def final(self, frame: Frame, judge: Judged) -> Atom | None:
        alt = self.alt
        if frame.count < alt.lo:
            return alt.sources["lo"]
        for (_, least, _, atom), count in zip(alt.contains, self.counts, strict=True):
            if count < least:
                return atom
        if self.bad_left:
            return denied(self.bad_left[0][2])
        if alt.no_unique and not self.same:
            return denied(alt.no_unique)
        for atom, positive in alt.judges:
            if judge(atom.arg, frame.value) is (not positive):  # neither where it cannot say
                return atom
        return None

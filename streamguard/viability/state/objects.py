"""Objects: a conjunction of object keywords, and how far one open object has got with it.

In charge of: which names may still come, which must, how many fit, what a member's schemas are, and members that some
keyword needs to go wrong (`not` turns "every" into "some"). Does not know text beyond the name being written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from streamguard.viability.patterns.regexes import PatternTimeout
from streamguard.viability.schema.formula import AllOf, AnyOf, Logic, Satisfiable, Satisfier
from streamguard.viability.schema.nodes import Atom, Group, Sources, denied
from streamguard.viability.schema.normal_form import Conj
from streamguard.viability.state.frames import Frame, Judged, Reasons, Tracker, dead_part
from streamguard.viability.state.strings import StringState, Text, begins, units
from streamguard.viability.syntax.grammar import OBJECT, STRING
from streamguard.viability.syntax.trampoline import Steps

_CACHED = 4096
"""Names whose schemas are remembered per alternative."""


class ObjectAlt:
    """A conjunction of object keywords."""

    __slots__ = (
        "_children",
        "_known",
        "_violating",
        "bad_groups",
        "bad_names",
        "bans",
        "groups",
        "hi",
        "judges",
        "known",
        "lo",
        "logic",
        "missing_some",
        "names",
        "needs",
        "open",
        "required",
        "simple",
        "sources",
        "subs",
        "tracked",
        "unlimited",
        "wants_value",
    )  # fmt: skip

    def __init__(self, logic: Logic, conj: Conj) -> None:
        self.logic = logic
        self.groups: list[tuple[Group, Atom]] = []
        self.bad_groups: list[tuple[Group, Atom]] = []  # some member violates
        self.required: dict[str, Atom] = {}
        self.missing_some: list[Atom] = []  # some of the names are missing
        self.needs: list[tuple[dict[str, tuple[str, ...]], Atom]] = []
        self.lo: float = 0
        self.hi: float = math.inf
        self.bad_names: list[Atom] = []  # some name violates
        self.judges: list[tuple[Atom, bool]] = []
        self.subs: tuple[AnyOf, ...] = ()
        self.sources = Sources()
        names = []
        for atom, positive in conj.ordered():
            if atom.tag == "group":
                (self.groups if positive else self.bad_groups).append((atom.arg, atom))
            elif atom.tag == "required":
                if positive:
                    self.required.update(dict.fromkeys(atom.arg, atom))
                else:
                    self.missing_some.append(atom)
            elif atom.tag == "needs":
                if positive:
                    self.needs.append((atom.arg, atom))
            elif atom.tag == "size":
                lo, hi = atom.arg
                if lo > self.lo:
                    self.lo, self.sources["lo"] = lo, atom
                if hi < self.hi:
                    self.hi, self.sources["hi"] = hi, atom
            elif atom.tag == "names":
                if positive:
                    names.append((atom.arg, True))
                    self.sources["names"] = atom
                else:
                    self.bad_names.append(atom)
            elif atom.tag == "judge":
                self.judges.append((atom, positive))
            elif atom.tag == "choice":
                self.subs += (logic.choice(atom, OBJECT),)
        self.names: AllOf | None = logic.query(names) if names else None
        if self.names is not None and not self.names.key:
            self.names = None
        todo = list(self.required)
        while todo:  # what a required name needs is required
            name = todo.pop()
            for needs, atom in self.needs:
                for needed in needs.get(name, ()):
                    if needed not in self.required:
                        self.required[needed] = atom
                        todo.append(needed)
        self.wants_value = bool(self.judges)
        self._children: dict[str, AllOf] = {}
        self._known: list[str] | None = None
        self._violating: dict[int, tuple[bool, list[str]]] = {}
        self.known: dict[str, str] = {}  # names allowed: units → name
        self.open = True
        self.unlimited = False
        self.bans: list[tuple[Any, Atom]] = []  # patterns that no name may match
        self.tracked = False

    def names_named(self) -> list[str]:
        """Every name that some keyword knows."""
        if self._known is None:
            found = dict.fromkeys(self.required)
            for group, _ in (*self.groups, *self.bad_groups):
                found.update(dict.fromkeys(group.properties))
            for needs, _ in self.needs:
                for name, needed in needs.items():
                    found.update(dict.fromkeys((name, *needed)))
            for atom in self.missing_some:
                found.update(dict.fromkeys(atom.arg))
            finite = self.finite_names()
            if finite is not None:
                found.update(dict.fromkeys(finite))
            self._known = [name for name in found if self.names is None or holds(self.names, name)]
        return self._known

    def finite_names(self) -> list[str] | None:
        """The names that `propertyNames` allows, if it lists them."""
        if self.names is None:
            return None
        found: list[str] = []
        alternatives: Sequence[Any] = self.names.alternatives(STRING)
        for alt in alternatives:
            if alt.candidates is None:
                return None
            found += alt.candidates.values()
        return found

    def child(self, name: str) -> AllOf:
        """What is asked of the member of that name."""
        query = self._children.get(name)
        if query is None:
            literals = []
            for group, _ in self.groups:
                try:
                    literals += [(node, True) for node in group.applying(name)]
                except PatternTimeout:
                    continue
            query = self.logic.query(literals)
            if len(self._children) < _CACHED:
                self._children[name] = query
        return query

    def other(self) -> AllOf:
        """What is asked of a member that no keyword names and no pattern matches."""
        return self.logic.query((g.additional, True) for g, _ in self.groups if g.additional is not None)

    def evidence(self, group: Group, name: str) -> list[AllOf]:
        """What is asked of the member if it is to violate the group."""
        base = self.child(name).key
        try:
            return [self.logic.query(base | {(node, False)}) for node in group.applying(name)]
        except PatternTimeout:
            return []

    def may_be_open(self, sat: Satisfiable) -> Steps[bool]:
        """Whether a name that no keyword names may come, as far as one can tell."""
        if self.finite_names() is not None:
            return False
        if self.names is not None and not (yield sat.any(self.names, STRING)):
            return False
        for group, _ in self.groups:
            for _, node in self._live_patterns(group):
                if (yield sat(node)):
                    suits: bool = yield self._suits_the_closed(sat)
                    return suits
        found: bool = yield sat(self.other())
        return found

    def _suits_the_closed(self, sat: Satisfiable) -> Steps[bool]:
        """A name may match a pattern of one closed group; it must then suit every other closed one too."""
        for group, _ in self.groups:
            if group.additional is None or group.patterns:
                continue
            if not (yield sat(self.logic.query([(group.additional, True)]))):
                return False
        return True

    def _live_patterns(self, group: Group) -> list[tuple[Any, AllOf]]:
        return [(pattern, self.logic.query([(node, True)])) for pattern, node in group.patterns]

    def possible(self, sat: Satisfiable) -> Steps[bool]:
        """Whether some object satisfies it, by what is known of other constraints. Never wrongly `False` in the end."""
        if self.lo > self.hi or len(self.required) > self.hi:
            return False
        if any(all(name in self.required for name in atom.arg) for atom in self.missing_some):
            return False
        for name in self.required:
            if self.names is not None and not holds(self.names, name):
                return False
            if not (yield sat(self.child(name))):
                return False
        if self.lo > len(self.required) and not (yield self.may_be_open(sat)):
            forbidden = {atom.arg[0] for atom in self.missing_some if len(atom.arg) == 1}
            allowed = 0
            for name in self.names_named():
                if name not in forbidden and (yield sat(self.child(name))):
                    allowed += 1
            if allowed < self.lo:
                return False
        for group, _ in self.bad_groups:
            other, named = yield self.could_violate(group, sat)
            if not other and not named:
                return False
        if (self.bad_groups or self.bad_names) and self.hi < 1:
            return False
        allowed_names = self.names.key if self.names is not None else frozenset()
        for atom in self.bad_names:
            if not (yield sat.any(self.logic.query(allowed_names | {(atom.arg, False)}), STRING)):
                return False
        for sub in self.subs:
            if not (yield sat.choice(sub)):
                return False
        return True

    def could_violate(self, group: Group, sat: Satisfiable) -> Steps[Any]:
        """Which members could violate the group: whether one of a name that no keyword names, and those of names."""
        if self.names is not None and not (yield sat.any(self.names, STRING)):
            return False, []
        named = []
        for name in self.names_named():
            for query in self.evidence(group, name):
                if (yield sat(query)):
                    named.append(name)
                    break
        for _, node in group.patterns:
            if (yield sat(self.logic.query([(node, False)]))):
                return True, named
        if group.additional is not None and (yield self.may_be_open(sat)):
            other = yield sat(self.logic.query(self.other().key | {(group.additional, False)}))
            return other or any(g.patterns for g, _ in self.groups), named
        return False, named

    def could_still_violate(self, group: Group, used: set[str]) -> bool:
        """Whether a member of a name not yet used could violate the group."""
        found = self._violating.get(id(group))
        if found is None:
            found = self._violating[id(group)] = self.logic.sat.answer(lambda search: self.could_violate(group, search))
        return found[0] or any(name not in used for name in found[1])

    def finish(self, sat: Satisfier) -> None:
        """Now that it is known what can be satisfied: which names are allowed."""
        forbidden = {atom.arg[0] for atom in self.missing_some if len(atom.arg) == 1}
        self.known = {
            units(name): name for name in self.names_named() if name not in forbidden and sat(self.child(name))
        }
        self.open = sat.answer(self.may_be_open)
        self.bans = []
        for group, atom in self.groups:
            self.bans += [(p, denied(atom)) for p, query in self._live_patterns(group) if p.lasting and not sat(query)]
        closed = any(g.additional is not None and g.patterns for g, _ in self.groups)
        self.unlimited = self.open and self.names is None and not self.bans and not closed and self.hi == math.inf
        self.tracked = bool(self.bad_groups or self.bad_names)
        self.simple = (
            not (self.tracked or self.missing_some or self.needs or self.subs or self.lo)
            and self.names is None
            and self.hi == math.inf
        )
        closing = [atom for g, atom in self.groups if g.additional is not None] or [atom for _, atom in self.groups]
        if closing:
            self.sources.setdefault("names", closing[0])
            self.sources.setdefault("hi", closing[0])
        elif "hi" in self.sources:
            self.sources.setdefault("names", self.sources["hi"])

    def state(self, frame: Frame) -> ObjectState:  # noqa: ARG002  # arrays need it
        return ObjectState(self)


class ObjectState:
    """One alternative on one open object."""

    __slots__ = ("alt", "bad_left", "child", "evidence", "left", "missing", "names", "other", "query", "start", "subs")

    def __init__(self, alt: ObjectAlt) -> None:
        self.alt = alt
        self.subs: tuple[Tracker, ...] = ()
        self.missing: dict[str, Atom] = dict(alt.required) if alt.required else {}
        self.left: dict[str, str] | None = None if alt.unlimited else dict(alt.known)  # allowed and unused
        self.bad_left: list[tuple[Group, Atom]] = list(alt.bad_groups)
        self.child: Tracker | None = None
        self.query: AllOf | None = None
        self.evidence: list[tuple[tuple[Group, Atom], list[AllOf], list[Tracker | None]]] = []
        self.names: list[str] | None = None  # units of the names that the one being written may become
        self.start: list[str] | None = None
        self.other = True  # whether it may also become one that no keyword names

    def promise(self, frame: Frame, repeats: bool) -> Atom | None:
        """A member is to come: what makes that impossible, or `None`. Also prepares the names that it may have."""
        alt = self.alt
        if alt.unlimited:
            self.names = self.start = None
            return None
        room = alt.hi - len(frame.seen)
        assert self.left is not None  # unlimited objects have none
        if room <= len(self.missing):
            names = [units(name) for name in self.missing] if room > 0 else []
            self.other = False
        else:
            names = list(self.left)
            self.other = alt.open
        if repeats:
            names += [units(name) for name in frame.seen]
        self.names = self.start = names
        if names or self.other:
            return None
        return alt.sources["hi"] if room <= 0 or self.left else alt.sources["names"]

    def name_dead(self, text: Text) -> Atom | None:
        """What the beginning of a name makes impossible, or `None`."""
        if self.names is None:
            return None
        self.names = text.extends(self.names)
        if self.names:
            return None
        if not self.other:
            known = self.alt.known
            return self.alt.sources["names"].like("left", tuple(known.get(name, name) for name in self.start or ()))
        return self._other_dead(text)

    def _other_dead(self, text: Text) -> Atom | None:
        head = text.head
        alt = self.alt
        for pattern, atom in alt.bans:
            if pattern.certain(head):
                return atom
        if text.complete_head:
            for group, atom in alt.groups:
                if (
                    group.patterns
                    and group.additional is not None
                    and not any(begins(pattern, text) for pattern, _ in group.patterns)
                    and not alt.logic.sat(alt.logic.query([(group.additional, True)]))
                ):
                    return atom
        if alt.names is not None:
            alternatives: Sequence[Any] = alt.names.alternatives(STRING)
            if all(a.dead(text, StringState(a)) is not None for a in alternatives):
                return alt.sources["names"]
        return None

    def name_closed(self, frame: Frame, name: str) -> Atom | None:
        """The name stands: what that makes impossible, or `None`. `frame.seen` already has it."""
        alt = self.alt
        sat = alt.logic.sat
        for atom in alt.missing_some:
            if all(n in frame.seen or n in alt.required for n in atom.arg):
                return denied(atom)
        if alt.names is not None and not holds(alt.names, name):
            return alt.sources["names"]
        self.query = query = alt.child(name)
        if query.key and not sat(query):
            return self._group_of(name)
        self.missing.pop(name, None)
        if self.left is not None:
            self.left.pop(units(name), None)
        for needs, atom in alt.needs:
            for needed in needs.get(name, ()):
                if needed not in frame.seen and needed not in self.missing:
                    self.missing[needed] = atom
                    if reason := self._needed(frame, needed):
                        return reason
        if len(frame.seen) + len(self.missing) > alt.hi:
            return alt.sources["hi"] if not self.missing else next(iter(self.missing.values()))
        if alt.lo and not alt.open and self.left is not None and len(frame.seen) + len(self.left) < alt.lo:
            return alt.sources["lo"]
        self.evidence = []
        if alt.tracked:
            self.evidence = [(bad, alt.evidence(bad[0], name), []) for bad in self.bad_left]
        return None

    def _needed(self, frame: Frame, name: str) -> Atom | None:
        """A name that has become required: `None` if it may come."""
        alt = self.alt
        todo = [name]
        while todo:
            name = todo.pop()
            if units(name) not in alt.known and (not alt.open or not alt.logic.sat(alt.child(name))):
                return self.missing[name]
            for needs, atom in alt.needs:
                for needed in needs.get(name, ()):
                    if needed not in self.missing and needed not in frame.seen:
                        self.missing[needed] = atom
                        todo.append(needed)
        return None

    def _group_of(self, name: str) -> Atom:
        """The atom to blame for a name that cannot have a value."""
        try:
            for group, atom in self.alt.groups:
                if any(not self.alt.logic.sat(self.alt.logic.query([(n, True)])) for n in group.applying(name)):
                    return atom
        except PatternTimeout:
            pass  # only the words of the verdict depend on it
        return self.alt.sources["names"]

    def reset(self) -> None:
        """Forget what was seen of the name."""
        self.names = self.start

    def bind(self, frame: Frame, child: Frame) -> Reasons | None:  # noqa: ARG002  # arrays need it
        """The member's value begins."""
        query = self.query
        self.child = child.track(query) if query is not None and query.key else None
        for _, queries, trackers in self.evidence:
            trackers[:] = [child.track(query) for query in queries]
        return None

    def problem(self, frame: Frame) -> Reasons | None:
        """After something died: whether this did too."""
        dead = dead_part(self.child, self.subs)
        if dead is not None:
            return dead
        if self.evidence:
            for bad, _, trackers in self.evidence:
                if not any(t is None or t.states for t in trackers) and not self._could_still(frame, bad):
                    return ((denied(bad[1]), frame.level),)
        return None

    def _could_still(self, frame: Frame, bad: tuple[Group, Atom]) -> bool:
        alt = self.alt
        if len(frame.seen) >= alt.hi:
            return False
        return alt.could_still_violate(bad[0], frame.seen)

    def child_closed(self, frame: Frame, value: Any) -> Atom | None:  # noqa: ARG002  # arrays need it
        """The member's value has closed: what that makes impossible, or `None`."""
        self.child = None
        if self.evidence:
            found = [bad for bad, _, trackers in self.evidence if any(t is None or t.states for t in trackers)]
            self.bad_left = [bad for bad in self.bad_left if bad not in found]
            self.evidence = []
            for bad in self.bad_left:
                if not self._could_still(frame, bad):
                    return denied(bad[1])
        return None

    def final(self, frame: Frame, judge: Judged) -> Atom | None:
        """The object closes: what it violates, or `None`."""
        alt = self.alt
        if self.missing:
            return next(iter(self.missing.values()))
        if len(frame.seen) < alt.lo:
            return alt.sources["lo"]
        if self.bad_left:
            return denied(self.bad_left[0][1])
        for atom in alt.bad_names:
            query = alt.logic.query([(atom.arg, True)])
            if all(holds(query, name) for name in frame.seen):
                return denied(atom)
        for atom in alt.missing_some:
            if all(name in frame.seen for name in atom.arg):
                return denied(atom)
        for atom, positive in alt.judges:
            if judge(atom.arg, frame.value) is (not positive):  # neither where it cannot say
                return atom
        return None


def holds(constraint: Any, text: str) -> bool:
    """Whether a finished string meets a constraint."""
    return any(
        alt.failing(text) is None and all(holds(sub, text) for sub in alt.subs)
        for alt in constraint.alternatives(STRING)
    )

"""Words for a person: what was seen, and what could have come instead.

In charge of: turning what killed the last alternatives into a list of what they would have taken, as far as that can
be listed, and both into a sentence. Made only when a document has died. Does not decide anything.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, Final

from streamguard.viability.schema.formula import Constraint
from streamguard.viability.schema.nodes import Atom
from streamguard.viability.state.frames import Frame, Tracker
from streamguard.viability.syntax.grammar import ARRAY, CONSTANTS, KIND_NAMES, NUMBER, OBJECT, STRING, TYPES
from streamguard.viability.syntax.quote import quote

_SHOWN: Final = 6
"""Alternatives in a sentence."""
_MOST: Final = 40
"""Alternatives in all; characters of what was seen."""
_LONGEST: Final = 80
"""Characters of one alternative."""

OPEN, CLOSE, COMMA, NAME, WRITTEN, ITEM = range(6)
"""What brought a death about: a value's first character, its last, a comma, a whole name, more text of a string, name
or number, or the value of a member or item that has closed."""

_ENDS: Final = {OBJECT: 'the end of the object, "}"', ARRAY: 'the end of the array, "]"'}
_A_VALUE: Final = {OBJECT: "an object", ARRAY: "an array", STRING: "a string", NUMBER: "a number"}
_TYPES: Final = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
}


def expected(reasons: Iterable[Any], frames: list[Any], event: int) -> tuple[str, ...]:
    """What the last alternatives would have taken, each in words or as JSON."""
    found: dict[str, None] = {}
    for reason in reasons:
        if isinstance(reason, Constraint):
            taken = frames[-1].canon if frames and frames[-1].kind == ARRAY and frames[-1].distinct else ()
            items = accepted(reason, taken)
        else:
            items = _of_atom(reason, frames, event)
        found.update(dict.fromkeys(items))
    return tuple(found)[:_MOST]


def explain(atom: Atom, found: tuple[str, ...], frame: Any, event: int, kind: int) -> str:
    """Why no continuation is valid. `frame`: the innermost open value."""
    seen = _seen(frame, event, kind)
    return (
        f"{atom.keyword}: {seen}, expected {listed(found)}" if found else f"{atom.keyword}: {seen} cannot become valid"
    )


def listed(found: tuple[str, ...]) -> str:
    """Alternatives in a sentence."""
    if len(found) > _SHOWN:
        found = (*found[:_SHOWN], "…")
    if len(found) == 1:
        return found[0]
    if all(item == "…" or item[:1] in '"-0123456789' for item in found):
        return f"one of {', '.join(found)}"
    return f"{', '.join(found[:-1])} or {found[-1]}"


def _seen(frame: Any, event: int, kind: int) -> str:
    if event == OPEN or frame is None:
        return f"a value of type {TYPES[kind]}" if kind else "this"
    if frame.kind == STRING:
        text = frame.text.head if frame.text is not None else ""
        return quote(text[-_MOST:] if len(text) > _MOST else text, _MOST)
    if frame.kind == NUMBER:
        return "".join(frame.parts)[:_MOST]
    word = "member" if frame.kind == OBJECT else "item"
    if event == COMMA:
        return f"another {word}"
    if event == CLOSE:
        return f"the end of the {TYPES[frame.kind]}"
    if event == WRITTEN and frame.kind == OBJECT and frame.name_text is not None:
        return f"the name {quote(frame.name_text.head, _MOST)}"
    if event == NAME and frame.kind == OBJECT and frame.name is not None:
        return f"the name {quote(frame.name, _MOST)}"
    return f"this {word}, of type {TYPES[kind]}" if kind else f"the {TYPES[frame.kind]}"


def accepted(constraint: Constraint, taken: Container[Any]) -> Iterator[str]:
    """What it accepts: values that it lists, but for those that are taken, or kinds."""
    for kind in KIND_NAMES:
        alternatives: Sequence[Any] = constraint.alternatives(kind)
        if not alternatives:
            continue
        if kind in CONSTANTS:
            yield KIND_NAMES[kind]
        elif kind in (STRING, NUMBER) and all(alt.candidates is not None for alt in alternatives):
            for alt in alternatives:
                values = alt.candidates.values() if kind == STRING else alt.candidates.values
                yield from (quote(value, _LONGEST) for value in values if value not in taken)
        elif kind == NUMBER and all(alt.integer for alt in alternatives):
            yield "an integer"
        else:
            yield _A_VALUE[kind]


def _of_atom(atom: Atom, frames: list[Any], event: int) -> Iterator[str]:
    frame = frames[-1] if frames else None
    arg = atom.arg
    match atom.tag:
        case "denied":
            yield from _denied(arg, frame, event)
        case "type":
            yield from (_TYPES[name] for name in arg)
        case "integer" | "strict_integer":
            yield "an integer"
        case "values":
            yield from _values(arg, frames, event)
        case "length":
            yield _span(arg, "character")
        case "size":
            many = _span(arg, "member" if atom.keyword.endswith("Properties") else "item")
            yield f"{_ENDS[frame.kind]} ({many})" if event == COMMA and frame is not None else many
        case "pattern":
            yield f"a match of the pattern {quote(arg.source, _LONGEST)}"
        case "format":
            yield f"the format {arg.name}"
        case "bound":
            yield f"a number {arg[0]} {arg[1]}"
        case "range":
            yield " and ".join(f"{'a number ' * (not i)}{op} {limit}" for i, (op, limit) in enumerate(arg))
        case "left":
            yield from _left(arg, frame)
        case "multiple":
            yield f"a multiple of {arg}"
        case "required":
            seen = frame.seen if frame is not None and frame.kind == OBJECT else ()
            yield from (f"the name {quote(name, _LONGEST)}" for name in arg if name not in seen)
        case "needs":
            yield from _needed(arg, frame)
        case "group":
            yield from _names(arg, frame, event)
        case "names":
            yield from _name_of_demand(atom, frame)
        case "unique":
            yield "an item that differs from all others"
        case "contains":
            _, lo, hi = arg
            yield f"{_span((lo, hi), 'item')} that contains asks for"
        case "items":
            yield _ENDS[ARRAY] if event in (COMMA, OPEN) else "an item that is allowed here"
        case "false":
            yield "nothing: no value is allowed here"
        case _:
            yield f"what {atom.keyword} allows"


def _denied(atom: Atom, frame: Any, event: int) -> Iterator[str]:
    """What may come where a keyword must fail."""
    if event in (NAME, WRITTEN) and frame is not None and frame.kind == OBJECT:
        yield "another name"
    elif atom.tag in ("group", "items", "names", "contains", "judge", "choice", "needs", "size", "length"):
        yield f"what {atom.keyword} rejects"
    else:
        yield f"anything but {listed(tuple(_of_atom(atom, [], OPEN)))}"


def _left(names: tuple[str, ...], frame: Any) -> Iterator[str]:
    """The names that a member may have."""
    begin = _before(frame.name_text, WRITTEN) if frame is not None and frame.name_text is not None else ""
    yield from (quote(name, _LONGEST) for name in names if name.startswith(begin))


def _before(text: Any, event: int) -> str:
    """A string or name before the character that killed it."""
    head: str = text.head
    return head[:-1] if event == WRITTEN and not text.pending else head


def _values(values: Any, frames: list[Any], event: int) -> Iterator[str]:
    frame = frames[-1] if frames else None
    begin = _before(frame.text, event) if frame is not None and frame.text is not None else None
    parent = frames[-2] if len(frames) > 1 and frames[-2].kind == ARRAY and frames[-2].distinct else None
    for value in values:
        if begin is not None and not str(value).startswith(begin):
            continue
        if parent is not None and isinstance(value, (str, int, float)) and value in parent.canon:
            continue
        yield quote(value, _LONGEST)


def _names(group: Any, frame: Any, event: int) -> Iterator[str]:
    """Names that a closed object still has, or what to do with one that may have no value."""
    if frame is None or frame.kind != OBJECT:
        yield "an object that is allowed here"
        return
    begin = _before(frame.name_text, event) if event == WRITTEN and frame.name_text is not None else ""
    used = frame.seen
    names = [
        name for name, node in group.properties.items() if name not in used and name.startswith(begin) and node.kinds
    ]
    found = [quote(name, _LONGEST) for name in names]
    found += [
        f"a name that matches {quote(pattern.source, _LONGEST)}" for pattern, node in group.patterns if node.kinds
    ]
    yield from found
    if not found:
        yield "another name" if group.additional is None or group.additional.kinds else _ENDS[OBJECT]


def _name_of_demand(atom: Atom, frame: Any) -> Iterator[str]:
    used = frame.seen if frame is not None and frame.kind == OBJECT else ()
    listed_names = atom.arg.schema.get("enum") if isinstance(atom.arg.schema, dict) else None
    if not atom.arg.kinds:
        yield _ENDS[OBJECT]
    elif isinstance(listed_names, list):
        left = [quote(name, _LONGEST) for name in listed_names if isinstance(name, str) and name not in used]
        yield from left or [_ENDS[OBJECT]]
    else:
        yield "a name that propertyNames allows"


def _needed(needs: dict[str, tuple[str, ...]], frame: Any) -> Iterator[str]:
    seen = frame.seen if frame is not None and frame.kind == OBJECT else ()
    for name, needed in needs.items():
        if name in seen:
            for other in needed:
                if other not in seen:
                    yield f"the name {quote(other, _LONGEST)}, which goes with {quote(name, _LONGEST)}"


def _span(arg: Any, what: str) -> str:
    lo, hi = arg
    plural = "" if (lo if hi == float("inf") else hi) == 1 else "s"
    if lo and hi != float("inf"):
        return f"{lo:g} {what}{plural}" if lo == hi else f"{lo:g} to {hi:g} {what}{plural}"
    return f"at least {lo:g} {what}{plural}" if lo else f"at most {hi:g} {what}{plural}"


def expected_next(frames: list[Frame], root: Any, at: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """See `Listener.expected_next`."""
    if not frames:
        return [], tuple(accepted(root, ())) if at == "value" else ()
    missing: list[tuple[str, ...]] = []
    trackers = [tracker for tracker in (frames[0].by_constraint.get(root),) if tracker is not None]
    for frame in frames:
        states = [state for tracker in trackers for state in tracker.states]
        if frame.kind == OBJECT and states:
            needed = set.intersection(*(set(state.missing) for state in states))
            missing.append(tuple(name for name in states[0].missing if name in needed))
        else:
            missing.append(())
        if frame is frames[-1]:
            return missing, tuple(dict.fromkeys(_next(frame, trackers, at)))
        trackers = list({id(t): t for s in states if (t := getattr(s, "child", None)) is not None}.values())
    return missing, ()


def _next(frame: Frame, trackers: list[Tracker], at: str) -> Iterator[str]:
    states = [state for tracker in trackers for state in tracker.states]
    if not states:
        return
    if frame.text is not None:
        if all(state.alt.candidates is not None for state in states):
            for state in states:
                yield from (quote(text, 80) for text in state.left())
    elif frame.kind == OBJECT and (at == "name" or (at == "inside" and frame.name_text is not None)):
        if any(state.alt.open or state.left is None for state in states):
            return
        for state in states:
            for unit, name in state.left.items():
                if at == "name" or frame.name_text is None or frame.name_text.extends([unit]):
                    yield quote(name, 80)
    elif at == "value" and frame.kind == OBJECT:
        if all(state.query is not None and state.query.key for state in states):
            for state in states:
                yield from accepted(state.query, ())
    elif at == "value" and all(state.alt.child(frame.count).key for state in states):
        for state in states:
            yield from accepted(state.alt.child(frame.count), frame.canon if state.alt.unique else ())

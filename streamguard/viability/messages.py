"""One sentence for a person: what was seen, and what would have been right."""

from __future__ import annotations

from typing import Any, Final

from streamguard.viability.grammar import NUMBER, OBJECT, STRING, TYPES
from streamguard.viability.nodes import Atom
from streamguard.viability.pointer import quote

_MOST: Final = 40


OPEN, CLOSE, COMMA, NAME, WRITTEN, ITEM = range(6)
"""What brought a death about: a value's first character, its last, a comma, a whole name, more text of a string, name
or number, or the value of a member or item that has closed."""


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


def _span(arg: Any, what: str) -> str:
    lo, hi = arg
    if lo and hi != float("inf"):
        return f"{lo:g} to {hi:g} {what}"
    return f"at least {lo:g} {what}" if lo else f"at most {hi:g} {what}"


def _names(names: Any) -> str:
    return ", ".join(quote(name, 24) for name in list(names)[:6]) + (", …" if len(names) > 6 else "")


def _name(group: Any, frame: Any) -> str:
    if frame is not None and frame.kind == OBJECT and frame.name in group.properties:
        return "another name"
    used = frame.seen if frame is not None and frame.kind == OBJECT else ()
    names = [name for name in group.properties if name not in used]
    sources = [pattern.source for pattern, _ in group.patterns]
    if not names and not sources:
        return "no further name"
    return " or ".join(
        ([f"one of the names {_names(names)}"] if names else []) + [f"a match of {quote(s)}" for s in sources]
    )


def _rule(atom: Atom, frame: Any) -> str:
    arg = atom.arg
    if atom.tag == "required" and frame is not None and frame.kind == OBJECT:
        arg = [name for name in arg if name not in frame.seen] or arg
    match atom.tag:
        case "denied":
            return f"anything but {_rule(arg, None)}"
        case "type":
            return "the type " + " or ".join(arg)
        case "integer" | "strict_integer":
            return "an integer"
        case "values":
            return f"one of {_names(arg)}" if len(arg) != 1 else quote(arg[0], _MOST)
        case "length":
            return _span(arg, "characters")
        case "size":
            return _span(arg, "members" if atom.keyword.endswith("Properties") else "items")
        case "pattern":
            return f"a match of the pattern {quote(arg.source, 60)}"
        case "format":
            return f"the format {arg.name}"
        case "bound":
            return f"a number {arg[0]} {arg[1]}"
        case "multiple":
            return f"a multiple of {arg}"
        case "required":
            return f"the required {_names(arg)}"
        case "needs":
            return "the names that go with those present"
        case "group":
            return _name(arg, frame)
        case "names":
            return "a name that propertyNames allows"
        case "unique":
            return "an item that differs from all others"
        case "contains":
            _, lo, hi = arg
            return _span((lo, hi), "items that match contains")
        case "false":
            return "nothing: no value is allowed here"
        case _:
            return f"what {atom.keyword} allows"


def explain(atom: Atom | None, frame: Any, event: int, kind: int) -> str:
    """Why no continuation is valid. `frame`: the innermost open value."""
    if atom is None:
        return f"{_seen(frame, event, kind)} cannot become valid"
    return f"{atom.keyword}: {_seen(frame, event, kind)} where {_rule(atom, frame)} would have been right"

"""One sentence for a person: what was seen, and what would have been right."""

from __future__ import annotations

from typing import Any, Final

from streamguard.viability.grammar import NUMBER, OBJECT, STRING
from streamguard.viability.nodes import Atom
from streamguard.viability.pointer import quote

_MOST: Final = 40


def _seen(frame: Any, kind: str) -> str:
    if frame is None or (kind and frame.kind not in (STRING, NUMBER)):
        return f"a value of type {kind}" if kind else "this"
    if frame.kind == STRING and frame.text is not None:
        return quote(frame.text.head[-_MOST:] if len(frame.text.head) > _MOST else frame.text.head, _MOST)
    if frame.kind == NUMBER:
        return "".join(frame.parts)[:_MOST]
    if frame.kind == OBJECT:
        if frame.name_text is not None and frame.name is None:
            return f"the name {quote(frame.name_text.head, _MOST)}"
        if frame.name is not None:
            return f"the object with {quote(frame.name, _MOST)}"
        return "the object"
    return "the array"


def _span(arg: Any, what: str) -> str:
    lo, hi = arg
    if lo and hi != float("inf"):
        return f"{lo:g} to {hi:g} {what}"
    return f"at least {lo:g} {what}" if lo else f"at most {hi:g} {what}"


def _names(names: Any) -> str:
    return ", ".join(quote(name, 24) for name in list(names)[:6]) + (", …" if len(names) > 6 else "")


def _rule(atom: Atom) -> str:
    arg = atom.arg
    match atom.tag:
        case "type":
            return "the type " + " or ".join(arg)
        case "integer" | "strict_integer":
            return "an integer"
        case "values":
            return f"one of {_names(arg)}" if len(arg) != 1 else quote(arg[0], _MOST)
        case "length":
            return _span(arg, "characters")
        case "size":
            return _span(arg, "items" if atom.keyword.endswith("Items") else "members")
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
            return f"one of the names {_names(arg.properties)}" if arg.properties else "what the members' schemas allow"
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


def explain(atom: Atom | None, frame: Any, kind: str) -> str:
    """Why no continuation is valid."""
    if atom is None:
        return f"{_seen(frame, kind)} cannot become valid"
    return f"{atom.keyword}: after {_seen(frame, kind)}, {_rule(atom)} cannot come about any more"

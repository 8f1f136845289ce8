"""What the checks of a policy say of the beginning of a document: by reading the text anew, and by Python's own trees.

In charge of the values that a text has whole, of which of them a check waits for, and of its verdict on them. It reads
expressions with `ast` and evaluates them over plain values; nothing here is the guards'.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import regex

from streamguard.testing.oracle.causes import NEVER, RANKS, Cause, Moment
from streamguard.testing.oracle.documents import Documents
from streamguard.testing.oracle.evaluated import Absent, Unusable, evaluate
from streamguard.testing.oracle.reading import Said

Path = tuple[str, ...]
_PART = regex.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\],:]|[^\s{}\[\],:"]++', regex.DOTALL)
_NUMBER = regex.compile(r"-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][+-]?\d++)?")
_DIGITS = 4300
"""Digits of a whole number that Python reads; a policy allows fewer."""
_LITERALS = {"true": True, "false": False, "null": None}


def check_causes(policy: Any, documents: Documents, deltas: Sequence[Said], texts: Sequence[str]) -> Iterator[Cause]:
    """Tell which checks speak about a document, and when.

    :param deltas: the pieces, as far as the document goes.
    :param texts: the text after each.
    """
    if policy.checks and policy.json_document.duplicate_names == "allow":
        raise ValueError("the oracle knows checks only where no name stands twice")
    for check in policy.checks:
        if (check.mode or policy.mode) == "observe":
            continue
        rule = _Rule.of(check)

        def said(text: str, rule: _Rule = rule) -> str | None:
            return rule.verdict(complete(documents.behind_fence(text), rule.number))

        low, high = 0, len(texts)
        while low < high:  # once it speaks, it goes on to
            middle = (low + high) // 2
            low, high = (low, middle) if said(texts[middle]) is not None else (middle + 1, high)
        if low == len(texts) or (low and documents.life(texts[low - 1]) == "dead"):
            continue
        rank = RANKS.index("asked" if rule.waits else "checks")
        at = Moment(deltas[low].time, deltas[low].number, rank)
        sure = documents.life(texts[low]) != "unsure"
        yield Cause((said(texts[low]),), at, at if sure else Moment(NEVER))


def complete(text: str, number: Callable[[str], Any] = Decimal) -> list[tuple[Path, Any]]:
    """The values that the beginning of a document has whole, in the order in which they end.

    :param number: reads a number.
    """
    found: list[tuple[Path, Any]] = []
    stack: list[tuple[dict[str, Any] | list[Any], str]] = []  # open containers, each with the name at hand
    name: str | None = None

    def path() -> Path:
        return tuple(key if isinstance(one, dict) else str(len(one)) for one, key in stack)

    def end(value: Any) -> None:
        found.append((path(), value))
        if stack and isinstance(stack[-1][0], dict):
            stack[-1][0][stack[-1][1]] = value
        elif stack:
            stack[-1][0].append(value)  # type: ignore[union-attr]  # an array

    for match in _PART.finditer(text):
        part = match.group()
        if part in ("{", "["):
            stack.append(({} if part == "{" else [], ""))
            name = None
        elif part in ("}", "]"):
            if not stack:
                break
            value, _ = stack.pop()
            end(value)
        elif part == ",":
            name = None
        elif part == ":":
            if name is None or not stack:
                break
            stack[-1] = (stack[-1][0], name)
        elif part[0] == '"':
            if len(part) == 1 or part[-1] != '"':
                break
            string = _string(part)
            if string is None:
                break
            if stack and isinstance(stack[-1][0], dict) and name is None:
                name = string
            else:
                end(string)
        elif part in _LITERALS:
            end(_LITERALS[part])
        elif _NUMBER.fullmatch(part) is not None and match.end() < len(text):
            end(number(part))
        else:
            break
        if not stack:
            break  # the document is whole
    return found


def _string(part: str) -> str | None:
    try:
        return str(json.loads(part))
    except ValueError:
        return None


class _Rule(NamedTuple):
    """One check, as what it waits for and what it says."""

    reason: str
    missing: str
    needs: tuple[Path, ...]
    item: Path
    """The place of the items; empty for a check of the whole document."""
    judge: Callable[[Mapping[str, Any]], Literal["holds", "false", "absent", "failed"]]
    waits: bool = False
    first: Path = ()
    """The array whose first false item decides."""
    number: Callable[[str], Any] = Decimal
    """Reads a number."""

    @staticmethod
    def of(check: Any) -> _Rule:
        """Read a check of either kind."""
        if hasattr(check, "function"):
            return _function(check)
        return _expression(check.reason, check.missing, check.that, check.at)

    def verdict(self, values: Sequence[tuple[Path, Any]]) -> str | None:
        """The reason of its trip on a document of which these values are whole."""
        known = dict(values)
        if self.first:
            return self._first_item(values, known)
        for path in self._items(values):
            needs = [_bound(place, path) for place in self.needs]
            if not all(_settled(place, known) for place in needs):
                continue
            outcome = self.judge({"doc": known, "it": known.get(path), "index": path[-1:], "needs": needs})
            if outcome == "false" or (outcome == "absent" and self.missing == "reject"):
                return self.reason
            if outcome == "failed":
                return "guard.failed"
        return None

    def _items(self, values: Sequence[tuple[Path, Any]]) -> Iterator[Path]:
        """What it is decided of: the path of each item of which something is whole."""
        begun: dict[Path, None] = {} if self.item else {(): None}
        for path, _ in values if self.item else ():
            item = path[: len(self.item)]
            if len(item) == len(self.item) and all(w in ("*", o) for w, o in zip(self.item, item, strict=True)):
                begun[item] = None
        yield from begun

    def _first_item(self, values: Sequence[tuple[Path, Any]], known: Mapping[Path, Any]) -> str | None:
        """The first item that does not hold decides."""
        outcome: str = "holds"
        for path, item in values:
            if path[:-1] == self.first and path and outcome == "holds":
                outcome = self.judge({"it": item})
        if outcome == "false":
            return self.reason
        if not _settled(self.first, known):
            return None
        array = _at(self.first, known)
        return "guard.failed" if outcome == "failed" or not isinstance(array, list | None) else None


def _bound(place: Path, keys: Path) -> Path:
    return tuple(keys[at] if part == "*" else part for at, part in enumerate(place))


def _settled(place: Path, known: Mapping[Path, Any]) -> bool:
    """Whether a value, or something around it, is whole."""
    return any(place[:depth] in known for depth in range(len(place) + 1))


def _at(place: Path, known: Mapping[Path, Any]) -> Any:
    """A value that is settled; `None` for one that is absent."""
    depth = next(depth for depth in range(len(place) + 1) if place[:depth] in known)
    value = known[place[:depth]]
    for part in place[depth:]:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


# Expressions


@lru_cache(maxsize=256)
def _expression(reason: str, missing: str, that: str, at: str | None) -> _Rule:
    tree = ast.parse(" ".join(that.split()), mode="eval").body
    item = () if at is None else tuple(at.split("/")[1:])
    first: Path = ()
    needs = _needs(tree)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "all" and len(needs) == 1:
        argument = tree.args[0]
        if isinstance(argument, ast.GeneratorExp) and not _needs(argument.elt):
            first, name = next(iter(needs)), argument.generators[0].target
            if not isinstance(name, ast.Name) or missing != "skip":
                raise ValueError("the oracle knows plain checks of each item only")
            element, variable = argument.elt, name.id
            conditions = argument.generators[0].ifs

            def of_item(scope: Mapping[str, Any]) -> Any:
                names = {variable: scope["it"]}
                return _outcome(lambda: not all(evaluate(one, names) for one in conditions) or evaluate(element, names))

            return _Rule(reason, missing, (first,), item, of_item, first=first)

    def judge(scope: Mapping[str, Any]) -> Any:
        known = scope["doc"]
        document: dict[str, Any] = {}
        for place in needs:
            _put(document, place, _at(place, known))
        names: dict[str, Any] = {"doc": document}
        if item:
            [key] = scope["index"]
            names["it"] = scope["it"]
            names["index"] = Decimal(key) if key.isdigit() else key
            if scope["it"] is None:
                return "absent"
        return _outcome(lambda: evaluate(tree, names))

    return _Rule(reason, missing, (*needs, *([item] if item else [])), item, judge)


def _outcome(judged: Callable[[], Any]) -> Literal["holds", "false", "absent", "failed"]:
    try:
        found = judged()
    except Absent:
        return "absent"
    except Unusable:
        return "failed"
    return "failed" if not isinstance(found, bool) else "holds" if found else "false"


def _put(document: dict[str, Any], place: Path, value: Any) -> None:
    """Put a value at its place; arrays on the way to it are as good as objects with numbers for names."""
    for part in place[:-1]:
        document = document.setdefault(part, {})
        if not isinstance(document, dict):
            return
    document[place[-1]] = value


def _needs(tree: ast.AST) -> dict[Path, None]:
    """The places of the document that an expression reads, as far as they are written out."""
    found: dict[Path, None] = {}
    todo = [tree]
    while todo:
        node = todo.pop()
        parts: list[str] = []
        base = node
        while isinstance(base, ast.Attribute | ast.Subscript):
            if isinstance(base, ast.Subscript) and not isinstance(base.slice, ast.Constant):
                parts, node = [], base.value
                todo.append(base.slice)
            else:
                parts.append(base.attr if isinstance(base, ast.Attribute) else str(base.slice.value))  # type: ignore[attr-defined]
            base = base.value
        if isinstance(base, ast.Name) and base.id == "doc" and parts:
            found[tuple(reversed(parts))] = None
        elif base is not node or isinstance(node, ast.Name):
            todo += [] if isinstance(base, ast.Name) else [base]
        else:
            todo += ast.iter_child_nodes(node)
    return found


# Functions


def _function(check: Any) -> _Rule:
    needs = tuple(tuple(one.split("/")[1:]) for one in check.needs)
    starred = [place[: len(place) - place[::-1].index("*")] for place in needs if "*" in place]
    item: Path = max(starred, key=len, default=())

    def judge(scope: Mapping[str, Any]) -> Any:
        values = [_at(place, scope["doc"]) for place in scope["needs"]]
        if None in values and check.missing != "call":
            return "absent"
        try:
            answer = check.function(*values)
            if check.asynchronous:
                answer = _result(answer)
        except Exception:
            return "failed"
        if answer is None or answer is True:
            return "holds"
        return "false" if answer is False or isinstance(answer, str) else "failed"

    return _Rule(check.reason, check.missing, needs, item, judge, waits=check.asynchronous, number=_as_written)


def _as_written(number: str) -> int | Decimal:
    """A number as functions get it."""
    return int(number) if number.lstrip("-").isdigit() and len(number) <= _DIGITS else Decimal(number)


def _result(waiting: Any) -> Any:
    """What an asynchronous function that waits for nothing answers."""
    try:
        waiting.send(None)
    except StopIteration as done:
        return done.value
    raise ValueError("the oracle knows asynchronous functions only that wait for nothing")

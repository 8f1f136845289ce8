"""Which beginnings of a text can still become a good document: by regular expressions.

A schema of the small kind that scripts use has finitely many orders of members, so the texts that satisfy it are a
regular language (with recursion where no schema is given), and `regex` can say whether a text is the beginning of a
match (`partial=True`). That is slow and plain, and shares nothing with the way in which guards find out.

Two languages bracket the truth where numbers make it fuzzy: what is no beginning of the *wide* one is surely dead, what
is a beginning of the *narrow* one is surely alive.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import jsonschema
import regex

from streamguard.testing.oracle.grounded import GroundedValues

Life = Literal["alive", "unsure", "dead"]

_WS = r"[ \t\r\n]*+"
_CHAR = r'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))'
_NUMBER = r"-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][+-]?\d++)?"
_GRAMMAR = rf"""(?(DEFINE)
(?P<ws>{_WS})
(?P<str>"{_CHAR}*+")
(?P<num>{_NUMBER})
(?P<val>(?&str)|(?&num)|true|false|null|(?&obj)|(?&arr))
(?P<obj>\{{(?&ws)(?:(?&str)(?&ws):(?&ws)(?&val)(?&ws)(?:,(?&ws)(?&str)(?&ws):(?&ws)(?&val)(?&ws))*+)?\}})
(?P<arr>\[(?&ws)(?:(?&val)(?&ws)(?:,(?&ws)(?&val)(?&ws))*+)?\]))"""
_FENCE = r"(?:(?P<fence>`{3,}|~{3,})[ \t]*[\w.+\#-]*[ \t\r]*\n(?&ws))"
_KNOWN = {"type", "properties", "required", "additionalProperties", "items", "enum", "minLength", "$schema", "title"}


class Documents:
    """The documents that a `json` section accepts, in text or in a tool's input.

    :param section: of a policy.
    :param schema: the schema that holds for them, if any.
    :param framed: whether it is text, where a fence and words may stand around a document.
    :param may_end: whether the call may be ended as soon as the document is complete.
    :param request: what values may have to be held against.
    :raises ValueError: the section or the schema says something that this oracle does not know.
    """

    def __init__(
        self,
        section: Any,
        schema: Mapping[str, Any] | None,
        *,
        framed: bool,
        may_end: bool,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        if section.preamble != "reject" or section.enough_when or section.numbers != "exact":
            raise ValueError("the oracle knows no preamble: skip, no enough_when and no numbers: plain")
        self.cuts = section.trailing == "cut" and may_end
        self._schema = None if schema is None else json.dumps(schema)
        self._depth, self._digits = section.max_depth, section.max_digits
        self._unique = section.duplicate_names == "reject"
        self._expect = section.expect or ("object" if schema is None else "any")
        fence = framed and section.fence == "strip"
        trailing = framed and section.trailing in ("allow", "cut")
        self._wide = _whole(self._schema, self._expect, fence, trailing, narrow=False)
        self._narrow = _whole(self._schema, self._expect, fence, trailing, narrow=True)
        self._fenced = fence
        self._grounded = GroundedValues(section, request)

    def life(self, text: str) -> Life:
        """Whether some continuation of the text is a good document."""
        if self._beyond(self.document(text) or text) or self._wide.fullmatch(text, partial=True) is None:
            return "dead"
        stand = self._grounded.stand(_unframed(self.document(text) or text))
        if stand != "yes":
            return "dead" if stand == "no" else "unsure"
        return "alive" if self._narrow.fullmatch(text, partial=True) is not None else "unsure"

    def _beyond(self, text: str) -> bool:
        return limit_passed(text, depth=self._depth, digits=self._digits, unique=self._unique)

    def document(self, text: str) -> str | None:
        """The document in a text that holds all of one; the text may go on behind it."""
        match = self._wide.match(text) or _loose(self._fenced).match(text)
        return None if match is None else str(match.group("doc"))

    def behind_fence(self, text: str) -> str:
        """The beginning of a text from where its document begins."""
        return _unframed(text) if self._fenced else text

    def accepts(self, text: str) -> bool:
        """Whether a whole text is all right."""
        try:
            self.value(text)
        except ValueError:
            return False
        return True

    def value(self, text: str) -> Any:
        """The value of a whole text.

        :raises ValueError: it is not acceptable.
        """
        match = self._wide.fullmatch(text)
        if match is None:
            raise ValueError("not of the language")
        if self._beyond(match.group("doc")):
            raise ValueError("beyond a limit")
        value = json.loads(match.group("doc"))
        if self._schema is not None:
            judge = jsonschema.Draft202012Validator(json.loads(self._schema))
            if not judge.is_valid(value):
                raise ValueError("not of the schema")
        if self._grounded.stand(match.group("doc")) != "yes":
            raise ValueError("not of the source")
        return value


def _unframed(text: str) -> str:
    """A text without the opening fence, whose marks may not all be there yet."""
    return str(regex.sub(r"\A\s*(?:[`~]{3,}[^\n]*\n?)?", "", text))


def limit_passed(text: str, *, depth: int, digits: int, unique: bool) -> bool:
    """Whether the beginning of a document is nested deeper than `depth`, has a number of more than `digits`, or, where
    names are to be `unique`, a name twice in an object."""
    stack: list[set[str] | None] = []
    run, before = 0, ""
    for found in _TOKEN.finditer(text):
        part = found.group()
        run = run + len(part) if part.isdigit() else run if part in "-+.eE" and run else 0
        if run > digits:
            return True
        if part in ("{", "["):
            stack.append(set() if part == "{" else None)
            if len(stack) > depth:
                return True
        elif part in ("}", "]") and stack:
            stack.pop()
        elif unique and before in ("{", ",") and found.lastgroup == "string" and stack:
            names, name = stack[-1], json.loads(part)
            if names is not None and name in names:
                return True
            if names is not None:
                names.add(name)
        if not part.isspace():
            before = part
    return False


_TOKEN = regex.compile(rf'(?P<string>"{_CHAR}*+")|\d+|\s+|"(?:[^"\\]|\\.?)*$|.', regex.DOTALL)


@lru_cache(maxsize=64)
def _whole(schema: str | None, expect: str, fence: bool, trailing: bool, *, narrow: bool) -> Any:
    """The expression of whole texts: a document, and what may stand around it."""
    if schema is not None:
        document = _value(json.loads(schema), narrow)
    else:
        document = {"object": "(?&obj)", "array": "(?&arr)", "any": "(?&val)"}[expect]
    lead = f"{_FENCE}?" if fence else ""
    tail = r"(?&ws)(?:(?P=fence)[`~]*(?&ws))?" if fence else "(?&ws)"
    tail = "(?s:.*)" if trailing else tail
    if fence and not trailing:
        # Without an opening fence there is no closing one.
        tail = rf"(?(fence){tail}|(?&ws))"
    return regex.compile(rf"{_GRAMMAR}(?&ws){lead}(?P<doc>{document}){tail}", regex.VERBOSE)


@lru_cache(maxsize=2)
def _loose(fence: bool) -> Any:
    """The expression of texts that begin with any object or array, good or not."""
    lead = f"{_FENCE}?" if fence else ""
    return regex.compile(rf"{_GRAMMAR}(?&ws){lead}(?P<doc>(?&obj)|(?&arr))", regex.VERBOSE)


def _value(schema: Any, narrow: bool) -> str:
    """The expression of the values of a schema of the small kind."""
    if schema is True or schema == {}:
        return "(?&val)"
    if unknown := set(schema) - _KNOWN:
        raise ValueError(f"the oracle knows no {', '.join(sorted(unknown))} in a schema")
    if "enum" in schema:
        return f"(?:{'|'.join(_literal(value) for value in schema['enum'])})"
    match schema.get("type"):
        case "object":
            return _object(schema, narrow)
        case "array":
            item = _value(schema.get("items", True), narrow)
            return rf"\[(?&ws)(?:{item}(?&ws)(?:,(?&ws){item}(?&ws))*+)?\]"
        case "string":
            least = schema.get("minLength", 0)
            return rf'"{_CHAR}{{{least},}}"' if least else "(?&str)"
        case "integer":
            return r"-?(?:0|[1-9]\d*+)" if narrow else "(?&num)"
        case "number":
            return "(?&num)"
        case "boolean":
            return "(?:true|false)"
        case "null":
            return "null"
    raise ValueError(f"the oracle knows no type {schema.get('type')!r}")


def _object(schema: Mapping[str, Any], narrow: bool) -> str:
    properties, required = schema.get("properties", {}), set(schema.get("required", ()))
    if schema.get("additionalProperties") is not False:
        raise ValueError("the oracle knows closed objects only")
    members = {name: rf"{_text(name)}(?&ws):(?&ws){_value(inner, narrow)}" for name, inner in properties.items()}
    optional = [name for name in properties if name not in required]
    sets = itertools.chain.from_iterable(itertools.combinations(optional, n) for n in range(len(optional) + 1))
    return rf"\{{(?&ws){_orders([frozenset(required | set(more)) for more in sets], members)}\}}"


def _orders(sets: Sequence[frozenset[str]], members: Mapping[str, str]) -> str:
    """The members of any of the sets, in any order: as a tree, so that a name is read once."""
    alternatives = []
    for name, member in members.items():
        rest = [names - {name} for names in sets if name in names]
        if rest:
            more = [names for names in rest if names]
            tail = f",(?&ws){_orders(more, members)}" if more else ""
            alternatives.append(f"{member}(?&ws)(?:{tail})?" if frozenset() in rest else f"{member}(?&ws){tail}")
    if frozenset() in sets and not alternatives:
        return ""
    return f"(?:{'|'.join(alternatives)})" + ("?" if frozenset() in sets else "")


def _literal(value: Any) -> str:
    return _text(value) if isinstance(value, str) else str(regex.escape(json.dumps(value)))


def _text(text: str) -> str:
    """A string, each character as itself or escaped."""
    characters = [rf"(?:{regex.escape(char, special_only=False)}|\\u(?i:{ord(char):04x}))" for char in text]
    return f'"{"".join(characters)}"'


def is_object(text: str) -> bool:
    """Whether a text is one JSON object, whole."""

    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        return isinstance(json.loads(text, parse_constant=no_constant), dict)
    except (ValueError, RecursionError):
        return False


def is_unfinished(text: str) -> bool:
    """Whether a text is surely the beginning of an object: a parser finds nothing wrong with it but its end."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text) or error.msg.startswith("Unterminated string")
        return text.lstrip()[:1] == "{" and at_end
    except (ValueError, RecursionError):
        pass
    return False

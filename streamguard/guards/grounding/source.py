"""What values are held against: `SourceText`, and `SourceTexts`, which finds it for a call.

In charge of which text is the source, and of refusing where nobody can know: an image, a file by reference, the results
of tools that run while the answer is written. What is worked out of a text is kept for the whole call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from streamguard.guards.grounding.dates import Date, dates
from streamguard.guards.grounding.normal_form import NormalForm, NormalText
from streamguard.guards.grounding.numbers import Numbers
from streamguard.request import Request

Given = str | Mapping[str, Any] | None
"""The source in code: a text, or a mapping whose members `in: row.FIELD` names."""

_AROUND: Final = 40
"""Characters of the source that a message shows on either side."""
_STEP: Final = 2_048


_BROKEN: Final = re.compile(r"\u00ad[ \t]*\r?\n[ \t]*")
"""Where a word was broken at the end of a line, and its hyphen shows only there."""


class SourceText:
    """One text, in whatever form values are compared."""

    def __init__(self, text: str) -> None:
        self.text = _BROKEN.sub("\u00ad", text) if "\u00ad" in text else text
        self._forms: dict[NormalForm, str] = {}
        self._numbers: Numbers | None = None
        self._dates: frozenset[Date] | None = None

    def in_form(self, form: NormalForm) -> str:
        """Return the text in a form."""
        if form not in self._forms:
            self._forms[form] = form.whole(self.text)
        return self._forms[form]

    @property
    def numbers(self) -> Numbers:
        """The numbers of the text."""
        if self._numbers is None:
            self._numbers = Numbers(self.text)
        return self._numbers

    @property
    def dates(self) -> frozenset[Date]:
        """The dates of the text, those of a day also as their months."""
        if self._dates is None:
            found = dates(self.text)
            self._dates = frozenset(found | {(year, month, 0) for year, month, _ in found})
        return self._dates

    def around(self, form: NormalForm, at: int, length: int) -> str:
        """Return the part of the text that is spelled so in a form, with a little on either side."""
        begin = self._place(form, at)
        end = max(begin, self._place(form, at + length))
        first, last = max(0, begin - _AROUND), min(len(self.text), end + _AROUND)
        before = "…" if first else ""
        after = "…" if last < len(self.text) else ""
        return before + " ".join(self.text[first:last].split()) + after

    def _place(self, form: NormalForm, at: int) -> int:
        """The character of the text with which its form reaches a character."""
        normal, passed = NormalText(form), 0
        for begin in range(0, len(self.text), _STEP):
            before = normal.resumed(normal.state)
            found = len(normal.feed(self.text[begin : begin + _STEP]))
            if passed + found > at:
                for place in range(begin, begin + _STEP):
                    passed += len(before.feed(self.text[place]))
                    if passed > at:
                        return place
            passed += found
        return len(self.text)


class NoSource(Exception):
    """Raised where no text is the source; the message says why, in a sentence."""


class SourceTexts:
    """The sources of one call.

    :param given: what the caller gave as the source; `None` for nothing.
    :param request: the request as the caller made it; `None` for an opaque source.
    """

    def __init__(self, given: Given = None, request: Request | None = None) -> None:
        self._given = given
        self._request = request
        self._texts: dict[str, SourceText] = {}

    def find(self, place: str | None, between: Sequence[str] = ()) -> SourceText:
        """Return the source.

        :param place: `request`, `row.FIELD`, or `None` for what was given, else the request.
        :param between: the two marks around the source in the request.
        :raises NoSource: there is none.
        """
        text = self._given_text(place) if place != "request" else None
        if text is None:
            text = self._asked(between)
        if text not in self._texts:
            self._texts[text] = SourceText(text)
        return self._texts[text]

    def _given_text(self, place: str | None) -> str | None:
        given = self._given
        if isinstance(given, str):
            return given
        if place is None and (given is None or "text" not in given):
            return None
        if given is None:
            raise NoSource(f"{place} is a field of a job's row, and this call has none: give source_text=")
        value: Any = given
        path = "text" if place is None else place.removeprefix("row.")
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            what = "missing" if value is None else f"{_kind(value)}, no text"
            raise NoSource(f"row.{path} is {what}, so there is no source to hold values against")
        return value

    def _asked(self, between: Sequence[str]) -> str:
        request = self._request
        if request is None:
            raise NoSource("the source of this call shows no request to read it from: give source_text=")
        if between:
            return _between("\n".join(_texts(request, None)), between)
        tool = next(_server_tools(request), None)
        if tool is not None:
            raise NoSource(f"{tool} brings text of its own while the answer is written: give source_text=")
        refused: list[str] = []
        text = "\n".join(_texts(request, refused))
        if refused:
            raise NoSource(f"the request has {refused[0]}, whose text nobody here knows: give source_text=, or between")
        return text


def _between(text: str, marks: Sequence[str]) -> str:
    """What stands between two marks, every time."""
    first, last = marks
    parts = []
    at = text.find(first)
    while at >= 0:
        end = text.find(last, at + len(first))
        if end < 0:
            raise NoSource(f"the request's user messages have {first!r} without {last!r} behind it")
        parts.append(text[at + len(first) : end])
        at = text.find(first, end + len(last))
    if not parts:
        raise NoSource(f"the request's user messages do not have {first!r}")
    return "\n".join(parts)


def _texts(request: Request, refused: list[str] | None) -> Iterator[str]:
    """The text of all user messages. What has a text that is not known here is noted."""
    for message in request.body.get("messages") or ():
        if isinstance(message, Mapping) and message.get("role") == "user":
            yield from _content(message.get("content"), refused)


def _content(content: Any, refused: list[str] | None) -> Iterator[str]:
    if isinstance(content, str):
        yield content
        return
    for block in content if isinstance(content, list | tuple) else ():
        kind = block.get("type") if isinstance(block, Mapping) else None
        source = block.get("source") if kind == "document" else None
        if kind == "text" and isinstance(block.get("text"), str):
            yield block["text"]
        elif kind in ("tool_result", "search_result"):
            yield from _content(block.get("content"), refused)
        elif isinstance(source, Mapping) and source.get("type") == "text" and isinstance(source.get("data"), str):
            yield source["data"]
        elif isinstance(source, Mapping) and source.get("type") == "content":
            yield from _content(source.get("content"), refused)
        elif refused is not None:
            refused.append(_BLOCKS.get(str(kind), f"a block of type {kind!r}"))


_BLOCKS: Final = {
    "image": "an image",
    "document": "a document that is no text (a PDF, or a reference to a file)",
    "container_upload": "a file by reference",
}

_CLIENT_TOOLS: Final = ("custom", "bash_", "text_editor_", "computer_", "memory_", "tool_search_")
"""Tools by their types whose results the caller sends, in messages, or that bring no text."""


def _server_tools(request: Request) -> Iterator[str]:
    """What brings text of its own while the answer is written."""
    for tool in request.body.get("tools") or ():
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and not kind.startswith(_CLIENT_TOOLS):
            yield f"the server tool {kind}"
    if request.body.get("mcp_servers"):
        yield "an MCP server"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)

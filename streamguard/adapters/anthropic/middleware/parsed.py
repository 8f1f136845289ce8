"""`messages.parse()` behind the guard: the caller's own parser judges each answer before it is handed on.

In charge of: which type a request's caller parses into, and of calling the caller's parser inside the attempt, so that
an answer it refuses is an attempt that failed, and is asked for again. The SDK parses every text block by itself, so
where the document is only a part of the answer's text, the message is handed on with the document alone.

`messages.stream(output_format=…)` parses in the caller's own stream, after everything here: the type is not known here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import anthropic
from pydantic import ValidationError

from streamguard.errors import PolicyError
from streamguard.guards.base import Document, failed
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.document.reader import GUARD
from streamguard.models.following import failure_of
from streamguard.models.model import OutputType
from streamguard.policy.model import Policy
from streamguard.source import MessageRefused
from streamguard.verdict import Trip, Where

_PARSED_TYPE = "output_format"
"""The variable of the SDK's parser that holds the caller's type (`anthropic` 2.11)."""


class Parser:
    """The parser of one request's caller.

    :ivar result: what it made of the message that was handed on.
    """

    def __init__(self, request: anthropic.APIRequest) -> None:
        parser = request.options.post_parser
        self._parse = None if isinstance(parser, anthropic.NotGiven) else parser
        self._cast_to = request.cast_to
        self._tools = isinstance(request.json, Mapping) and bool(request.json.get("tools"))
        self.result: Any = None

    @property
    def wanted(self) -> bool:
        """Whether the caller parses at all."""
        return self._parse is not None

    def policy(self, policy: Policy) -> Policy:
        """Return the policy for the request: its document must be the caller's type, unless the policy itself says what
        the document is. Where the type cannot be found, the policy as it is: the parser judges in any case."""
        section = policy.json_document
        kind = self._type()
        if kind is None or (section is not None and (section.where != "text" or section.enough_when)):
            return policy
        if section is None:
            if self._tools:  # an answer may be a tool call, and no document
                return policy
            section = JsonDocument()
        if section.schema_ not in (None, "request") or section.schema_file is not None:
            return policy
        try:
            return policy.replace(json=section.replace(schema=kind))
        except PolicyError:  # such as a type with a depth that Pydantic does not read
            return policy

    def _type(self) -> OutputType | None:
        if self._parse is None:
            return None
        try:
            kind = inspect.getclosurevars(self._parse).nonlocals.get(_PARSED_TYPE)
        except (TypeError, ValueError):
            return None
        if kind is None or isinstance(kind, anthropic.NotGiven | anthropic.Omit | Mapping):
            return None
        output = OutputType(kind)
        try:
            output.plan()
        except Exception:  # a type of another kind than we know: the parser itself judges
            return None
        return output

    def judge(self, message: Any, document: Document | None) -> Any:
        """Have the caller's parser read the message.

        :returns: the message, with the document alone as its text.
        :raises MessageRefused: the parser refuses it.
        """
        if self._parse is None or message is None:
            return message
        message = _with_document(message, document)
        try:
            self.result = self._parse(self._cast_to.construct(**message))
        except ValidationError as error:
            raise MessageRefused(_refused(error, document)) from None
        except Exception as error:  # whatever a validator of the caller's raises
            raise MessageRefused(failed(GUARD, error)) from None
        return message

    def hand_on(self, options: Any) -> Any:
        """Return the request's options with a parser that gives what was judged, and judges nothing again."""
        if self._parse is None:
            return options
        result, options = self.result, options.model_copy()
        options.post_parser = lambda _: result
        return options


def _with_document(message: Mapping[str, Any], document: Document | None) -> dict[str, Any]:
    content = message.get("content")
    if document is None or not document.complete or not isinstance(content, list):
        return dict(message)
    texts = [block for block in content if isinstance(block, Mapping) and block.get("type") == "text"]
    if not texts or [block.get("text") for block in texts] == [document.text]:
        return dict(message)
    kept, done = [], False
    for block in content:
        if not isinstance(block, Mapping) or block.get("type") != "text":
            kept.append(block)
        elif not done:
            kept.append({**block, "text": document.text})
            done = True
    return {**message, "content": kept}


def _refused(error: ValidationError, document: Document | None) -> Trip:
    failure = failure_of(error, document.text if document is not None else "")
    value = f", in {failure.pointer}" if failure.pointer else ""
    return Trip(
        reason="json.model",
        message=f"{failure.message} (in the finished answer, by the caller's own parser{value})",
        where=Where(offset="eof", pointer=failure.pointer, keyword=failure.keyword),
        knob="json.schema",
        guard=GUARD,
    )

"""The request of a call: its body as sent, and the facts that guards and rules read from it.

A `Request` is frozen. A retry's request is `original.patched(patch)`: the original with a rule's patch on top, never
the previous attempt's request, so patches do not compound.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import msgspec

REMOVE = None
"""The value that removes a field in a patch."""

EXTRA_BODY = "extra_body"
"""The SDK's argument for body fields it does not know. It is no field itself: a `Request` is the body as sent."""


INPUT = ("system", "messages", "tools")
"""The fields that the model reads."""


class Request:
    """A Messages API request body, with the facts that guards read from it.

    :param body: the JSON body; copied, and not to be changed afterwards.
    :param betas: beta features that go with it in a header; each entry one name, or several between commas.
    :param base_url: the endpoint it goes to; `None` if that is not known.
    """

    def __init__(self, body: Mapping[str, Any], *, betas: Sequence[str] = (), base_url: str | None = None) -> None:
        self.body: Mapping[str, Any] = copy.deepcopy(dict(body))
        self.betas = tuple(betas)
        self.base_url = base_url
        self.known: dict[str, Any] = {}
        """What was worked out of `system`, `messages` and `tools`, by name: a long input is gone through once."""

    @classmethod
    def owning(cls, body: Mapping[str, Any], known: dict[str, Any] | None = None) -> Request:
        """A request of a body that nobody else holds, or that nobody changes: it is not copied.

        :param known: of a request with the same `system`, `messages` and `tools`.
        """
        request = cls.__new__(cls)
        request.body, request.known = body, {} if known is None else known
        request.betas, request.base_url = (), None
        return request

    def __repr__(self) -> str:
        return f"Request(model={self.model!r}, max_tokens={self.max_tokens!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.body == other.body

    __hash__ = None  # type: ignore[assignment]

    @property
    def model(self) -> str | None:
        """The model asked for."""
        return cast("str | None", self.body.get("model"))

    @property
    def max_tokens(self) -> int | None:
        """The provider's own hard limit on output tokens."""
        return cast("int | None", self.body.get("max_tokens"))

    @cached_property
    def tools(self) -> dict[str, Mapping[str, Any]]:
        """The caller's own tools: name → JSON Schema of the input."""
        return {
            tool["name"]: tool["input_schema"]
            for tool in self.body.get("tools") or ()
            if isinstance(tool, Mapping) and isinstance(tool.get("input_schema"), Mapping) and "name" in tool
        }

    @cached_property
    def output_schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema of the structured output format, if the request has one."""
        config = self.body.get("output_config")
        output_format = (config or {}).get("format") if isinstance(config, Mapping | None) else None
        output_format = output_format or self.body.get("output_format")
        schema = output_format.get("schema") if isinstance(output_format, Mapping) else None
        return schema if isinstance(schema, Mapping) else None

    @cached_property
    def prefill(self) -> str:
        """The text the request puts in the assistant's mouth: the answer goes on from there. Empty for none."""
        messages = self.body.get("messages")
        last = messages[-1] if isinstance(messages, list | tuple) and messages else None
        if not isinstance(last, Mapping) or last.get("role") != "assistant":
            return ""
        content = last.get("content")
        if isinstance(content, str):
            return content
        return "".join(
            block.get("text", "")
            for block in content or ()
            if isinstance(block, Mapping) and block.get("type") == "text"
        )

    @property
    def thinking(self) -> bool:
        """Whether the request turns thinking on; hidden thinking makes visible text no bound on output tokens."""
        thinking = self.body.get("thinking")
        return isinstance(thinking, Mapping) and thinking.get("type") not in (None, "disabled")

    @property
    def input_text(self) -> str:
        """Everything the model reads as text, as JSON: `system`, `messages` and `tools`. Base64 data counts too."""
        parts = [encoded(self.body[key]) for key in INPUT if key in self.body]
        return b"".join(parts).decode()

    @property
    def input_bytes(self) -> int:
        """UTF-8 bytes of `input_text`."""
        if "input_bytes" not in self.known:
            self.known["input_bytes"] = sum(len(encoded(self.body[key])) for key in INPUT if key in self.body)
        found: int = self.known["input_bytes"]
        return found

    def patched(self, patch: Mapping[str, Any]) -> Request:
        """This request with `patch` on top.

        A mapping goes into a mapping key by key; any other value replaces; `None` removes the field;
        `{"multiply": x, "max": y}` multiplies a number that is there, up to `y`. What stands under `extra_body` goes
        into the body itself and wins, as the SDK's argument of that name does.

        :raises ValueError: `multiply` on a field that is missing or is no number; an `extra_body` that is no mapping.
        """
        named = {key: value for key, value in patch.items() if key != EXTRA_BODY}
        body = _merged(self.body, named, "")
        extra = patch.get(EXTRA_BODY)
        if extra is None:
            return self._with(body)
        if not isinstance(extra, Mapping):
            raise ValueError(f"patch /{EXTRA_BODY}: needs a mapping of body fields, not {extra!r}")  # noqa: TRY004
        return self._with(_merged(body, extra, f"/{EXTRA_BODY}"))

    def _with(self, body: Mapping[str, Any]) -> Request:
        """The request of another body; what both have in common is not copied, since neither changes."""
        same = all(body.get(key) is self.body.get(key) for key in INPUT)
        request = Request.owning(body, self.known if same else None)
        request.betas, request.base_url = self.betas, self.base_url
        return request

    def with_body(self, body: Mapping[str, Any]) -> Request:
        """Return the request of another body, with the same betas and to the same endpoint."""
        return self._with(copy.deepcopy(dict(body)))

    def with_note(self, text: str) -> Request | None:
        """Return the request with a text block at the very end of the last user message; `None` if it has none.

        What was there before is the same, so that what a provider has cached of it stays of use.
        """
        messages = self.body.get("messages")
        turns = list(messages) if isinstance(messages, list | tuple) else []
        users = [at for at, turn in enumerate(turns) if isinstance(turn, Mapping) and turn.get("role") == "user"]
        content = turns[users[-1]].get("content") if users else None
        if isinstance(content, str):
            content = [{"type": "text", "text": content}] if content else []
        if not isinstance(content, list | tuple):
            return None
        turns[users[-1]] = {**turns[users[-1]], "content": [*content, {"type": "text", "text": text}]}
        return self._with({**self.body, "messages": turns})

    def to(self, base_url: str | None) -> Request:
        """Return the same request to another endpoint; itself, if that is `None`."""
        if base_url is None:
            return self
        request = self._with(self.body)
        request.base_url = base_url
        return request


def encoded(value: Any) -> bytes:
    """JSON of a part of a request, compact. Half an emoji that somebody cut is written as it can be: escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _merged(base: Mapping[str, Any], patch: Mapping[str, Any], at: str) -> dict[str, Any]:
    merged = dict(base)
    for key, value in patch.items():
        if value is REMOVE:
            merged.pop(key, None)
        elif is_scaling(value):
            old = merged.get(key)
            if not isinstance(old, int | float) or isinstance(old, bool):
                raise ValueError(f"patch {at}/{key}: multiply needs a number in the request, which has {old!r}")
            scaled = type(old)(old * value["multiply"])
            # A ceiling never lowers what the caller asked for.
            merged[key] = scaled if value.get("max") is None else max(old, min(scaled, value["max"]))
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], value, f"{at}/{key}")
        else:
            merged[key] = value
    return merged


def is_scaling(value: object) -> bool:
    """Whether a patch value is `{multiply: …}` or `{multiply: …, max: …}`."""
    return isinstance(value, Mapping) and "multiply" in value and set(value) <= {"multiply", "max"}

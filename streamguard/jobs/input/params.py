"""A row's request: which fields it may have, and what must be there before it can be sent.

In charge of mistakes that would fail every row alike (no model, `stream`) or that would do what the input's author
must not (arguments of the SDK, such as extra headers). What the fields mean is the provider's to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from streamguard.files.suggest import did_you_mean

KNOWN = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "temperature", "top_p", "top_k"),
        *("stop_sequences", "thinking", "metadata", "service_tier", "output_config", "output_format", "container"),
        *("context_management", "mcp_servers", "inference_geo", "cache_control", "speed", "betas"),
    }
)
"""Fields of a Messages API request (docs.claude.com, API reference, 2026-11)."""

SDK_ONLY = frozenset(
    {
        *("extra_headers", "extra_query", "extra_body", "timeout", "user_profile_id", "workspace_id"),
        *("client", "http_client", "beta", "max_event_bytes"),
    }
)
"""Arguments of the client, which are no part of a request. Input must not choose them."""


class Mistake(msgspec.Struct, frozen=True):
    """Something wrong with a request."""

    pointer: str
    problem: str


def mistakes(params: Mapping[str, Any]) -> Iterator[Mistake]:
    """Everything wrong with a request that can be seen without asking."""
    model = params.get("model")
    if model is None:
        yield Mistake("/model", "no model: name it here, or for all rows with --model")
    elif not isinstance(model, str) or not model:
        yield Mistake("/model", f"must be a model's name, got {model!r}")
    limit = params.get("max_tokens")
    if limit is None:
        yield Mistake("/max_tokens", "no max_tokens: give it here, or for all rows with --max-tokens")
    elif not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        yield Mistake("/max_tokens", f"must be a whole number of tokens from 1, got {limit!r}")
    yield from _messages(params.get("messages"))
    if "stream" in params:
        yield Mistake("/stream", "must be left out: every request is sent as a stream")
    for name in sorted(SDK_ONLY & set(params)):
        yield Mistake(f"/{name}", "is an argument of the SDK, no part of a request")


def _messages(messages: Any) -> Iterator[Mistake]:
    if not isinstance(messages, list) or not messages:
        yield Mistake(
            "/messages", "needs at least one message" if messages in (None, []) else "must be a list of messages"
        )
        return
    for index, message in enumerate(messages):
        at = f"/messages/{index}"
        if not isinstance(message, dict):
            yield Mistake(at, "must be an object with role and content")
        elif not isinstance(message.get("role"), str):
            yield Mistake(at, "has no role")
        elif not isinstance(message.get("content"), str | list):
            yield Mistake(at, "has no content (a text, or a list of blocks)")


def unknown(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that no request has, each with a sentence."""
    for name in names:
        if name not in KNOWN:
            yield name, "unknown" + did_you_mean(name, KNOWN)


class RenderError(Exception):
    """A template that cannot be rendered for a row."""

    def __init__(self, file: str, line: int | None, problem: str) -> None:
        self.place = file if line is None else f"{file}:{line}"
        self.problem = problem
        super().__init__(f"{self.place}: {problem}")

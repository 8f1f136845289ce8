"""`usage` of the Messages API → neutral `Usage`.

In charge of which counts are believed. A count that cannot be one (negative, beyond every context window, a word) is
unknown, and never fatal: no answer dies of a number. Numbers that other servers send as `31.0` or `"31"` are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamguard.events import Iteration, Usage

MOST_TOKENS: Final = 1_000_000_000
"""The largest count that is believed: a thousand times the largest context window."""

_LONGEST: Final = 40
"""Characters of a number written as text that are looked at."""

_COUNTS: Final = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}
_INVOCATION: Final = {
    "input_tokens": "inputTokenCount",
    "output_tokens": "outputTokenCount",
    "cache_read_tokens": "cacheReadInputTokenCount",
    "cache_write_tokens": "cacheWriteInputTokenCount",
}
"""Our counts → those of Bedrock's `amazon-bedrock-invocationMetrics`."""

COUNTS: Final = tuple(_COUNTS.values())
"""The provider's names of the counts of tokens."""

_WORDS: Final = ("service_tier", "inference_geo", "speed")


def count(value: object) -> int | None:
    """Return a count of tokens, or `None` for what cannot be one."""
    if isinstance(value, str) and len(value) <= _LONGEST:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def neutral(wire: object, *, final: bool) -> Usage:
    """Return a `usage` object in neutral words.

    :param final: whether it comes with the end of the message. The output count of `message_start` is a placeholder,
        so it is left out.
    """
    if not isinstance(wire, Mapping):
        return Usage()
    fields: dict[str, Any] = {**_counts(wire), **{name: word(wire.get(name)) for name in _WORDS}}
    if final:
        fields["thinking_tokens"] = count(_mapping(wire.get("output_tokens_details")).get("thinking_tokens"))
    else:
        fields["output_tokens"] = None
    return Usage(
        **fields,
        web_searches=count(_mapping(wire.get("server_tool_use")).get("web_search_requests")),
        impossible=any(_impossible(wire.get(theirs)) for theirs in _COUNTS.values()),
        iterations=_iterations(wire.get("iterations")),
    )


def _impossible(value: object) -> bool:
    """Whether a number is none of tokens: negative, or beyond belief."""
    return isinstance(value, int | float) and not isinstance(value, bool) and count(value) is None


def invocation(metrics: object) -> Usage:
    """Return the counts that Bedrock sends with the end of a message."""
    wire = _mapping(metrics)
    fields: dict[str, Any] = {ours: count(wire.get(theirs)) for ours, theirs in _INVOCATION.items()}
    return Usage(**fields)


def word(value: object) -> str | None:
    """Return a text that says something, or `None`."""
    return value if isinstance(value, str) and value else None


def _counts(wire: Mapping[Any, Any]) -> dict[str, int | None]:
    return {
        **{ours: count(wire.get(theirs)) for ours, theirs in _COUNTS.items()},
        "cache_write_1h_tokens": count(_mapping(wire.get("cache_creation")).get("ephemeral_1h_input_tokens")),
    }


def _iterations(value: object) -> tuple[Iteration, ...] | None:
    """The samplings of an answer; one without counts stands for what cannot be read."""
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        return (Iteration(type="unreadable"),)
    return tuple(
        Iteration(type=word(one.get("type")) or "", model=word(one.get("model")), **_counts(one)) for one in value
    )


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}

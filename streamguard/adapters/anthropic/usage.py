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

_PARTS: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
"""Cache writes by lifetime, in `cache_creation`."""

_FREE: Final = frozenset({"web_fetch_requests"})
_SEARCHES: Final = "web_search_requests"
"""What `server_tool_use` counts: requests that cost nothing but tokens, and such with a price of their own."""


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
        web_searches=count(_mapping(wire.get("server_tool_use")).get(_SEARCHES)),
        impossible=_impossible(wire),
        iterations=_iterations(wire.get("iterations"), {name: fields[name] for name in _WORDS}),
    )


def _impossible(wire: Mapping[Any, Any]) -> bool:
    """Whether something is counted that cannot be so, or that nobody here can price."""
    tools = _mapping(wire.get("server_tool_use"))
    counts = [wire.get(theirs) for theirs in _COUNTS.values()]
    counts += [_mapping(wire.get("cache_creation")).get(part) for part in _PARTS]
    counts += [tools.get(_SEARCHES), _mapping(wire.get("output_tokens_details")).get("thinking_tokens")]
    if not _adds_up(wire.get(_COUNTS["cache_write_tokens"]), _mapping(wire.get("cache_creation"))):
        return True
    unpriced = any(value not in (None, 0) for name, value in tools.items() if name != _SEARCHES and name not in _FREE)
    return unpriced or any(value is not None and count(value) is None for value in counts)


def _adds_up(whole: object, parts: Mapping[Any, Any]) -> bool:
    """Whether cache writes are the sum of their parts, where both are told."""
    told = sum(count(parts.get(part)) or 0 for part in _PARTS)
    return whole is None or not told or count(whole) == told


def invocation(metrics: object) -> Usage:
    """Return the counts that Bedrock sends with the end of a message."""
    wire = _mapping(metrics)
    fields: dict[str, Any] = {ours: count(wire.get(theirs)) for ours, theirs in _INVOCATION.items()}
    return Usage(**fields)


def word(value: object) -> str | None:
    """Return a text that says something, or `None`."""
    return value if isinstance(value, str) and value else None


def _counts(wire: Mapping[Any, Any]) -> dict[str, int | None]:
    fields = {ours: count(wire.get(theirs)) for ours, theirs in _COUNTS.items()}
    parts = [count(_mapping(wire.get("cache_creation")).get(part)) for part in _PARTS]
    if any(part is not None for part in parts):
        # Some servers tell the parts alone; where the sum is less than they are, they are believed.
        fields["cache_write_tokens"] = max(fields["cache_write_tokens"] or 0, sum(part or 0 for part in parts))
    return {**fields, "cache_write_1h_tokens": parts[1]}


def _iterations(value: object, words: Mapping[str, str | None]) -> tuple[Iteration, ...] | None:
    """The samplings of an answer; one without counts stands for what cannot be read.

    :param words: what the answer says of its speed, region and tier: samplings that say otherwise have other prices.
    """
    if not value:
        return None
    if (
        not isinstance(value, list)
        or not all(isinstance(one, Mapping) and not _impossible(one) for one in value)
        or any(one.get(name) not in (None, words[name]) for one in value for name in _WORDS)
    ):
        return (Iteration(type="unreadable"),)
    return tuple(
        Iteration(type=word(one.get("type")) or "", model=word(one.get("model")), **_counts(one)) for one in value
    )


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}

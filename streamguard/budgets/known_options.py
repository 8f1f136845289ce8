"""Know what a request may say beside its messages and tools while it stays one sampling at the usual rates. Pure.

In charge of the lists of fields, options and beta features (SDK 2.11.0, and what Anthropic's own clients send). What is
not on them may be billed more than once, or at rates that nobody here knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

BOUNDED_FIELDS: Final = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "stream"),
        *("temperature", "top_p", "top_k", "stop_sequences", "metadata", "output_config", "output_format"),
        *("cache_control", "service_tier", "speed", "inference_geo", "betas", "user_profile_id", "workspace_id"),
    }
)
"""Request fields under which one request is one sampling. Any other (`fallbacks`, `mcp_servers`, `container`,
`compaction` …, and those yet to be invented) may bill more than once, so a strict budget refuses it."""

_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "thinking": frozenset({"type", "budget_tokens", "display", "block_binding"}),
    "tool_choice": frozenset({"type", "name", "disable_parallel_tool_use"}),
    "output_config": frozenset({"format", "effort", "task_budget"}),
    "metadata": frozenset({"user_id"}),
}
"""What these fields may have in them."""

_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "thinking": frozenset({"enabled", "disabled", "adaptive", "between_tools"}),
    "tool_choice": frozenset({"auto", "any", "tool", "none"}),
}
"""And of which types they may be."""

_TIERS: Final = frozenset({"auto", "standard_only", "standard", "default"})
_PAID_TIERS: Final = frozenset({"priority", "flex", "batch"})
"""Service tiers. Anthropic bills none of them above the list price: `priority` is paid beforehand. On other platforms
some have prices of their own: `priority` of Bedrock has a premium."""

_EDITS: Final = frozenset({"clear_tool_uses_20250919", "clear_thinking_20251015"})
"""Edits of the context that only remove input: compaction would be a sampling of its own."""

_BETAS: Final = re.compile(
    "(?:prompt-caching|extended-cache-ttl|pdfs|files-api|token-counting|token-efficient-tools|output-128k|output-300k"
    "|interleaved-thinking|dev-full-thinking|context-1m|fast-mode|context-management|model-context-window-exceeded"
    "|computer-use|structured-outputs|effort|thinking-token-count|thinking-display-updates|thinking-binding-controls"
    "|redact-thinking|adaptive-thinking|mid-conversation(?:-[a-z]+){1,3}|inline-tools|fine-grained-tool-streaming"
    "|search-results|cache-diagnosis|task-budgets|user-profiles|claude-code|oauth|web-fetch|tool-examples"
    "|advanced-tool-use|message-batches|max-tokens-3-5-sonnet)-20[0-9]{2}-?[0-9]{2}-?[0-9]{2}"
)
"""Betas, of any date, under which one request is one sampling at the usual rates: what they allow shows in the body,
where it is looked at."""


def unbounded_beta(betas: object) -> str | None:
    """Return the first beta whose effect on the bill is not known; `None` if there is none.

    :param betas: names, or one text with names between commas, as the header `anthropic-beta` has them.
    """
    names = betas if isinstance(betas, list | tuple) else () if betas is None else (betas,)
    for name in ",".join(map(str, names)).split(","):
        if (plain := name.strip()) and _BETAS.fullmatch(plain.lower()) is None:
            return plain
    return None


def unbounded_option(body: Mapping[str, Any]) -> str | None:
    """Return what in a body, beside messages and tools, is not known to leave the bill as it is; `None` for nothing."""
    for name, value in body.items():
        if value is None:
            continue
        if name == "context_management":
            if not _only_clears(value):
                return "'context_management' may make the provider work more than once"
        elif name not in BOUNDED_FIELDS:
            return f"{name!r} may make the provider work more than once"
        elif name == "service_tier" and not _among(value, _tiers(body.get("model"))):
            return f"what {name} {value!r} costs is not known"
        elif name in _OPTIONS and isinstance(value, Mapping) and (odd := _odd(name, value)) is not None:
            return f"what {odd} costs is not known"
    return None


def _tiers(model: object) -> frozenset[str]:
    """The service tiers of a model that cost no more than its list price."""
    return _TIERS | _PAID_TIERS if str(model).startswith("claude") else _TIERS


def _odd(name: str, value: Mapping[Any, Any]) -> str | None:
    unknown = value.keys() - _OPTIONS[name]
    if unknown:
        return f"the field {min(map(str, unknown))!r} of {name}"
    kind = value.get("type")
    if name in _TYPES and not _among(kind, _TYPES[name]):
        return f"{name} of type {kind!r}"
    return None


def _among(value: object, known: frozenset[str]) -> bool:
    return isinstance(value, str) and value in known


def _only_clears(management: object) -> bool:
    """Whether context management only removes input."""
    if not isinstance(management, Mapping) or management.keys() - {"edits"}:
        return False
    edits = management.get("edits")
    return isinstance(edits, list | tuple) and all(
        isinstance(edit, Mapping) and _among(edit.get("type"), _EDITS) for edit in edits
    )

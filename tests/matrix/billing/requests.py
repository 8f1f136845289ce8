# ruff: noqa: RUF001  letters that look like others are the point
"""Random requests of the Messages API, with the tokens that they are billed at, and requests with strange parts."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.matrix.billing.parts import (
    CLIENT_TOOL,
    KINDS,
    TOOL,
    TOOL_PROMPT,
    TURN,
    Part,
    cache,
    text,
    tool,
)
from tests.matrix.billing.rates import FAST_MODELS, SHEET, THINKERS, WINDOW, WINDOWS

CLIENT_TOOLS = (
    {"type": "bash_20250124", "name": "bash"},
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    {"type": "computer_20251124", "name": "computer", "display_width_px": 1024, "display_height_px": 768},
    {"type": "memory_20250818", "name": "memory"},
)


class Asked(NamedTuple):
    """A request, and what the provider makes of it."""

    body: dict[str, Any]
    model: str
    input_tokens: int
    """Of everything in it, at most the model's window."""
    most_output: int
    thinks: bool
    """Whether it may think unseen."""
    lifetimes: tuple[str, ...] = ()
    """For how long parts of it are cached."""
    geo: str | None = None
    speed: str = "standard"
    betas: tuple[str, ...] = ()
    strange: str = ""
    """What of it no documented rule of one sampling covers; a provider may bill any number of them."""


def asked(chance: random.Random, *, small: bool = False) -> Asked:
    """A request that the documentation allows.

    :param small: of text alone, for cells that stream.
    """
    model = chance.choice(sorted(SHEET))
    body: dict[str, Any] = {"model": model, "max_tokens": chance.choice((16, 300, 2048, 16_000))}
    tokens = 20
    messages = []
    for number in range(1 if small else chance.randint(1, 5)):
        message, its = _message(chance, number, small=small)
        messages.append(message)
        tokens += its + TURN
    body["messages"] = messages
    for add in (_system, _tools, _format, _rest):
        if not small or add is _rest:
            tokens += add(chance, body)
    thinking = _thinking(chance, model, body)
    geo = chance.choice((None, None, None, "us", "global"))
    if geo is not None:
        body["inference_geo"] = geo
    speed = "fast" if model in FAST_MODELS and chance.random() < 0.15 else "standard"
    if speed == "fast":
        body["speed"] = speed
    extra = (body.get("thinking") or {}).get("budget_tokens", 0)
    return Asked(
        body=body,
        model=model,
        input_tokens=min(tokens, WINDOWS.get(model, WINDOW)),
        most_output=body["max_tokens"] + extra,
        thinks=thinking,
        lifetimes=tuple(_lifetimes(body)),
        geo=geo,
        speed=speed,
        betas=("fast-mode-2026-02-01",) if speed == "fast" else (),
    )


def _message(chance: random.Random, number: int, *, small: bool) -> tuple[dict[str, Any], int]:
    role = ("user", "assistant")[number % 2]
    if small or chance.random() < 0.3:
        words, tokens = text(chance)
        return {"role": role, "content": words}, tokens
    parts: list[Part] = [chance.choice(KINDS)(chance) for _ in range(chance.randint(1, 5))]
    return {"role": role, "content": [part.block for part in parts]}, sum(part.tokens + 2 for part in parts)


def _system(chance: random.Random, body: dict[str, Any]) -> int:
    if chance.random() < 0.5:
        return 0
    words, tokens = text(chance, 6)
    body["system"] = words if chance.random() < 0.5 else [{"type": "text", "text": words, **cache(chance)}]
    return tokens + TURN


def _tools(chance: random.Random, body: dict[str, Any]) -> int:
    if chance.random() < 0.6:
        return 0
    own = [tool(number) | cache(chance) for number in range(chance.randint(0, 4))]
    theirs = chance.sample(CLIENT_TOOLS, chance.randint(0, 2))
    body["tools"] = [*own, *copy.deepcopy(theirs)]
    if body["tools"]:
        body["tool_choice"] = {"type": chance.choice(("auto", "any", "none"))}
    return TOOL_PROMPT + TOOL * len(own) + CLIENT_TOOL * len(theirs)


def _format(chance: random.Random, body: dict[str, Any]) -> int:
    if chance.random() < 0.7:
        return 0
    body["output_config"] = {"format": {"type": "json_schema", "schema": tool()["input_schema"]}, "effort": "high"}
    return TOOL + 300


def _rest(chance: random.Random, body: dict[str, Any]) -> int:
    given = {
        "metadata": {"user_id": "u"},
        "stop_sequences": ["STOP"],
        "temperature": 1.0,
        "service_tier": chance.choice(("auto", "standard_only", "priority")),
        "stream": True,
    }
    for name in chance.sample(sorted(given), chance.randint(0, 3)):
        body[name] = given[name]
    if chance.random() < 0.1:
        body["cache_control"] = {"type": "ephemeral"}
    return 0


def _thinking(chance: random.Random, model: str, body: dict[str, Any]) -> bool:
    """Whether the model may think unseen."""
    way = chance.choice(("unsaid", "disabled", "enabled", "adaptive"))
    if way == "enabled":
        body["thinking"] = {"type": "enabled", "budget_tokens": chance.choice((1024, 5000))}
    elif way != "unsaid":
        body["thinking"] = {"type": way}
    return way in ("enabled", "adaptive") or (way == "unsaid" and model in THINKERS)


def _lifetimes(value: object) -> set[str]:
    """How long parts of a body are to be cached, wherever they say so."""
    found: set[str] = set()
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            if control := one.get("cache_control"):
                found.add(control.get("ttl") or "5m")
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return found


# Strange parts: what the provider may bill more for than one sampling at the usual rates, or nobody knows

_SEARCH = {"type": "web_search_20260318", "name": "web_search", "max_uses": 50}
_KNOWN_SERVER_TOOLS = (
    *("web_search_20250305", "web_search_20260209", "web_search_20260318", "web_fetch_20250910", "web_fetch_20260318"),
    *("code_execution_20250522", "code_execution_20260521", "tool_search_tool_regex_20251119", "advisor_20260301"),
    *("mcp_toolset", "browser_toolset_20260801", "computer_toolset_20260801", "agent_toolset_20260401"),
)
_UNKNOWN_TOOLS = (
    *("bash_20270101", "bash_code_execution_20250825", "computer_20991231", "memory_20270101", "Custom", "CUSTOM"),
    *("text_editor_20250728_v2", "bash_20250124 ", "ｂash_20250124", "custom ", "cusτom"),
)


def _into(chance: random.Random, body: dict[str, Any], block: dict[str, Any]) -> None:
    """Put a block somewhere in the messages or the system prompt, at some depth."""
    for _ in range(chance.randint(0, 2)):
        wrap = chance.choice(("tool_result", "document", "search_result"))
        if wrap == "tool_result":
            block = {"type": "tool_result", "tool_use_id": "t", "content": [block]}
        elif wrap == "document":
            block = {"type": "document", "source": {"type": "content", "content": [block]}}
        else:
            block = {"type": "search_result", "source": "s", "title": "t", "content": [block]}
    if chance.random() < 0.3:
        body["system"] = [block]
    else:
        body["messages"] = [*body["messages"], {"role": chance.choice(("user", "system")), "content": [block]}]


def _tool_kind(chance: random.Random) -> dict[str, Any]:
    return {"type": chance.choice((*_KNOWN_SERVER_TOOLS, *_UNKNOWN_TOOLS)), "name": "t"}


def _top_tool(chance: random.Random, body: dict[str, Any]) -> str:
    body["tools"] = [*body.get("tools", ()), _tool_kind(chance)]
    return "a tool that the provider runs, or that is not known"


def _inline_tool(chance: random.Random, body: dict[str, Any]) -> str:
    definition = _tool_kind(chance)
    where = chance.choice(
        (
            {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}},
            {"type": "tool_addition", "tool": definition},
            {"type": "tool_definition", "definition": definition},
            {"type": "tool_addition", "definition": definition},
            {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": [definition]}},
            {"type": "text", "text": "x", "input": definition},
            {"type": "tool_addition", "format": definition},
            {"type": "tool_addition", "tool": {"type": "mcp_toolset_reference", "name": "x"}},
        )
    )
    _into(chance, body, where)
    return "a tool in a message"


def _tool_in_tool(chance: random.Random, body: dict[str, Any]) -> str:
    key = chance.choice(
        ("tools", "toolset", "server", "mcp_server_name", "allowed_callers_", "configs", "ｉnput_schema")
    )
    body["tools"] = [tool() | {key: [_SEARCH]}]
    return "a field of a tool that is not known"


def _block(chance: random.Random, body: dict[str, Any]) -> str:
    kind = chance.choice(("hologram", "TEXT", "text ", "tехt", "mcp_tool_listing", "compaction", "video", "audio", ""))
    _into(chance, body, {"type": kind, "text": "x"} if kind else {"text": "x", "type": 7})
    return "a block that is not known"


def _key(chance: random.Random, body: dict[str, Any]) -> str:
    key = chance.choice(("tools", "TOOLS", "ｔools", "tооls", "server_tools", "fallbacks", "mcp_servers", "priority"))
    _into(chance, body, {"type": "text", "text": "x", key: [_SEARCH]})
    return "a field of a block that is not known"


def _source(chance: random.Random, body: dict[str, Any]) -> str:
    sources = ({"type": "s3", "url": "u"}, {"type": "base64", "data": "", "resample": 9}, {"type": "video", "data": ""})
    _into(chance, body, {"type": chance.choice(("document", "image")), "source": chance.choice(sources)})
    return "a source that is not known"


def _top_field(chance: random.Random, body: dict[str, Any]) -> str:
    given = {
        "fallbacks": [{"model": "claude-fable-5-2"}],
        "mcp_servers": [{"type": "url", "url": "u", "name": "n"}],
        "container": {"skills": [{"type": "anthropic", "skill_id": "pptx"}]},
        "ｓpeed": "fast",
        "Speed": "fast",
        "n": 8,
        "best_of": 8,
        "compaction": {"trigger": 1},
        "thread": {"id": "t"},
        "fallback_credit_token": "x",
        "billing_policy": {"x": 1},
        "performance_config": {"latency": "optimized"},
    }
    name = chance.choice(sorted(given))
    body[name] = given[name]
    return f"the field {name}"


def _nested(chance: random.Random, body: dict[str, Any]) -> str:
    given = (
        ("output_config", {"candidates": 8}),
        ("output_config", {"effort": "high", "speed": "fast"}),
        ("thinking", {"type": "adaptive", "samples": 8}),
        ("thinking", {"type": "parallel_2027"}),
        ("tool_choice", {"type": "auto", "server_tools": [_SEARCH]}),
        ("tool_choice", {"type": "any_server_tool"}),
        ("cache_control", {"type": "ephemeral", "ttl": "24h"}),
        ("cache_control", {"type": "persistent"}),
        ("cache_control", {"type": "ephemeral", "replicas": 9}),
        ("metadata", {"user_id": "u", "inference_geo": "us"}),
        ("context_management", {"edits": [{"type": "compact_20260112"}]}),
        ("context_management", {"edits": [{"type": "clear_and_summarize_20270101"}]}),
        ("context_management", {"edits": [{"type": "clear_tool_uses_20250919"}], "summarize": True}),
    )
    name, value = chance.choice(given)
    body[name] = copy.deepcopy(value)
    return f"{name}: {value}"


def _tier(chance: random.Random, body: dict[str, Any]) -> str:
    name, value = chance.choice(
        (
            *(("service_tier", tier) for tier in ("turbo", "Flex", "PRIORITY", ["priority"], "batch ")),
            *(("speed", speed) for speed in ("turbo", "FAST", ["fast"], "fast ", {"mode": "fast"})),
        )
    )
    body[name] = value
    return f"{name}: {value}"


def _cached(chance: random.Random, body: dict[str, Any]) -> str:
    control = chance.choice(({"type": "ephemeral", "ttl": "30d"}, {"type": "ephemeral", "ttl": 7}, "1h", {"ttl": "1d"}))
    _into(chance, body, {"type": "text", "text": "x", "cache_control": control})
    return "a lifetime of a cache that is not known"


_BETAS = (
    *("advisor-tool-2026-03-01", "compact-2026-01-12", "server-side-fallback-2026-07-01", "free-lunch-2027-01-01"),
    *("mcp-client-2025-11-20", "fast-mode-forever", "pdfs-and-advisors-2027-01-01", "effort-2025-11-24x"),
    *("user-profiles-billing-2026-10-01", "ｐdfs-2024-09-25", "web-fetch-", "interleaved-thinking-x-2025-05-14"),
)


def _beta(chance: random.Random, body: dict[str, Any]) -> str:
    body["betas"] = [chance.choice(("pdfs-2024-09-25", "effort-2025-11-24")), chance.choice(_BETAS)]
    if chance.random() < 0.3:
        body["betas"] = ",".join(body["betas"])
    return "a beta that is not known to leave the bill as it is"


STRANGE: tuple[Callable[[random.Random, dict[str, Any]], str], ...] = (
    *(_top_tool, _inline_tool, _tool_in_tool, _block, _key, _source, _top_field, _nested, _tier, _cached, _beta),
)


def strange(chance: random.Random) -> Asked:
    """A request with one part that has no bound."""
    plain = asked(chance)
    body = copy.deepcopy(plain.body)
    why = chance.choice(STRANGE)(chance, body)
    return plain._replace(body=body, strange=why)

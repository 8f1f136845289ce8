"""How much one request can cost at the most, known before it is sent. Pure.

In charge of the upper bound that a budget holds while an attempt runs, and of saying why a request has none. It knows
the shape of a Messages API request; it does not know budgets, ledgers or what was spent.

A hard budget is only as good as this bound, so it errs upwards everywhere: fields and tools it does not know are
unbounded, not free.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from streamguard.pricing.price import Price, worst_case
from streamguard.request import Request
from streamguard.usage import Unit

BudgetMode = Literal["strict", "calibrated"]

MAX_AMOUNT = 2**53 - 1
"""No amount or cap is larger: beyond it the doubles that Redis scripts count in lose digits. (USD 9 billion.)"""

FRAMING_BOUND = 4096
"""Tokens a provider may add to what was sent: turn markers, its own prompts for tools (up to 804, Anthropic's tool-use
page, 2026-11) and for structured output. A margin of five."""

CLIENT_TOOL_TOKENS = 4096
"""Tokens that the definition of one provider-defined tool that the caller runs (bash, editor, computer) may add; the
documented ones are up to 735 (tool reference, 2026-11)."""

IMAGE_TOKENS = 6000
"""Tokens of one image, after the provider's own downscaling: 4,784 documented (vision page), 4,005 measured, 2026."""

CONTEXT_WINDOW = 1_000_000
"""Input tokens beyond which every model refuses a request, unbilled (2026-11): all that bounds a PDF or a file."""


_SLICE = 65_536
"""Characters that are normalised at a time."""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one attempt can cost."""

    input_tokens: int
    """Cache reads and writes included."""
    output_tokens: int
    """Thinking included."""
    micro_usd: int | None
    """`None` if the price is unknown."""
    soft: bool = False
    """Whether it rests on an estimate: a calibrated bound is no bound."""

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input_tokens + self.output_tokens

    def of(self, unit: Unit) -> int | None:
        """The bound in a unit."""
        return self.micro_usd if unit == "micro_usd" else self.tokens


class Unbounded(msgspec.Struct, frozen=True, kw_only=True):
    """Why the cost of a request has no upper bound."""

    why: str
    """One sentence that says what in the request is unbounded, or unknown, and what would help."""


BOUNDED_FIELDS = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "stream"),
        *("temperature", "top_p", "top_k", "stop_sequences", "metadata", "output_config", "output_format"),
        *("cache_control", "service_tier", "speed", "inference_geo", "betas", "user_profile_id", "workspace_id"),
    }
)
"""Request fields under which one request is one sampling. Any other (`fallbacks`, `mcp_servers`, `container`,
`compaction` …, and those yet to be invented) may bill more than once, so a strict budget refuses it."""

CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")
"""Beginnings of the types of provider-defined tools that the *caller* runs: one request is still one sampling."""


def bound(
    request: Request | None,
    price: Price | None,
    *,
    mode: BudgetMode = "strict",
    needs_price: bool = True,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    context_window: int = CONTEXT_WINDOW,
) -> Bound | Unbounded:
    """The most that sending `request` once can cost.

    `strict` holds for any provider whose tokens have at least one byte and who runs no more than was asked for: input
    tokens are at most the UTF-8 bytes sent (as sent, or in Unicode's compatibility form, if longer) plus framing and
    maxima for images and files; output is at most `max_tokens`, plus the thinking budget, which interleaved thinking
    may spend on top; every input token may be a cache write at the dearest rate. `calibrated` takes the estimates it is
    given instead.

    :param price: USD per million tokens for this very request (`PriceBook.for_request`).
    :param needs_price: whether money is limited at all; token budgets need no price.
    :param input_tokens: an upper estimate of the input, for `calibrated`.
    :param output_tokens: an upper estimate of the output, for `calibrated`.
    """
    if request is None:
        return Unbounded(why="the source does not show its request, so nothing bounds its cost")
    problem = _unpriced(request, price) if needs_price else None
    most_output = _most_output(request)
    if isinstance(most_output, Unbounded):
        return most_output
    if problem is None and mode == "strict":
        problem = _unbounded(request)
    if problem is not None:
        return Unbounded(why=problem)
    try:
        tokens = _most_input(request, context_window)
    except (TypeError, ValueError, RecursionError) as error:
        return Unbounded(why=f"the request is no plain JSON, so its size is unknown ({error})")
    caching = True
    if mode == "calibrated":
        tokens = min(tokens, input_tokens) if input_tokens is not None else tokens
        most_output = min(most_output, output_tokens) if output_tokens is not None else most_output
        caching = _caches(request)
    money = None if price is None else worst_case(price, tokens, most_output, caching=caching)
    if max(money or 0, tokens + most_output) > MAX_AMOUNT:
        return Unbounded(why=f"the request could cost more than a ledger can count ({MAX_AMOUNT})")
    return Bound(input_tokens=tokens, output_tokens=most_output, micro_usd=money, soft=mode == "calibrated")


def _unpriced(request: Request, price: Price | None) -> str | None:
    if price is None:
        return f"the price of model {request.model!r} is unknown; add prices: for it"
    speed = request.body.get("speed") or "standard"
    if price.speed not in ("any", speed):
        return f"the price of model {request.model!r} is for speed {price.speed!r}, and the request asks for {speed!r}"
    return None


def _most_output(request: Request) -> int | Unbounded:
    limit = request.max_tokens
    if type(limit) is not int or limit < 0:
        return Unbounded(why=f"max_tokens must be a whole number to bound the output, not {limit!r}")
    thinking = request.body.get("thinking")
    extra = thinking.get("budget_tokens") if isinstance(thinking, Mapping) and thinking.get("type") == "enabled" else 0
    if type(extra) is not int or extra < 0:
        return Unbounded(why=f"thinking.budget_tokens must be a whole number to bound the output, not {extra!r}")
    return limit + extra


def _unbounded(request: Request) -> str | None:
    """What in the request may make the provider sample, and bill, more than once."""
    for name, value in request.body.items():
        if name == "context_management" and _only_clears(value):
            continue
        if name not in BOUNDED_FIELDS and value is not None:
            return f"{name!r} may make the provider work more than once; leave it out, or say mode: calibrated"
    for tool in request.body.get("tools") or ():
        kind = str(tool.get("type") or "custom") if isinstance(tool, Mapping) else "unknown"
        if kind != "custom" and not kind.startswith(CLIENT_TOOLS):
            return (
                f"tool type {kind!r} is run by the provider, as often as it likes; leave it out, or: mode: calibrated"
            )
    return None


def _only_clears(management: object) -> bool:
    """Whether context management only removes input: compaction would be a sampling of its own."""
    edits = management.get("edits") if isinstance(management, Mapping) else None
    return isinstance(edits, list | tuple) and all(
        isinstance(edit, Mapping) and str(edit.get("type")).startswith("clear_") for edit in edits
    )


def most_input(request: Request, context_window: int = CONTEXT_WINDOW) -> int:
    """Tokens of `system` and `messages`: their bytes, with images and files counted by their maxima instead. Worked out
    once a request.

    :raises ValueError: they are no plain JSON.
    """
    key = f"most_input {context_window}"
    if key not in request.known:
        fields = ("system", "messages")
        text = {field: _without_files(request.body.get(field)) for field in fields}
        files = sum(_file_tokens(block, context_window) for name in fields for block in _blocks(request.body.get(name)))
        request.known[key] = files + _bytes(text)
    found: int = request.known[key]
    return found


def _most_input(request: Request, context_window: int) -> int:
    """Tokens of the whole body."""
    text = {key: value for key, value in request.body.items() if key not in ("system", "messages")}
    tools = sum(str(tool.get("type")).startswith(CLIENT_TOOLS) for tool in _objects(request.body.get("tools")))
    # Two objects have one brace more than they have together, or two, but a comma less.
    return FRAMING_BOUND + CLIENT_TOOL_TOKENS * tools + most_input(request, context_window) + _bytes(text) - bool(text)


def _file_tokens(block: Mapping[str, Any], context_window: int) -> int:
    """The most tokens of what a content block brings along besides text."""
    kind, source = block.get("type"), block.get("source")
    if kind == "image":
        return IMAGE_TOKENS
    as_text = isinstance(source, Mapping) and source.get("type") in ("text", "content")
    return context_window if kind == "container_upload" or (kind == "document" and not as_text) else 0


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, list | tuple) else iter(())


def _blocks(value: Any) -> Iterator[Mapping[str, Any]]:
    """Messages and content blocks, nested ones too. A tool call's input is text, whatever it looks like."""
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping):
            yield value
            todo.extend(item for key, item in value.items() if key != "input")
        elif isinstance(value, list | tuple):
            todo.extend(value)


def _without_files(value: Any) -> Any:
    """Content without the data of images and documents: the provider reads that as pictures and pages, not as text."""
    if isinstance(value, list | tuple):
        return [_without_files(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {key: item if key == "input" else _without_files(item) for key, item in value.items()}
    source = value.get("source")
    if value.get("type") in ("image", "document") and isinstance(source, Mapping) and source.get("type") == "base64":
        kept["source"] = {key: item for key, item in source.items() if key != "data"}
    return kept


def _bytes(value: Any) -> int:
    """UTF-8 bytes of a JSON value, as it is or in compatibility form (one character may grow to 18), the longer."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isascii():
        return len(text)
    # In slices: a long text is neither copied whole nor does a thread that goes through it keep others from their turn.
    slices = [text[at : at + _SLICE] for at in range(0, len(text), _SLICE)]
    plain = sum(len(part.encode("utf-8", "surrogatepass")) for part in slices)
    normal = sum(len(unicodedata.normalize("NFKC", part).encode("utf-8", "surrogatepass")) for part in slices)
    return max(plain, normal)


def _caches(request: Request) -> bool:
    """Whether the request asks for anything to be cached."""
    places = (request.body, *_objects(request.body.get("tools")), *_blocks(request.body.get("system")))
    return any(block.get("cache_control") for block in (*places, *_blocks(request.body.get("messages"))))

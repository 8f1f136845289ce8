"""Estimate what an attempt used from what was seen of it: exact once the provider has counted, `[low, high]` before.

Knows no price, no budget and no policy. `budgets.upper_bound` holds the hard bounds; the intervals made here go into
outcomes, records and soft charges.

Why an interval: the provider counts once, at the end, so an aborted attempt never gets its count. `message_start`
says little: its output count is a placeholder (left out by adapters), and its input count has been seen at 9 for 33,772
tokens truly read, so it is a lower bound only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from streamguard.events import Usage
from streamguard.guards.transcript import Transcript
from streamguard.pricing.input_upper import ContentUpper, content_upper, input_upper_bound, window
from streamguard.pricing.tokens import Calibration, TokenScale, weigh_bytes, weigh_least
from streamguard.request import INPUT, Request, encoded
from streamguard.usage import UsageRange

LAG_TOKENS = 200
"""Tokens that may have been generated but not seen when a stream ends early: on their way, or made before the provider
noticed. One second at 200 tokens per second, faster than the models priced in 2026-11 answer."""

FRAMING_ESTIMATE = 1024
"""Tokens that a provider adds to a request's own text: turn markers, and prompts of its own for tools (at most 804,
Anthropic's tool-use page, 2026-11)."""


def usage_range(transcript: Transcript, request: Request | None, calibration: Calibration) -> UsageRange:
    """What one attempt used, by what was seen of it; the request was sent, and may be billed.

    With the provider's final count: that, exactly, unless it fell: then both are the ends. Without:

    * output, low: what is visible, at the lower end of the model's scale, or the provider's running count, if higher;
    * output, high: the same at the upper end plus `LAG_TOKENS`, but at most what the request allows; just that where
      output may be hidden (see `output_upper`), and `None` if the source shows no request;
    * input, low: what `message_start` said, else 0; high: what budgets hold for it; `None` if no text
      bounds it (files, links, server tools that the request allows, no request).

    The upper end of output is an estimate, held by all recorded streams but not by proof; the bounds that budgets rest
    on are `max_tokens` and bytes alone.
    """
    usage = transcript.usage
    scale = calibration.scale(request.model if request is not None else transcript.model)
    if is_final(transcript, request):
        billed = usage.billed
        exact = billed.input_tokens is not None and billed.output_tokens is not None
        return UsageRange(low=billed if exact else usage, high=billed, exact=exact)
    if transcript.metered and transcript.fell is not None and _input_can_be(transcript, request):
        return UsageRange(low=transcript.fell, high=usage, exact=False)
    low_output: int | None
    if transcript.metered and _output_can_be(transcript):
        low_output = high_output = usage.output_tokens
    else:
        low_output, high_output = _output(transcript, request, scale)
    return UsageRange(
        low=msgspec.structs.replace(usage, input_tokens=usage.input_tokens or 0, output_tokens=low_output),
        high=_input_upper(transcript, request, high_output),
        exact=False,
    )


def is_final(transcript: Transcript, request: Request | None) -> bool:
    """Return whether the counts are the provider's final ones, and can be true.

    They cannot be where one of them is negative or fell, where the input is larger than any window, or where they are
    lighter than what was sent and seen: starts have been seen that say 9 for 33,772 tokens, and ends that do not repeat
    the input.
    """
    usage = transcript.usage
    if not transcript.metered or usage.input_tokens is None or usage.impossible or transcript.fell is not None:
        return False
    if not _output_can_be(transcript):
        return False
    return _input_can_be(transcript, request)


MOST_INPUT = 20_000_000
"""Input tokens that no model of any vendor takes (2026-11: 10 million)."""

LIGHT = 64.0
"""Text of less weight is not held against its count: the scale is a large part of it."""


def _least(weight: float) -> float:
    """What a text has at the least, halved. By the prior: what is learned from counts must not make them credible."""
    return weight * TokenScale().low / 2 if weight >= LIGHT else 0.0


def _input_can_be(transcript: Transcript, request: Request | None) -> bool:
    """Whether the input can have as many tokens as were counted, and as few."""
    usage = transcript.usage
    if usage.input_tokens is None:
        return False
    told = usage.whole_input or 0
    if request is None:
        return told <= MOST_INPUT
    return _least_input(request) <= told <= window(request.model, MOST_INPUT)


def _least_input(request: Request) -> float:
    """What was sent counts at the least: its text, images and pages. 0 where some of it may not have been read."""
    if request.body.get("context_management"):
        return 0.0
    content = _content(request)
    return 0.0 if content is None else _least(content.words) + content.floor


def _output_can_be(transcript: Transcript) -> bool:
    """Whether the answer can have as few tokens as were counted. Thinking may be told in more words than were made."""
    usage = transcript.usage
    if usage.impossible or (usage.output_tokens or 0) < (usage.thinking_tokens or 0):
        return False
    seen = sum(
        weigh_least(transcript.block_text(index)) for index in transcript.blocks if transcript.kind(index) != "thinking"
    )
    return (usage.output_tokens or 0) >= _least(seen - transcript.given)


def output_upper(transcript: Transcript, request: Request | None, scale: TokenScale, silent: float = 0.0) -> int | None:
    """An upper estimate of the output generated so far, without what may be on its way; `None` if some may be hidden.

    Hidden is: thinking, which may be summarised or left out (seen, or not switched off where a model may do it); what
    is made before the first block or between blocks; and the block at work, if it is no text: tool input comes in whole
    values unless the tool streams its input eagerly, and server tools work unseen.

    :param silent: seconds since the last output: as many as the fastest model makes in them may have been made.
    """
    running = transcript.usage.output_tokens or 0
    if transcript.metered:
        return running if _output_can_be(transcript) else None
    kinds = {block.kind for block in transcript.blocks.values()}
    if "thinking" in kinds or may_think(request):
        return None
    open_block = transcript.open
    if open_block is None or (open_block.kind != "text" and not _streams_eagerly(request, open_block.name)):
        return None
    seen = math.ceil((sum(transcript.weights().values()) + transcript.framing()) * scale.high)
    # Blanks weigh next to nothing, as whole runs of them are one token; a model in a loop may make them one by one.
    looped = sum(len(run) for index in transcript.blocks for run in _BLANKS.findall(transcript.block_text(index)))
    return max(running, seen + looped) + math.ceil(max(0.0, silent) * FASTEST)


FASTEST = 400.0
"""Tokens a second that no model makes: twice what the fastest priced in 2026-11 does."""

_THINK_WHEN_ASKED = (
    *("claude-2", "claude-3", "claude-haiku-4", "claude-sonnet-4", "claude-opus-4"),
    *("claude-4", "claude-instant"),
)
"""Beginnings of the models that think only if the request says so (model pages, 2026-11). All later ones may."""


def may_think(request: Request | None) -> bool:
    """Return whether the model may think without showing it: unless the request switches it off, or it never does."""
    if request is None or request.thinking:
        return request is not None
    thinking = request.body.get("thinking")
    if isinstance(thinking, Mapping) and thinking.get("type") == "disabled":
        return False
    name = str(request.model)
    return "claude" in name and not name[name.index("claude") :].startswith(_THINK_WHEN_ASKED)


_BLANKS = re.compile(r"\s{16,}")
"""Runs of whitespace longer than any indentation that is meant."""


class InputEstimate(msgspec.Struct, frozen=True):
    """An upper estimate of what an attempt's input is billed at."""

    tokens: int
    """All input, cached or not."""
    cache_writes: bool
    """Whether some of it may be written to a cache, which is dearer."""


def input_upper(transcript: Transcript, request: Request | None, scale: TokenScale) -> InputEstimate | None:
    """An upper *estimate* of an attempt's input before the final count; `None` where no text says how long it is.

    The start's own count, if it can be all there is: it is no less than the text's weight at the low end of the scale,
    and the request asks for no cache (starts have been seen that leave cached input out). Else the weight at the high
    end, and `FRAMING_ESTIMATE`.
    """
    content = _bounded(transcript, request)
    if request is None or content is None:
        return None
    caches = _says(request, _CACHES)
    said = transcript.usage
    told = (said.input_tokens or 0) + (said.cache_read_tokens or 0) + (said.cache_write_tokens or 0)
    weight = input_weight(request)
    if told and not caches and told >= weight * scale.low:
        return InputEstimate(told, cache_writes=False)
    most = math.ceil(weight * scale.high) + FRAMING_ESTIMATE + content.pictures
    return InputEstimate(max(told, most), cache_writes=caches)


def _bounded(transcript: Transcript, request: Request | None) -> ContentUpper | None:
    """The bound of what the model reads; `None` where the request does not show how much that may become.

    What a server tool fetches is read again and again, and a stream that was cut need not have shown its call yet. So
    it is enough that the request allows one.
    """
    if request is None or "server_tool" in {block.kind for block in transcript.blocks.values()}:
        return None
    content = _content(request)
    if content is None or content.files or content.why is not None:
        return None
    if any(request.body.get(field) for field in _READS_MORE) or not _only_clears(request.body):
        return None
    return None if _says(request, *_NO_TEXT) else content


_READS_MORE = ("mcp_servers", "fallbacks", "container")
"""Fields of a request under which the model may read what the request does not show, or more than once."""


def _only_clears(body: Mapping[str, object]) -> bool:
    """Whether context management only removes input. A compaction reads it all once more."""
    management = body.get("context_management")
    edits = management.get("edits") if isinstance(management, Mapping) else None
    return not management or (
        isinstance(edits, list | tuple)
        and all(isinstance(edit, Mapping) and str(edit.get("type")).startswith("clear_") for edit in edits)
    )


def _content(request: Request) -> ContentUpper | None:
    """The bound of what the model reads; `None` for what is no plain JSON."""
    try:
        return content_upper(request.body, request.known)
    except (TypeError, ValueError, RecursionError):
        return None


def input_weight(request: Request) -> float:
    """The weight of what the model reads; worked out once a request."""
    if "weight" not in request.known:
        request.known["weight"] = sum(weigh_bytes(encoded(request.body[key])) for key in INPUT if key in request.body)
    found: float = request.known["weight"]
    return found


MOST_FRAMING = 0.25
"""The part of an answer's weight that calls' framing may be where the answer is to teach: it is an estimate itself."""


def lesson(transcript: Transcript) -> tuple[float, int] | None:
    """Return what an answer with a final count teaches of its model: the weight of what is visible, and its tokens.

    :returns: `None` where something was hidden, or where most was the framing of calls: an answer of a short call comes
        to thirty tokens for each that its input has.
    """
    usage, weights = transcript.usage, transcript.weights()
    if usage.output_tokens is None or ("thinking" in weights and usage.thinking_tokens is None):
        return None
    seen, framing = sum(weight for kind, weight in weights.items() if kind != "thinking"), transcript.framing()
    if framing > MOST_FRAMING * (seen + framing):
        return None
    return seen + framing, usage.output_tokens - (usage.thinking_tokens or 0)


def _streams_eagerly(request: Request | None, name: str | None) -> bool:
    tools = request.body.get("tools") if request is not None else None
    return any(
        isinstance(tool, Mapping) and tool.get("name") == name and tool.get("eager_input_streaming") is True
        for tool in tools or ()
    )


def _output(transcript: Transcript, request: Request | None, scale: TokenScale) -> tuple[int, int | None]:
    running = transcript.usage.output_tokens or 0
    low = max(running, math.floor(sum(transcript.weights().values()) * scale.low))
    upper, most = output_upper(transcript, request, scale), _most_output(request)
    bounds = [bound for bound in (most, None if upper is None else upper + LAG_TOKENS) if bound is not None]
    if not bounds:
        return low, None
    # What the request allows is a fact and the estimates are not; a running count is a fact too.
    high = max(min(bounds), running)
    return min(low, high), high


def _most_output(request: Request | None) -> int | None:
    """What the request allows; thinking interleaved with tool calls may go beyond `max_tokens` by its budget."""
    if request is None or type(request.max_tokens) is not int:
        return None
    thinking = request.body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return request.max_tokens + (budget if type(budget) is int else 0)


_NO_TEXT = (b'"file_id":', b'"type":"url"', b'"type":"file"')
"""Signs of input whose size the request does not show. A key, not a word in somebody's text: there the quotes would be
escaped."""

_CACHES = b'"cache_control":'


def input_signs(request: Request) -> frozenset[bytes]:
    """Which of the signs stand in what the model reads; worked out once a request."""
    if "signs" not in request.known:
        parts = [encoded(request.body[key]) for key in INPUT if key in request.body]
        signs = (*_NO_TEXT, _CACHES)
        request.known["signs"] = frozenset(sign for sign in signs if any(sign in part for part in parts))
    found: frozenset[bytes] = request.known["signs"]
    return found


def _says(request: Request, *signs: bytes) -> bool:
    """Whether one of the signs stands anywhere in a request."""
    if not input_signs(request).isdisjoint(signs):
        return True
    others = encoded({key: value for key, value in request.body.items() if key not in INPUT})
    return any(sign in others for sign in signs)


def _input_upper(transcript: Transcript, request: Request | None, output: int | None) -> Usage:
    said = transcript.usage
    content = _bounded(transcript, request)
    if request is None or content is None:
        return msgspec.structs.replace(said, input_tokens=None, output_tokens=output)
    told = said.input_tokens or 0
    cached = (said.cache_read_tokens or 0) + (said.cache_write_tokens or 0)
    most = max(input_upper_bound(content, request.body), told + cached)
    if _says(request, _CACHES):
        return Usage(input_tokens=told, cache_write_tokens=most - told, output_tokens=output)
    return msgspec.structs.replace(said, input_tokens=most, output_tokens=output)

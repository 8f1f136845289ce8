"""Bound the input of a request from above, and refuse what has no bound. Pure.

In charge of what stands in `messages`, `system` and `tools`: every block, nested ones too, is of a type that is known
here, has known fields, and has a weight. What is not known is unbounded, not free: the next kind of block may bring a
tool that the provider runs.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from streamguard.files.image_size import image_size
from streamguard.files.pdf_pages import pdf_pages
from streamguard.pricing.price import Lifetime
from streamguard.pricing.text_upper import text_upper
from streamguard.pricing.tokens import weigh_least

FRAMING_BOUND: Final = 1024
"""Tokens a provider may add to plain text: a few for each turn, prompts for thinking and formats."""

TURN_TOKENS: Final = 8
"""Tokens around one message or block. (Seen: 3 to 4 a message.)"""

TOOLS_TOKENS: Final = 4096
"""Tokens of the provider's own prompts for tools: 804 documented (tool-use page, 2026-11). A margin of five."""

CLIENT_TOOL_TOKENS: Final = 4096
"""Tokens that the definition of one provider-defined tool that the caller runs may add; 735 documented (tool reference,
2026-11)."""

IMAGE_TOKENS: Final = 6000
"""Tokens of one image, after the provider's own downscaling: 4,784 documented (vision page), 4,005 measured, 2026."""

PDF_PAGE_TOKENS: Final = 16_000
"""Tokens of one page: a picture of 4,784 and 1,500 to 3,000 of text (PDF page, 2026-11), with a margin of two."""

PDF_PAGE_BYTES: Final = 48 * 1024
"""Unpacked drawing instructions of an ordinary page. Beyond it every byte counts as a token."""

SMALLEST_PAGE: Final = 100
"""Tokens that no page is counted below: 1,500 are documented for its text alone."""

_SMALLEST_IMAGE: Final = 350
"""Tokens that no large image is counted below: 1,568 were the most of models before 2026."""

OPAQUE_TOKENS: Final = 4
"""Tokens a character of what only the provider can read: signatures, hidden thinking, encrypted results. Prose packed
3 : 1 comes to 0.6."""

CONTEXT_WINDOW: Final = 1_000_000
"""Input tokens beyond which every model refuses a request, unbilled (2026-11): all that bounds a file."""

_SMALL_WINDOW: Final = 200_000
_SMALL: Final = ("claude-3-", "claude-haiku-4-5", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-20250514")

CLIENT_TOOLS: Final = frozenset(
    {
        *("bash_20241022", "bash_20250124", "memory_20250818"),
        *("text_editor_20241022", "text_editor_20250124", "text_editor_20250429", "text_editor_20250728"),
        *("computer_20241022", "computer_20250124", "computer_20251124"),
    }
)
"""Provider-defined tools that the *caller* runs, by exact name: one request is still one sampling (SDK 2.11.0)."""

BLOCKS: Final = frozenset(
    {
        *("text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result"),
        *("container_upload", "tool_reference", "tool_addition", "tool_removal", "tool_definition", "fallback"),
        # what server tools left behind: input like any other
        *("server_tool_use", "mcp_tool_use", "mcp_tool_result", "web_search_tool_result", "web_search_result"),
        *("web_search_tool_result_error", "web_fetch_tool_result", "web_fetch_result", "web_fetch_tool_result_error"),
        *("code_execution_tool_result", "code_execution_result", "code_execution_output"),
        *("encrypted_code_execution_result", "code_execution_tool_result_error", "bash_code_execution_tool_result"),
        *("bash_code_execution_result", "bash_code_execution_output", "bash_code_execution_tool_result_error"),
        *("text_editor_code_execution_tool_result", "text_editor_code_execution_view_result"),
        *("text_editor_code_execution_create_result", "text_editor_code_execution_str_replace_result"),
        *("text_editor_code_execution_tool_result_error", "tool_search_tool_result"),
        *("tool_search_tool_search_result", "tool_search_tool_result_error", "advisor_tool_result", "advisor_result"),
        *("advisor_redacted_result", "advisor_tool_result_error"),
        # parts of blocks
        *("base64", "url", "file", "content", "ephemeral", "char_location", "page_location"),
        *("content_block_location", "search_result_location", "web_search_result_location"),
    }
)
"""Types of blocks, and of objects in them, that are input and nothing else (SDK 2.11.0)."""

KEYS: Final = frozenset(
    {
        *("type", "role", "content", "text", "thinking", "signature", "data", "source", "media_type", "url", "file_id"),
        *("title", "context", "citations", "cache_control", "ttl", "enabled", "id", "name", "input", "caller"),
        *("tool_use_id", "tool_id", "is_error", "tool_name", "tool", "definition", "tool_references", "cited_text"),
        *("start_char_index", "end_char_index", "start_page_number", "end_page_number", "start_block_index"),
        *("end_block_index", "document_index", "document_title", "search_result_index", "encrypted_index", "page_age"),
        *("encrypted_content", "encrypted_stdout", "stdout", "stderr", "return_code", "error_code", "error_message"),
        *("file_type", "num_lines", "start_line", "total_lines", "is_file_update", "new_lines", "new_start", "lines"),
        *("old_lines", "old_start", "retrieved_at", "server_name", "transformations", "oversized_image", "clear_at"),
        *("to", "model", "trigger", "stop_reason", "toolset_name", "output_config", "effort", "format", "scope"),
        *("file_name", "is_image", "from"),
    }
)
"""Fields of messages and blocks that are input and nothing else."""

CALLERS: Final = frozenset({"direct", "code_execution_20250825", "code_execution_20260120", "code_execution_20260521"})
"""Who called a tool, in `caller`. Elsewhere these are tools that the provider runs."""

TOOL_KEYS: Final = frozenset(
    {
        *("type", "name", "description", "input_schema", "input_examples", "strict", "cache_control", "defer_loading"),
        *("allowed_callers", "eager_input_streaming", "max_characters", "enable_zoom"),
        *("display_width_px", "display_height_px", "display_number"),
    }
)
"""Fields of tools that the caller runs (SDK 2.11.0)."""

LIFETIMES: Final = frozenset({"5m", "1h"})
"""For how long something may be cached at a known price."""

_CACHE: Final = "ephemeral"
_CACHE_KEYS: Final = frozenset({"type", "ttl", "scope"})

_OPAQUE: Final = frozenset({"signature", "encrypted_content", "encrypted_index", "encrypted_stdout"})
_TEXTS: Final[Mapping[str, tuple[str | None, ...]]] = {
    "input": ("tool_use", "server_tool_use", "mcp_tool_use"),
    "format": (None,),
    "trigger": ("fallback",),
}
"""Fields whose value is the caller's own data (text, whatever it looks like), and the types of blocks with them."""

_READ: Final = ("text", "content")
"""Fields whose text is read as it is, in any block."""

CITATION_PROMPT: Final = 1024
CITED_SENTENCE: Final = 16
"""Tokens that citations add to a request, and around each sentence of a document: "a slight increase" (citations page,
2026-11). No figure is published."""
_SENTENCE: Final = re.compile(r"[.!?\n\u3002\uff01\uff1f]+")


class ContentUpper(msgspec.Struct, frozen=True, kw_only=True):
    """The most that `system`, `messages` and `tools` of a body can be billed for."""

    tokens: int
    lifetimes: frozenset[str]
    """How long parts of it are to be cached, in the request's words; `?` for words that are not known."""
    pictures: int
    """Tokens of it that are no text: pictures, pages, and what only the provider can read."""
    words: float
    """The weight of text that is surely read, in which runs of one character weigh as one."""
    floor: int
    """The fewest tokens of its pictures and pages: far below what any provider counts."""
    files: bool
    """Whether some of it is files whose size the request does not show."""
    why: str | None
    """What in it has no bound, and what would help; `None` for nothing."""


def content_upper(body: Mapping[str, Any], known: dict[str, Any]) -> ContentUpper:
    """Return the most tokens of what the model reads. What is not known is counted as text, and named in `why`.

    :param known: what was worked out of this body: it is asked first, and told what is found.
    :raises TypeError, ValueError, RecursionError: the body is no plain JSON.
    """
    if (found := known.get("content_upper")) is not None:
        return found  # type: ignore[no-any-return]
    found = known["content_upper"] = _content_upper(body)
    return found


def _content_upper(body: Mapping[str, Any]) -> ContentUpper:
    counting = _Counting()
    counting.tools(body.get("tools"), "tools")
    for key in ("system", "messages"):
        counting.content(body.get(key), key)
    counting.lifetimes |= _lifetimes(body.get("cache_control"))
    if unknown := counting.lifetimes - LIFETIMES:
        counting.refuse(f"what a cache of {min(unknown)!r} costs is not known; say 5m or 1h, or mode: calibrated")
    return ContentUpper(
        tokens=counting.tokens + text_upper("\n".join(counting.texts)),
        lifetimes=frozenset(counting.lifetimes),
        words=weigh_least("\n".join(counting.read)),
        floor=counting.floor,
        files=counting.files,
        pictures=counting.pictures,
        why=counting.why,
    )


def input_upper_bound(content: ContentUpper, body: Mapping[str, Any]) -> int:
    """Return the most input tokens of a whole body.

    :param content: of its `system`, `messages` and `tools`.
    """
    rest = {key: value for key, value in body.items() if key not in ("system", "messages", "tools")}
    return min(FRAMING_BOUND + content.tokens + text_upper(_json(rest)), window(body.get("model")))


def cache_lifetime(content: ContentUpper) -> Lifetime:
    """Return the longest time for which a request asks that something be cached."""
    return "1h" if content.lifetimes - {"5m"} else "5m" if content.lifetimes else "no"


def window(model: object, otherwise: int = 2**53 - 1) -> int:
    """Return the most input tokens that a model takes: what is larger is refused, unbilled.

    :param otherwise: for models of other vendors, whose windows are not known here.
    """
    name = str(model)
    if name.startswith(_SMALL):
        return _SMALL_WINDOW
    return CONTEXT_WINDOW if name.startswith("claude") else otherwise


class _Counting:
    """One walk over a body."""

    def __init__(self) -> None:
        self.tokens = 0
        self.texts: list[str] = []
        self.lifetimes: set[str] = set()
        self.files = False
        self.pictures = 0
        self.read: list[str] = []
        self.floor = 0
        self.why: str | None = None
        self._largest_tool = 0

    def refuse(self, why: str) -> None:
        """Keep the first reason."""
        if self.why is None:
            self.why = why

    def _unknown(self, names: set[Any], of: str) -> None:
        self.refuse(
            f"what the field {min(map(str, names))!r} of {of} may cost is not known; leave it out, or say mode: "
            "calibrated"
        )

    def tools(self, tools: object, where: str) -> None:
        """Count definitions of tools."""
        if tools is None:
            return
        self.tokens += TOOLS_TOKENS
        for tool in tools if isinstance(tools, list | tuple) else [tools]:
            self.tool(tool, where)

    def tool(self, tool: object, where: str) -> None:
        """Count one definition, at the length of its longest rendering: indented, outside ASCII escaped."""
        kind = str(tool.get("type") or "custom") if isinstance(tool, Mapping) else "unknown"
        if kind in CLIENT_TOOLS:
            self.tokens += CLIENT_TOOL_TOKENS
        elif kind != "custom":
            self.refuse(
                f"tool type {kind!r} in {where} is run by the provider, as often as it likes, or is not known; leave "
                "it out, or: mode: calibrated"
            )
        if isinstance(tool, Mapping):
            self.lifetimes |= _lifetimes(tool.get("cache_control"))
            if unknown := tool.keys() - TOOL_KEYS:
                self._unknown(unknown, f"a tool in {where}")
        longest = max(_json(tool), json.dumps(tool, indent=4), key=len)
        self._largest_tool = max(self._largest_tool, len(longest) * 2)
        self.texts.append(longest)
        if isinstance(tool, Mapping) and not tool.get("defer_loading"):
            self.read.append(_json(tool))

    def content(self, value: object, where: str) -> None:
        """Count messages, or the system prompt."""
        if value is None:
            return
        if isinstance(value, str):
            self.texts.append(value)
            self.read.append(value)
            return
        plain = True
        for block in _blocks(value):
            self.tokens += TURN_TOKENS
            plain = False
            self._block(block, where)
        if plain:
            self.texts.append(_json(value))
        else:
            self._strings(value)

    def _block(self, block: Mapping[str, Any], where: str) -> None:
        kind = block.get("type")
        if not (kind is None or (isinstance(kind, str) and kind in BLOCKS)):
            self.refuse(
                f"what a block of type {kind!r} in {where} may cost is not known; leave it out, or: mode: calibrated"
            )
        source = block.get("source")
        unknown = {*block, *(source if isinstance(source, Mapping) else ())} - KEYS
        unknown |= {key for key, kinds in _TEXTS.items() if key in block and kind not in kinds}
        if "caller" in block and not _is_caller(block["caller"]):
            unknown.add("caller")
        if unknown:
            self._unknown(unknown, f"a block in {where}")
        if kind in ("document", "search_result") and block.get("citations"):
            self.tokens += CITATION_PROMPT + CITED_SENTENCE * (1 + _sentences(block))
        self.lifetimes |= _lifetimes(block.get("cache_control"))
        if "definition" in block:
            self.tool(block["definition"], where)
            self.tokens += TOOLS_TOKENS
        if kind == "tool_reference":
            self.tokens += self._largest_tool + CLIENT_TOOL_TOKENS
        if kind in ("image", "document", "container_upload"):
            self._hidden(self._file(kind, source if isinstance(source, Mapping) else {}))
        if "clear_at" not in block:
            read = (*_READ, "data") if kind == "text" else _READ
            self.read += [item for key in read if isinstance(item := block.get(key), str)]
            if "input" in block:
                self.read.append(_json(block["input"]))
        own = {}
        for key, item in block.items():
            if key == "definition":
                continue
            if key in _OPAQUE or (key == "data" and kind == "redacted_thinking"):
                self._hidden(OPAQUE_TOKENS * len(_json(item)))
            elif key == "source" and _held(block, key, item):
                own[str(key)] = {name: part for name, part in item.items() if name != "data"}  # pictures, pages
            elif key in _TEXTS or key == "caller" or not isinstance(item, Mapping | list | tuple):
                own[str(key)] = item
            else:
                self._strings(item)
        self.texts.append(_json(own))

    def _hidden(self, tokens: int) -> None:
        """Count what is no text."""
        self.tokens += tokens
        self.pictures += tokens

    def _strings(self, value: object) -> None:
        """What stands between blocks: texts in lists. Objects are blocks of their own."""
        todo = [value]
        while todo:
            item = todo.pop()
            if isinstance(item, list | tuple):
                todo.extend(item)
            elif not isinstance(item, Mapping):
                self.texts.append(_json(item))

    def _file(self, kind: str, source: Mapping[str, Any]) -> int:
        form, data = source.get("type"), source.get("data")
        if kind == "image":
            size = image_size(_decoded(data, 1 << 18)) if form == "base64" else None
            self.floor += 0 if size is None else min(_SMALLEST_IMAGE, size[0] * size[1] // 3000)
            return IMAGE_TOKENS if size is None else min(IMAGE_TOKENS, _of_pixels(*size))
        if form in ("text", "content"):
            return 0
        found = pdf_pages(_decoded(data)) if form == "base64" else None
        self.floor += SMALLEST_PAGE * (1 if found is None else found.pages)
        if found is None:
            self.files = True
            return CONTEXT_WINDOW
        dense = found.content > found.pages * PDF_PAGE_BYTES
        return found.pages * PDF_PAGE_TOKENS + (found.content if dense else 0)


def _sentences(value: object) -> int:
    """How many sentences the texts in a document may be taken for."""
    found, todo = 0, [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            found += len(_SENTENCE.findall(one))
        elif isinstance(one, Mapping):
            todo.extend(item for key, item in one.items() if not _held(one, key, item))
        elif isinstance(one, list | tuple):
            todo.extend(one)
    return found


def _of_pixels(width: int, height: int) -> int:
    """Tokens of a picture: one per 28 by 28 pixels (vision page, 2026-11), or one per 750; and a quarter more."""
    patches = max(-(-width // 28) * -(-height // 28), -(-width * height // 750))
    return patches * 5 // 4 + 64


def _decoded(data: object, most: int | None = None) -> bytes:
    """Base64 as bytes; nothing, if it is none."""
    if not isinstance(data, str):
        return b""
    try:
        return b64decode(data if most is None else data[:most])
    except (binascii.Error, ValueError):
        return b""


def _blocks(value: object) -> Iterator[Mapping[str, Any]]:
    """Messages, blocks, and objects in them. The input of a tool call is text, whatever it looks like."""
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping):
            yield value
            todo.extend(
                item
                for key, item in value.items()
                if key not in _TEXTS and key not in ("definition", "caller") and not _held(value, key, item)
            )
        elif isinstance(value, list | tuple):
            todo.extend(value)


def _is_caller(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping)
        and isinstance(kind := value.get("type"), str)
        and kind in CALLERS
        and not value.keys() - {"type", "tool_id"}
    )


def _held(block: Mapping[str, Any], key: object, item: object) -> bool:
    """Whether a field holds a picture or pages: counted as such, not as text."""
    return (
        key == "source"
        and block.get("type") in ("image", "document")
        and isinstance(item, Mapping)
        and item.get("type") == "base64"
    )


def _lifetimes(control: object) -> set[str]:
    """How long something is to be cached; nothing for not at all."""
    if not control:
        return set()
    if not isinstance(control, Mapping) or control.keys() - _CACHE_KEYS or control.get("type", _CACHE) != _CACHE:
        return {"?"}
    return {str(control.get("ttl") or "5m")}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

"""Parts of requests, each with the tokens that it is billed at: documented, or counted by `ctok` 1.3.0.

Counts of texts are the most of its vocabularies 3.0, 4.7 and 4.8 (an unofficial reconstruction of the tokenizers).
"""

from __future__ import annotations

import random
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any, NamedTuple

TEXTS: dict[str, tuple[str, int, int]] = {
    "prose": ("The quick brown fox jumps over the lazy dog near the river bank. ", 9, 208),
    "capitals": ("ZQ_", 200, 1000),
    "part numbers": ("QX7-ZK4\n", 75, 674),
    "two-letter codes": ("AB,QZ,XK,", 66, 660),
    "regex": ("(?P<A>[A-Z]{2})\\s+|", 31, 589),
    "json": ('{"id": 7, "kind": "invoice", "lines": []}\n', 14, 321),
    "chinese": ("发票号码七号请求书。", 60, 600),
    "hangul": ("한글 문서입니다. ", 60, 600),
    "emoji": ("🧾👩\u200d🧮 ", 120, 1320),
    "marks": ("Ǆ(İ", 200, 1003),
    "arabic": ("مرحبا بالعالم. ", 40, 441),
    "compatibility": ("\ufdfa", 600, 1802),
    "base64": ("aGVsbG8gd29ybGQhIQ", 33, 562),
    "digits": ("3141592653589793 ", 35, 245),
    "answers": ("A\nB\nD\n", 100, 599),
    "code": ("getHTTPSUrlForXMLHttpRequest();", 19, 380),
    "worst known": ("4Ŧ", 300, 1800),
    "accents": ("éÉüÜñÑ ", 85, 851),
    "thai": ("ใบแจ้งหนี้ ", 54, 703),
    "sentences": ("A b. C d. ", 60, 361),
}
"""Name → what is repeated, how often, and its tokens."""

CONTRIVED = ("capitals", "worst known")
"""Texts that estimates are not made for. Bounds are."""

TURN = 4
"""Tokens around one message."""
TOOL_PROMPT = 804
CLIENT_TOOL = 735
TOOL = 147
"""Tokens of `tool()`, rendered with an indent of four and escapes."""
IMAGE_MOST = 4784
PAGE = 3000 + IMAGE_MOST
PDF_PAGES_MOST = 600
CITED_SENTENCE = 6
"""Tokens around one sentence of a document with citations: an assumption, nothing is published."""
HIDDEN_PER_CHARACTER = 0.6
"""Tokens a base64 character of what only the provider can read: prose, packed 3 : 1."""


class Part(NamedTuple):
    """A block of a message, and what it is billed at."""

    block: dict[str, Any]
    tokens: int


def text(chance: random.Random, most: int = 3) -> tuple[str, int]:
    """A text, and its tokens."""
    unit, times, tokens = TEXTS[chance.choice(sorted(TEXTS))]
    more = chance.randint(1, most)
    return unit * times * more, tokens * more


def cache(chance: random.Random) -> dict[str, Any]:
    """A `cache_control`, or nothing."""
    ttl = chance.choice((None, None, None, "5m", "1h", "unsaid"))
    return {} if ttl is None else {"cache_control": {"type": "ephemeral"} | ({} if ttl == "unsaid" else {"ttl": ttl})}


def png(width: int, height: int) -> str:
    return b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0").decode()


def gif(width: int, height: int) -> str:
    frame = b",\0\0\0\0" + struct.pack("<HH", width, height) + b"\0"
    return b64encode(b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + frame).decode()


def image_tokens(width: int, height: int) -> int:
    return min(IMAGE_MOST, max(-(-width // 28) * -(-height // 28), -(-width * height // 750)))


def pdf(pages: int, how: str) -> str:
    """A PDF: plain, with its pages in a packed stream, with a count that lies, or with nothing that can be read."""
    kids = b" ".join(b"%d 0 R" % number for number in range(2, pages + 2))
    objects = b"".join(b"%d 0 obj<</Type/Page>>endobj\n" % number for number in range(2, pages + 2))
    count = 1 if how == "lies" else pages
    tree = b"1 0 obj<</Type/Pages/Count %d/Kids[%s]>>endobj\n" % (count, kids)
    if how == "packed":
        packed = zlib.compress(tree + objects)
        head = b"9 0 obj<</Type/ObjStm/N 9/First 0/Filter/FlateDecode/Length %d>>stream\n" % len(packed)
        return b64encode(b"%PDF-1.7\n" + head + packed + b"\nendstream endobj\n").decode()
    if how == "opaque":
        return b64encode(b"%PDF-1.7\n" + b"x" * 400).decode()
    return b64encode(b"%PDF-1.7\n" + tree + objects).decode()


def tool(number: int = 0) -> dict[str, Any]:
    """A tool of the caller's own."""
    properties = {
        "Bezeichnung": {"type": "string", "description": "größer als é"},
        "menge": {"type": "integer"},
    }
    return {
        "name": f"lookup{number or ''}",
        "description": "Look an entry up in the register of parts.",
        "input_schema": {"type": "object", "properties": properties, "required": ["menge"]},
    }


def _text(chance: random.Random) -> Part:
    words, tokens = text(chance)
    return Part({"type": "text", "text": words, **cache(chance)}, tokens)


def _image(chance: random.Random) -> Part:
    width, height = chance.randint(1, 3000), chance.randint(1, 3000)
    sources = {
        "base64": {"media_type": "image/png", "data": chance.choice((png, gif))(width, height)},
        "url": {"url": "https://example.com/x.png"},
        "file": {"file_id": "file_1"},
    }
    kind = chance.choice(sorted(sources))
    tokens = image_tokens(width, height) if kind == "base64" else IMAGE_MOST
    return Part({"type": "image", "source": {"type": kind} | sources[kind], **cache(chance)}, tokens)


def _document(chance: random.Random) -> Part:
    pages, how = chance.randint(1, 12), chance.choice(("plain", "packed", "lies", "opaque"))
    sources = {
        "base64": {"media_type": "application/pdf", "data": pdf(pages, how)},
        "url": {"url": "https://example.com/x.pdf"},
        "file": {"file_id": "file_1"},
    }
    kind = chance.choice(sorted(sources))
    most = chance.randint(1, 100)
    tokens = PAGE * (pages if kind == "base64" and how != "opaque" else most)
    return Part({"type": "document", "source": {"type": kind} | sources[kind], **cache(chance)}, tokens)


def _written(chance: random.Random) -> Part:
    """A document of text, perhaps with citations."""
    words, tokens = text(chance)
    block: dict[str, Any] = {"type": "document", "title": "a", "context": "b"}
    block["source"] = {"type": "text", "media_type": "text/plain", "data": words}
    if chance.random() < 0.5:
        block["source"] = {"type": "content", "content": [{"type": "text", "text": words}]}
    tokens += 20
    if chance.random() < 0.5:
        block["citations"] = {"enabled": True}
        tokens += CITED_SENTENCE * (words.count(".") + words.count("\n") + 1)
    return Part(block, tokens)


def _result(chance: random.Random) -> Part:
    inner = chance.choice((_text, _image, _document, _search))(chance)
    return Part({"type": "tool_result", "tool_use_id": "toolu_1", "content": [inner.block]}, inner.tokens + 10)


def _use(chance: random.Random) -> Part:
    words, tokens = text(chance, 1)
    return Part({"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {"words": words}}, 2 * tokens + 40)


def _thought(chance: random.Random) -> Part:
    hidden = "QUJD" * chance.randint(1, 800)
    block = chance.choice(
        (
            {"type": "thinking", "thinking": "", "signature": hidden},
            {"type": "redacted_thinking", "data": hidden},
            {
                "type": "web_search_tool_result",
                "tool_use_id": "srvtoolu_1",
                "content": [
                    {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": hidden},
                ],
            },
        )
    )
    return Part(block, round(HIDDEN_PER_CHARACTER * len(hidden)) + 30)


def _search(chance: random.Random) -> Part:
    words, tokens = text(chance, 1)
    content = [{"type": "text", "text": words}]
    block = {"type": "search_result", "source": "s", "title": "t", "content": content, "citations": {"enabled": True}}
    return Part(block, tokens + 30)


def _inline(chance: random.Random) -> Part:
    """A tool of the caller's own that comes in a message."""
    definition = {"type": "tool_definition", "definition": tool()}
    return Part({"type": "tool_addition", "tool": definition}, TOOL + TOOL_PROMPT)


KINDS: tuple[Callable[[random.Random], Part], ...] = (
    *(_text, _text, _text, _image, _image, _document, _written, _result, _use, _thought, _search, _inline),
)

"""Count a PDF's pages, at the most, without opening it as one. Pure.

A reader of PDFs would follow the file's own tables, and two readers differ on a file that lies. So every object is
looked at that any reader could find: all of the file, and all object streams in it. Where something cannot be looked
into, nothing is said. Linear in the file's size and in `MAX_INFLATED`.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

import msgspec

MAX_INFLATED: Final = 64 * 1024 * 1024
"""Bytes that are unpacked of one file at the most."""

_HEADER: Final = b"%PDF-"
_ESCAPE: Final = re.compile(rb"#([0-9A-Fa-f]{2})")
_STREAM: Final = re.compile(rb"(?<!end)stream\r?\n")
_PAGE: Final = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_COUNT: Final = re.compile(rb"/Count\s+(\d{1,9})(?!\d|\s+\d+\s+R)")
_INDIRECT_COUNT: Final = re.compile(rb"/Count\s+\d+\s+\d+\s+R")
_KIDS: Final = re.compile(rb"/Kids\s*\[([^\]]*)\]")
_REFERENCE: Final = re.compile(rb"(?<!\d)(\d++)\s++\d++\s++R")


class Pages(msgspec.Struct, frozen=True):
    """What a PDF has, at the most."""

    pages: int
    content: int
    """Bytes of what may be drawn on them, unpacked: text, positions and lines, without pictures and fonts."""


def pdf_pages(data: bytes) -> Pages | None:
    """Return how many pages a PDF has at the most, or `None` if the bytes do not say.

    :param data: the whole file.
    """
    if _HEADER not in data[:1024] or b"/Encrypt" in data:
        return None
    texts, content, room = [data], 0, MAX_INFLATED
    for found in _STREAM.finditer(data):
        head = data[max(0, found.start() - 2048) : found.start()]
        about = _named(head[head.rfind(b" obj") + 1 :] if b" obj" in head else head)
        if b"/ObjStm" not in about and (b"/Image" in about or b"/FontFile" in about or b"/Length1" in about):
            continue
        unpacked = _inflated(memoryview(data)[found.end() :], about, room)
        if unpacked is None:
            if b"/ObjStm" in about:
                return None
            end = data.find(b"endstream", found.end())
            content += (len(data) if end < 0 else end) - found.end()
            continue
        room -= len(unpacked)
        if room <= 0:
            return None
        if b"/ObjStm" in about:
            texts.append(unpacked)
        else:
            content += len(unpacked)
    pages = _counted([_named(text) for text in texts])
    return None if pages is None else Pages(pages, content)


def _counted(texts: list[bytes]) -> int | None:
    """Pages by every way to count them, the most; `None` if a page may be shown more than once, or there is none."""
    named = counted = kids = 0
    seen: set[bytes] = set()
    for text in texts:
        if _INDIRECT_COUNT.search(text) or re.search(rb"/Kids\s+\d", text):
            return None
        named += len(_PAGE.findall(text))
        counted = max([counted, *(int(count) for count in _COUNT.findall(text))])
        for found in _KIDS.findall(text):
            references = _REFERENCE.findall(found)
            kids += len(references)
            if not seen.isdisjoint(references) or len(set(references)) < len(references):
                return None
            seen.update(references)
    return max(named, counted, kids) or None


def _named(text: bytes) -> bytes:
    """With the escapes in names written out: `/P#61ge` is `/Page`."""
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text) if b"#" in text else text


def _inflated(data: memoryview, about: bytes, room: int) -> bytes | None:
    """A stream unpacked; `None` if it is packed in another way than Flate, or broken."""
    if b"/FlateDecode" not in about and b"/Fl" not in about:
        return None
    if any(other in about for other in (b"/ASCII85", b"/ASCIIHex", b"/LZW", b"/RunLength", b"/Crypt")):
        return None
    try:
        return zlib.decompressobj().decompress(data, room + 1)
    except zlib.error:
        return None

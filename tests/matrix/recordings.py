"""Recorded answers of real servers and of the real API, as seeds; nothing where the shared test data is not there."""

from __future__ import annotations

import io
import re
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.data import path

BY_HAND: Final = ("anthropic_order", "variants", "ollama", "envoy", "bifrost")
"""Archives whose bytes were written by hand, after sources and issue threads."""

LONGEST: Final = 6000
"""Bytes of a recording that is a seed: what is longer says the same again."""


def _archive(*parts: str) -> Path | None:
    try:
        return path(*parts)
    except pytest.skip.Exception:
        return None


@cache
def responses() -> tuple[bytes, ...]:
    """Every recorded response of a server: head and body as they came over the socket."""
    folder = _archive("servers")
    found: list[bytes] = []
    for file in sorted(folder.glob("*.zip")) if folder else ():
        with zipfile.ZipFile(file) as archive:
            found += [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".raw")]
    return tuple(found)


@cache
def api_bodies() -> tuple[bytes, ...]:
    """Every recorded stream of the real API."""
    file = _archive("api_recordings.zip")
    if file is None:
        return ()
    with zipfile.ZipFile(file) as archive:
        return tuple(archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".sse"))


@cache
def aws_streams() -> tuple[bytes, ...]:
    """Every recorded stream of Bedrock, in frames."""
    file = _archive("servers", "bedrock.zip")
    if file is None:
        return ()
    with zipfile.ZipFile(file) as archive:
        return tuple(archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".eventstream"))


def body_of(response: bytes) -> bytes:
    """The body of a recorded response, without its chunks."""
    head, _, body = response.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return body
    reader, out = io.BytesIO(body), b""
    while (size := re.match(rb"[0-9a-fA-F]+", reader.readline())) and (count := int(size.group(), 16)):
        out += reader.read(count)
        reader.read(2)
    return out


def media_type_of(response: bytes) -> str:
    """What a recorded response says that it is."""
    head = response.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
    found = re.search(r"^content-type:\s*([^;\r\n]*)", head, re.MULTILINE)
    return found[1].strip() if found else ""


@cache
def streams() -> tuple[bytes, ...]:
    """Bodies of answers that were meant as event streams."""
    bodies = (body_of(one) for one in responses() if b" 200 " in one[:20])
    return tuple(body for body in (*bodies, *api_bodies()) if 0 < len(body) <= LONGEST)


@cache
def errors() -> tuple[bytes, ...]:
    """Bodies of answers that say no."""
    return tuple(body_of(one) for one in responses() if b" 200 " not in one[:20])

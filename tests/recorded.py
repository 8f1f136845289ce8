"""The recorded streams as events: each a name, its text deltas, its true output tokens and stop reason."""

from __future__ import annotations

import json
import zipfile
from functools import lru_cache
from typing import NamedTuple

from tests.data import path


class Recorded(NamedTuple):
    name: str
    deltas: tuple[str, ...]
    output_tokens: int
    stop_reason: str

    @property
    def text(self) -> str:
        return "".join(self.deltas)


@lru_cache(maxsize=1)
def recorded() -> tuple[Recorded, ...]:
    """All 60 streams; skips the calling test where the data is absent."""
    streams = []
    with zipfile.ZipFile(path("real_sse", "gemma270m-advisories.zip")) as archive:
        for name in archive.namelist():
            if not name.endswith(".sse"):
                continue
            deltas: list[str] = []
            tokens, stop_reason = 0, ""
            for line in archive.read(name).decode().splitlines():
                data = json.loads(line[6:]) if line.startswith("data: ") else {}
                if data.get("type") == "content_block_delta":
                    deltas.append(data["delta"]["text"])
                elif data.get("type") == "message_delta":
                    tokens, stop_reason = data["usage"]["output_tokens"], data["delta"]["stop_reason"]
            streams.append(Recorded(name.removesuffix(".sse"), tuple(deltas), tokens, stop_reason))
    return tuple(streams)

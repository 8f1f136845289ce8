"""The schema prefix on streams recorded from a real model."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator

from streamguard.viability import compile_schema
from tests.data import path

CLOSER = {
    "012-t08-RUSTSEC-2023-0040": 305,
    "016-t10-RUSTSEC-2025-0107": 368,
    "060-t08-RUSTSEC-2024-0425": 348,
    "088-t10-RUSTSEC-2022-0083": 322,
    "036-t08-RUSTSEC-2026-0008": 107,
    "078-t08-RUSTSEC-2026-0247": 115,
}
"""Where the recorded analysis is an upper bound: it sees the ninth of eight items at the item, not at the comma that
promises it, and does not know that two of three candidates are used up where items must differ."""


def deltas(raw: bytes) -> Iterator[str]:
    for line in raw.decode().splitlines():
        if line.startswith("data:"):
            event = json.loads(line[5:])
            if event.get("type") == "content_block_delta":
                yield event["delta"].get("text") or ""


def test_sixty_recorded_streams() -> None:
    """Verdict, dead character and delta are those of the analysis, or nearer."""
    schema = compile_schema(json.loads(path("advisories", "advisory.schema.json").read_text()))
    expected, got = {}, {}
    with zipfile.ZipFile(path("real_sse", "gemma270m-advisories.zip")) as recorded:
        for row in json.loads(path("real_sse", "analysis.json").read_text()):
            name = row["name"]
            expected[name] = (row["schema"], CLOSER.get(name, row.get("schema_dead_char")))
            prefix = schema.prefix()
            dead = None
            fed = 0
            for delta in deltas(recorded.read(f"{name}.sse")):
                fed += 1
                if dead := prefix.feed(delta):
                    break
            ended = row["stop_reason"] != "max_tokens"
            if dead is None and ended:
                dead = prefix.close()
            got[name] = ("ok", None) if dead is None and prefix.complete else ("dead", dead and dead.char)
            if dead is not None and name not in CLOSER:
                assert fed == row["schema_dead_delta"]
    assert len(got) == 60
    assert got == expected

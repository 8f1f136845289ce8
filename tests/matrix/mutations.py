"""Hostile input by mutation: seeds that mean something, broken in the ways that break parsers. By seed, without tools."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from streamguard.testing import faults, wire
from tests.adapters.aws.frames import of_sse
from tests.matrix import corpora, recordings

TOKENS = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n\r\n", b"\n\n", b":", b"data: ", b"event: ", b"data"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\\u0000",
        b",",
        b"null",
        b"true",
        b"-",
        b"-0",
        b"1e999",
    ),
    *(b"NaN", b"Infinity", b"9" * 70, b"0" * 20, b"[" * 40, b"]" * 40, b'{"a":' * 20, b"\xe2\x80\xa8", b"\xc2\x85"),
    *(
        b"\xed\xa0\x80",
        b"\xf0\x9f\x92\xa9",
        b"&a ",
        b"*a",
        b"!!python/object:os.system",
        b"<<: ",
        b"- ",
        b"? ",
        b"| ",
        b"#",
    ),
    *(b"message_stop", b"content_block_delta", b"error", b"$ref", b'{"$ref": "#"}', b"```", b"sk-ant-", b"\x1b[0m"),
)
LABELS = ("text/event-stream", "application/json", "text/plain", "application/octet-stream", "text/html", "")
"""Media types under which answers are looked at."""

_MESSAGE = wire.assemble(wire.text_stream('{"id": 7}'))

ROOT = Path(__file__).resolve().parents[2]


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """What mutations of a target begin with."""
    streams = [
        b"".join(item for item in fault.attempt(shape, event_bytes=1024) if isinstance(item, bytes))
        for fault in faults.ALL
        for shape in faults.SHAPES
        if not fault.slow
    ]
    streams = sorted({data[:3000] for data in streams if data}) + list(recordings.streams())
    documents = [
        faults.GOOD.encode(),
        b'{"id": 1, "kind": "receipt", "lines": ["a", "\\u00e9"], "name": "Alma"}',
        b"{}",
    ]
    policies = [file.read_bytes() for file in sorted((ROOT / "policies").glob("*.yaml"))]
    policies += [text.encode("utf-8", "replace")[:2000] for text in corpora.bombs().values()]
    schemas = [json.dumps(one).encode() for one in (faults.SCHEMA, corpora.expanding(5), *corpora.REMOTE_SCHEMAS)]
    schemas += [b'{"anyOf": [{"pattern": "^a+$"}, {"not": {"enum": [1, "a"]}}], "unevaluatedProperties": false}']
    errors = [json.dumps(wire.error_body(kind, "no")).encode() for kind in wire.ERROR_STATUS]
    errors += recordings.errors()
    bodies = [kind.encode() + b"\n" + data for data in streams[::3] for kind in LABELS[:1]]
    bodies += [kind.encode() + b"\n" + json.dumps(_MESSAGE).encode() for kind in LABELS]
    bodies += [
        recordings.media_type_of(one).encode() + b"\n" + recordings.body_of(one)[: recordings.LONGEST]
        for one in recordings.responses()
    ]
    frames = [b"".join(of_sse([data])) for data in streams[:: len(streams) // 40]]
    frames += [one[: recordings.LONGEST] for one in recordings.aws_streams()]
    lines = [line.encode("utf-8", "replace")[:2000] for line in corpora.jobs_lines()]
    lines += [json.dumps({"custom_id": "a", "params": faults.request()}).encode(), b'{"id": 7, "text": "x"}']
    chosen = {
        "scanner": documents,
        "schema": documents,
        "policy": policies,
        "schemas": schemas,
        "rows": lines,
        "errors": errors,
        "bodies": bodies,
        "aws": frames,
        "events": [bytes(range(64)), b"\x00\x00\x01\x00\x03\x00\x04\x00\x05\x00\x06\x00"],
    }
    return tuple(chosen.get(target, streams))


def mutated(target: str, seed: int) -> bytes:
    """The input of a seed."""
    rng = random.Random(f"{target} {seed}")
    pool = seeds(target)
    data = bytearray(rng.choice(pool))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 9))):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((1, 1, 2, 8, 40)))
        match rng.randrange(8):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = rng.choice(TOKENS)
            case 2:
                data[at:end] = rng.choice(TOKENS)
            case 3:
                data[at:at] = data[at:end] * rng.choice((1, 2, 9))
            case 4:
                other = rng.choice(pool)
                begin = rng.randint(0, len(other))
                data[at:end] = other[begin : begin + rng.choice((1, 10, 200))]
            case 5:
                if data:
                    data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 6:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 5)))
            case 7:
                del data[at:]
    return bytes(data[:6000])

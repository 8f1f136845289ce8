"""The proxy's key in what an upstream says: it reaches nobody, on any path, however the bytes are cut."""

from __future__ import annotations

import asyncio
import html
import itertools
import json
import re
import time
from collections.abc import Callable
from urllib.parse import unquote

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.proxy.config import Client
from streamguard.proxy.key_mask import KeyMask
from streamguard.testing import raw, status, wire
from tests.proxy.running import COMMITTED, KEY, LIVE, Running, with_proxy

SECRET = b"sk-s-sk"


async def masked(pieces: list[bytes]) -> list[bytes]:
    async def given():
        for piece in pieces:
            yield piece

    return [piece async for piece in KeyMask(SECRET.decode()).pieces(given())]


@given(
    parts=st.lists(st.sampled_from([SECRET, SECRET[:-1], SECRET[:3], b"s", b"x", b"\n"]), max_size=12),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_the_key_is_found_wherever_the_pieces_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    """The same as for the whole at once, and of the same length."""
    whole = b"".join(parts)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    found = b"".join(asyncio.run(masked([whole[a:b] for a, b in itertools.pairwise(edges)])))
    assert found == whole.replace(SECRET, b"*" * len(SECRET))


def test_nothing_waits_that_is_no_beginning_of_the_key() -> None:
    """An event goes on at once; of a piece that ends like the key's beginning only that end waits."""
    assert asyncio.run(masked([b"data: x\n\n", b"data: sk", b"-i\n\n"])) == [b"data: x\n\n", b"data: ", b"sk-i\n\n"]


def test_a_line_that_ends_waits_for_nothing() -> None:
    """Whatever stands in it: no key goes on behind a line's end."""
    line = b'data: {"text": "100% \\n \\\\ &#4 \\u00"}\n\n'
    assert asyncio.run(masked([line, line])) == [line, line]


SPELLINGS: dict[str, Callable[[str], str]] = {
    "JSON": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "JSON in upper case, now and then": lambda key: "".join(
        f"\\u{ord(c):04X}" if at % 3 else c for at, c in enumerate(key)
    ),
    "JSON in JSON": lambda key: "".join(f"\\\\u{ord(c):04x}" for c in key),
    "percent": lambda key: "".join(f"%{ord(c):02X}" for c in key),
    "the hyphens only": lambda key: key.replace("-", "%2d"),
    "HTML": lambda key: html.escape(key).replace("-", "&#45;").replace("s", "&#x73;"),
    "Python": lambda key: key.replace("-", "\\x2d"),
}


@pytest.mark.parametrize("width", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_key_that_is_spelled_otherwise_is_found(name: str, width: int) -> None:
    """As JSON, addresses, HTML and Python spell characters; however the pieces are cut, and of the same length."""
    spelled = SPELLINGS[name](SECRET.decode()).encode()
    whole = b"a sk-" + spelled + b"%2" + spelled + b"&"
    found = b"".join(asyncio.run(masked([whole[at : at + width] for at in range(0, len(whole), width)])))
    stars = b"*" * len(spelled)
    assert found == b"a sk-" + stars + b"%2" + stars + b"&"
    assert KeyMask(SECRET.decode()).text(whole.decode()).encode() == found


@pytest.mark.parametrize("pump", [b"\\", b"%", b"&#", b"s", b"sk-", b"\\u00", b"%7", b"&#0"])
def test_no_text_is_expensive(pump: bytes) -> None:
    """A piece of a hundred kilobytes of what keys begin with is looked through in a moment."""
    began = time.thread_time()
    asyncio.run(masked([pump * (100_000 // len(pump))] * 2))
    assert time.thread_time() - began < 1


TOKEN = "client-token-0123456789"
OWN = {"key": KEY, "tokens": {"ada": TOKEN}, "clients": [Client(name="ada", token_env="STREAMGUARD_ADA")]}
SAID = {"type": "error", "error": {"type": "authentication_error", "message": f"bad key {KEY} x-api-key: {KEY}"}}
ANSWERS = {
    "error": status(401, {}, json.dumps(SAID).encode()),
    "type": status(401, {}, json.dumps({"type": "error", "error": {"type": KEY, "message": "x"}}).encode()),
    "page": status(502, {"content-type": "text/html"}, f"<p>{KEY}</p>".encode()),
    "header": status(429, {"request-id": KEY, "anthropic-key": KEY, "x-request-id": f"a {KEY}"}, b"{}"),
    "stream": [
        wire.message_start(),
        wire.block_start(),
        wire.text_delta(f"it is {KEY}, yes"),
        *wire.text_stream("")[-3:],
    ],
    "error event": [wire.message_start(), wire.error(f"{KEY}_error", f"key {KEY}")],
    "no header line": raw(f'HTTP/1.1 200 OK\r\n"x"{KEY}: y\r\n\r\n'.encode()),
    "no status line": raw(f"HTTP/1.1 abc 1{KEY}\r\n\r\n".encode()),
    "no chunk": raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + f"x1{KEY}\r\n".encode()),
    **{
        f"spelled as {name}": status(401, {}, json.dumps(SAID).replace(KEY, spelled(KEY)).encode())
        for name, spelled in SPELLINGS.items()
        if name != "Python"
    },
    **{
        f"spelled as {name} in an event": [
            wire.message_start(),
            wire.block_start(),
            wire.text_delta("it is KEY, yes").replace(b"KEY", SPELLINGS[name](KEY).encode()),
            wire.error("api_error", "no KEY").replace(b"KEY", SPELLINGS[name](KEY).encode()),
        ]
        for name in ("JSON", "JSON in JSON", "percent")
    },
}


def read_by_somebody(text: str) -> str:
    """A text with all that programs undo undone."""
    for _ in range(3):
        text = html.unescape(unquote(re.sub(r"\\+u00([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)))
    return text


UNQUOTED = {"no status line", "no chunk"}
"""Nothing of them is said again."""


@pytest.mark.parametrize("policy", [LIVE, COMMITTED, None], ids=["live", "committed", "off"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_has_the_key(name: str, stream: bool, policy: object, caplog: pytest.LogCaptureFixture) -> None:
    """Errors in any form, headers, texts and events; guarded or not."""

    async def test(running: Running) -> None:
        try:
            answer = await running.ask(stream=stream, headers={"x-api-key": TOKEN})
        except httpx2.RemoteProtocolError:
            assert (name, policy) == ("no chunk", None)  # what breaks unguarded breaks for the client; the log says why
            return
        assert running.upstream.exchanges[0].headers["x-api-key"] == KEY
        assert KEY not in read_by_somebody(answer.text)
        assert KEY not in read_by_somebody(str(answer.headers))
        assert name in UNQUOTED or any(
            word in answer.text + str(answer.headers) for word in ("*" * len(KEY), "[redacted]")
        )

    with_proxy([ANSWERS[name]], test, policy, **OWN)
    assert KEY not in caplog.text


def test_the_key_is_taken_out_of_other_endpoints_too() -> None:
    """Count of tokens and models are not guarded; the key leaves by them no more than elsewhere."""

    async def test(running: Running) -> None:
        for method, path in (("POST", "/v1/messages/count_tokens"), ("GET", f"/v1/models/{KEY}")):
            answer = await running.http.request(
                method, running.url + path, json={} if method == "POST" else None, headers={"x-api-key": TOKEN}
            )
            assert KEY.encode() not in answer.content

    with_proxy([wire.text_stream("x")], test, LIVE, **OWN)

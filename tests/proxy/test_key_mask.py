"""The proxy's key in what an upstream says: it reaches nobody, on any path, however the bytes are cut."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.proxy.config import Client
from streamguard.proxy.key_mask import KeyMask
from streamguard.testing import status, wire
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
}


@pytest.mark.parametrize("policy", [LIVE, COMMITTED, None], ids=["live", "committed", "off"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_has_the_key(name: str, stream: bool, policy: object, caplog: pytest.LogCaptureFixture) -> None:
    """Errors in any form, headers, texts and events; guarded or not."""

    async def test(running: Running) -> None:
        answer = await running.ask(stream=stream, headers={"x-api-key": TOKEN})
        assert running.upstream.exchanges[0].headers["x-api-key"] == KEY
        assert KEY.encode() not in answer.content
        assert KEY not in str(answer.headers)
        assert any(word in answer.text + str(answer.headers) for word in ("*" * len(KEY), "[redacted]"))

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

"""Bodies: read in bounds, and read as everybody reads them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.http.refusals import Refused
from streamguard.proxy.body import KINDS, Asked, inflated, parsed, streaming
from streamguard.request import Request

BODY = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hé"}]}


def test_a_body_is_what_it_says() -> None:
    """The parsed object, and what routes read of it."""
    raw = json.dumps(BODY | {"stream": True}).encode()
    asked = Asked(raw=raw, request=Request.owning(parsed(raw)))
    assert (asked.body, asked.model, asked.streams) == (BODY | {"stream": True}, "m", True)


@pytest.mark.parametrize("name", ["max_tokens", "stream", "tools", "system", "thinking", "output_config"])
def test_null_is_left_out(name: str) -> None:
    """A field that is null is one that is not there; what it means is for the provider to say."""
    assert parsed(json.dumps(BODY | {name: None}).encode())[name] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("model", 5),
            ("model", None),
            ("messages", {}),
            ("messages", None),
            ("max_tokens", "5"),
            ("max_tokens", True),
        ),
        *(("stream", 1), ("tools", "x"), ("system", 3), ("thinking", []), ("output_config", "json")),
    ],
)
def test_a_field_that_we_read_has_its_kind(field: str, value: object) -> None:
    """Else the guards would judge another request than the provider answers."""
    with pytest.raises(Refused, match=field) as caught:
        parsed(json.dumps(BODY | {field: value}).encode())
    assert caught.value.name == "bad_request"


def test_the_clients_bytes_go_upstream_where_they_say_what_is_wanted() -> None:
    """A stream that was asked for, unpatched: byte for byte. Else the same values and `stream: true`."""
    raw = json.dumps(BODY | {"stream": True}, indent=2).encode()
    asked = Asked(raw=raw, request=Request.owning(parsed(raw)))
    assert streaming(asked, dict(asked.body)) is raw
    assert streaming(asked, asked.body) is raw
    assert json.loads(streaming(asked, asked.body | {"max_tokens": 9})) == BODY | {"stream": True, "max_tokens": 9}
    plain = Asked(raw=b"", request=Request(BODY))
    assert streaming(plain, BODY) == (
        '{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hé"}],"stream":true}'.encode()
    )
    half = {**BODY, "system": "\ud83d"}
    assert json.loads(streaming(Asked(raw=b"", request=Request(half)), half)) == half | {"stream": True}


@pytest.mark.parametrize("width", [1, 7, 10_000])
def test_gzip_is_undone_in_any_pieces(width: int) -> None:
    """The same bytes, however they came."""
    body = json.dumps([BODY] * 200).encode()
    packed = gzip.compress(body)
    assert inflated([packed[at : at + width] for at in range(0, len(packed), width)], 100_000) == body


def test_a_bomb_does_not_go_off() -> None:
    """Two hundred megabytes in two hundred kilobytes: refused at the limit, a few megabytes later at the most."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = bytes(10_000_000)
    bomb = [squeeze.compress(block) for _ in range(20)] + [squeeze.flush()]
    tracemalloc.start()
    with pytest.raises(Refused) as caught:
        inflated([b"".join(bomb)], 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.name == "body_too_large"
    assert peak < 8_000_000


@given(body=st.binary(max_size=300), cut=st.integers(1, 20))
def test_a_gzip_body_that_is_cut_is_refused(body: bytes, cut: int) -> None:
    """Wherever: a body that ends before its end mark is none."""
    packed = gzip.compress(body)
    with pytest.raises(Refused):
        inflated([packed[:-cut]], 1000)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(extra=st.dictionaries(st.text().filter(lambda name: name not in KINDS), json_values, max_size=4))
def test_values_are_kept_as_they_are(extra: dict[str, object]) -> None:
    """What nobody here reads goes upstream with the same value."""
    body = {**extra, **BODY}
    read = parsed(json.dumps(body).encode())
    assert json.loads(streaming(Asked(raw=b"", request=Request(read)), read)) == body | {"stream": True}

"""Content codings: every cut of every list gives the body back; what was broken or cut is noticed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.adapters.sse.content_encoding import (
    MAX_CODINGS,
    STEP,
    Decompressor,
    UnreadableEncoding,
    codings,
    decompressor,
)


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACK: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [gzip.compress],
    "X-GZip": [gzip.compress],
    "deflate": [zlib.compress, bare_deflate],
}
NAMES = st.lists(st.sampled_from(sorted(PACK)), min_size=1, max_size=MAX_CODINGS)


def undone(inflate: Decompressor, pieces: Iterable[bytes]) -> bytes | None:
    """Everything that comes out; `None` if it is broken or cut."""
    out = b""
    for piece in pieces:
        inflate.feed(piece)
        while inflate.has_more:
            data = inflate.more()
            if data is None:
                return None
            assert len(data) <= STEP
            out += data
    return None if inflate.cut else out


@given(st.binary(max_size=300), NAMES, st.integers(1, 7), st.booleans())
def test_any_list_in_any_pieces_gives_the_body(body: bytes, names: list[str], width: int, bare: bool) -> None:
    """gzip and deflate, the latter with and without zlib's head, on top of each other."""
    packed = body
    for name in names:
        packed = PACK[name][bare and len(PACK[name]) > 1](packed)
    inflate = decompressor(" , ".join(names))
    assert inflate is not None
    assert undone(inflate, (packed[at : at + width] for at in range(0, len(packed), width))) == body


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_every_cut_is_noticed(name: str) -> None:
    """A body that ends before its compression does is cut, wherever that is."""
    packed = PACK[name][0](b"a body of some length " * 5)
    for at in range(1, len(packed)):
        inflate = decompressor(name)
        assert inflate is not None
        assert undone(inflate, [packed[:at]]) is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("gzip", b"no gzip at all"),
        ("deflate", b"\xff\xff\xff"),
        ("gzip", gzip.compress(b"x") + b"tail"),
        ("deflate", zlib.compress(b"x") + b"tail"),
        ("gzip, gzip", gzip.compress(b"no gzip inside")),
    ],
    ids=["no-gzip", "no-deflate", "gzip-tail", "deflate-tail", "no-inner-gzip"],
)
def test_what_is_broken_is_noticed_once_and_for_all(name: str, data: bytes) -> None:
    """`None`, and then nothing more."""
    inflate = decompressor(name)
    assert inflate is not None
    assert undone(inflate, [data]) is None
    assert not inflate.has_more


def test_a_small_body_of_great_size_comes_in_steps() -> None:
    """Two gzips on top of each other, 64 MiB in less than a kilobyte: a step at a time."""
    bomb = gzip.compress(gzip.compress(bytes(64 * STEP)))
    inflate = decompressor("gzip, gzip")
    assert inflate is not None
    inflate.feed(bomb)
    steps = [len(inflate.more() or b"") for _ in range(3)]
    assert (len(bomb) < 2000, max(steps) <= STEP, inflate.has_more) == (True, True, True)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", ()),
        ("identity", ()),
        ("utf-8, aws-chunked", ()),
        ("GZIP", ("gzip",)),
        ("deflate, identity, x-gzip", ("deflate", "gzip")),
    ],
)
def test_names_are_read_as_http_has_them(header: str, found: tuple[str, ...]) -> None:
    """In any case; what is no compression changes nothing."""
    assert codings(header) == found


@pytest.mark.parametrize(
    ("header", "name"), [("br", "br"), ("gzip, ZSTD", "zstd"), ("compress", "compress"), ("gzip," * 5, "5 codings")]
)
def test_what_cannot_be_undone_is_named(header: str, name: str) -> None:
    """Brotli and Zstandard need libraries; nobody piles codings up in good faith."""
    with pytest.raises(UnreadableEncoding, match=name):
        decompressor(header)

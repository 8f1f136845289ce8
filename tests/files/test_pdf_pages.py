"""Pages of a PDF, at the most."""

from __future__ import annotations

import zlib

import pytest

from streamguard.files.pdf_pages import Pages, pdf_pages

HEADER = b"%PDF-1.7\n"
TREE = b"1 0 obj<</Type/Pages/Count 2/Kids[2 0 R 3 0 R]>>endobj\n"
PAGES = b"2 0 obj<</Type /Page>>endobj\n3 0 obj<</Type/Page/Parent 1 0 R>>endobj\n"


def packed(head: bytes, content: bytes) -> bytes:
    """A stream, packed."""
    return b"9 0 obj<<%s/Filter/FlateDecode>>stream\n%s\nendstream\nendobj\n" % (head, zlib.compress(content))


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        (HEADER + TREE + PAGES, Pages(2, 0)),
        (HEADER + packed(b"/Type/ObjStm", TREE + PAGES), Pages(2, 0)),
        (HEADER + TREE + PAGES + packed(b"", b"BT (hello) Tj ET" * 10), Pages(2, 160)),
        (HEADER + TREE + PAGES + packed(b"/Subtype/Image", b"x" * 999), Pages(2, 0)),
        (HEADER + b"1 0 obj<</Type/P#61ge>>endobj", Pages(1, 0)),
        (HEADER + b"1 0 obj<</Type/Pages/Count 90>>endobj" + PAGES, Pages(90, 0)),
    ],
)
def test_every_way_to_count_is_tried(data: bytes, pages: Pages) -> None:
    """Named pages, declared counts and children, in the file and in its object streams: the most of them counts."""
    assert pdf_pages(data) == pages


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 1000,
        HEADER + b"x" * 18_000,
        HEADER + TREE + PAGES + b"trailer<</Encrypt 5 0 R>>",
        HEADER + b"1 0 obj<</Type/ObjStm/Filter/LZWDecode>>stream\nabc\nendstream endobj" + PAGES,
        HEADER + b"1 0 obj<</Kids[2 0 R 2 0 R]/Count 2>>endobj" + PAGES,
        HEADER + b"1 0 obj<</Kids 7 0 R/Count 2>>endobj" + PAGES,
        HEADER + b"1 0 obj<</Count 7 0 R>>endobj" + PAGES,
    ],
)
def test_a_file_that_hides_pages_says_nothing(data: bytes) -> None:
    """No PDF, an encrypted one, packed in another way, or a tree that shows a page twice or stands elsewhere."""
    assert pdf_pages(data) is None

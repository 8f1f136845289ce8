"""JSON Pointers: written and parsed as RFC 6901 has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.files.json_pointer import Path, parse_pointer, pointer


@pytest.mark.parametrize(
    ("text", "path"), [("", ()), ("/", ("",)), ("/a/0", ("a", "0")), ("/a~1b/~0~01", ("a/b", "~~1"))]
)
def test_pointers(text: str, path: Path) -> None:
    """RFC 6901."""
    assert parse_pointer(text) == path


@pytest.mark.parametrize("text", ["a", "#/a", "/a~", "/~2"])
def test_no_pointers(text: str) -> None:
    """What is none is refused with the rule."""
    with pytest.raises(ValueError, match="is no JSON Pointer"):
        parse_pointer(text)


@given(st.lists(st.text()))
def test_what_is_written_is_parsed(path: list[str]) -> None:
    """Any path survives being written and parsed again."""
    assert parse_pointer(pointer(path)) == tuple(path)

"""Reading configuration files: bounded, and a sentence for whatever cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamguard.files.reading import identity, read_bytes, shipped_policies


def test_one_byte_more_than_the_limit_is_read(tmp_path: Path) -> None:
    """So the caller sees that a file is too large without reading all of it."""
    (tmp_path / "f").write_bytes(b"12345")
    assert (read_bytes(tmp_path / "f", 5), read_bytes(tmp_path / "f", 3)) == (b"12345", b"1234")


@pytest.mark.parametrize(("name", "said"), [("none", "no such file"), (".", "not a file")])
def test_what_cannot_be_read(tmp_path: Path, name: str, said: str) -> None:
    """The answer is a sentence, not an exception."""
    assert read_bytes(tmp_path / name, 10) == said


def test_two_names_of_one_file_have_one_identity(tmp_path: Path) -> None:
    """A link is the file that it leads to."""
    (tmp_path / "f").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    assert identity(tmp_path / "link") == identity(tmp_path / "." / "f")


def test_the_shipped_policies_are_found() -> None:
    """By name, from a checkout and from a wheel."""
    assert {"extraction", "tool_input", "interactive_chat"} <= set(shipped_policies())

"""Did you mean: near names are suggested, others are not."""

from __future__ import annotations

import pytest

from streamguard.files.suggest import did_you_mean

KNOWN = ("first_token", "progress", "total", "max_tokens")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("frist_token", '; did you mean "first_token"?'),
        ("max_token", '; did you mean "max_tokens"?'),
        ("colour", ""),
        ("", ""),
    ],
)
def test_what_is_suggested(name: str, said: str) -> None:
    """A typo is mended, an unknown word is not replaced by a chance likeness."""
    assert did_you_mean(name, KNOWN) == said

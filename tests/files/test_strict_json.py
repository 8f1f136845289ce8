"""The strict reader: what Python's parser takes beyond RFC 8259 is refused, by name."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard.files.strict_json import NotStrict, RepeatedName, is_deeper, loads, unique


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', 'the name "a" stands twice in one object'),
        ('{"x": {"é": 1, "\\u00e9": 1}}', 'the name "é" stands twice in one object'),
        ("NaN", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("1e999", "1e999 is too large for a number"),
        ("1" * 1000 + ".0", "1" * 40 + "… is too large for a number"),
    ],
)
def test_what_is_not_strict(text: str, said: str) -> None:
    """Each is a `NotStrict` with the reason in words."""
    with pytest.raises(NotStrict) as caught:
        loads(text)
    assert str(caught.value) == said


def test_what_is_strict() -> None:
    """Plain JSON is read as `json` reads it."""
    assert loads('{"a": [1, 2.5, "x", null, true], "b": {"a": 1e3}}') == {
        "a": [1, 2.5, "x", None, True],
        "b": {"a": 1000.0},
    }


@pytest.mark.parametrize(
    ("value", "limit", "deeper"), [(1, 0, False), ([], 0, True), ([[]], 2, False), ({"a": [{}]}, 2, True)]
)
def test_depth(value: Any, limit: int, deeper: bool) -> None:
    """Objects and arrays count, scalars do not."""
    assert is_deeper(value, limit) is deeper


def test_finding_a_repeated_name_takes_linear_time() -> None:
    """Of many names the one that stands twice is found by looking at each once."""
    looked = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal looked
            looked += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    pairs: list[tuple[str, Any]] = [(Name(f"n{i}"), i) for i in range(1_000)]
    with pytest.raises(RepeatedName, match='"n999" stands twice'):
        unique([*pairs, (Name("n999"), 0)])
    assert looked < 3_000

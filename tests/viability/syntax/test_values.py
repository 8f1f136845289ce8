"""`viability.values`: finished values of unfinished documents."""

from __future__ import annotations

import json
from typing import Any

import ijson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.files.json_pointer import Path
from streamguard.viability.syntax import values as module
from streamguard.viability.syntax.scanner import SyntaxPrefix
from streamguard.viability.syntax.values import FinishedValues

SURROGATES = st.sampled_from(
    ["\\ud800", "\\udc00", "\\ud83d\\ude00", "\\u0000", "\\u0041", "e12345", "1e9999", "\\\\", "ä", '\\"']
)
STRINGS = st.lists(
    SURROGATES | st.characters(codec="utf-8", min_codepoint=32, exclude_characters='"\\'), max_size=6
).map("".join)
NUMBERS = st.sampled_from(
    ["0", "-0", "-0.0", "1.50", "1E2", "1e400", "-1e-400", "1e99999999999999999999", "12345678901234567890123"]
)
SCALARS = st.sampled_from(["null", "true", "false"]) | NUMBERS | STRINGS.map(lambda text: f'"{text}"')
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[" + " , ".join(items) + "]")
        | st.lists(st.tuples(STRINGS, inner), max_size=4).map(
            lambda members: "{" + ",\n".join(f'"{name}":{value}' for name, value in members) + "}"
        )
    ),
    max_leaves=10,
).filter(lambda text: text[0] in "{[")


def _fed(text: str, wanted: tuple[Path, ...] = ()) -> FinishedValues:
    """A text in single characters, finished tokens at a time, as a guard does it."""
    prefix, values, pushed = SyntaxPrefix(duplicate_names="allow", max_digits=None), FinishedValues(wanted), 0
    for char in text:
        assert prefix.feed(char) is None
        known = prefix.consumed if prefix.token_start is None else prefix.token_start
        values.feed(text[pushed:known])
        pushed = known
    return values


@pytest.fixture(params=["yajl2_c", "python"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parser there is."""
    try:
        parser = ijson.get_backend(request.param)
    except ImportError:
        pytest.skip(f"no {request.param} here")
    monkeypatch.setattr(module, "_backend", lambda: parser)


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS)
def test_values_are_those_of_json_loads(text: str) -> None:
    """Whole or in pieces: equal to `json.loads`, surrogates, zeros, large exponents and repeated names included."""
    whole = FinishedValues()
    whole.feed(text)
    expected = json.dumps(json.loads(text))
    assert [json.dumps(whole.value), json.dumps(_fed(text).value)] == [expected, expected]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


def _leaves(value: Any, at: Path = ()) -> dict[Path, str]:
    """What stands where: values as text, containers by their kind."""
    if isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else enumerate(value)
        inner = (_leaves(item, (*at, str(key))) for key, item in members)
        return {at: type(value).__name__} | {path: leaf for leaves in inner for path, leaf in leaves.items()}
    return {at: repr(value)}


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_what_is_said_of_a_prefix_stays_true(value: Any) -> None:
    """From prefix to prefix values only come, each the one that the whole document has there."""
    text = json.dumps([value])
    whole, before = _leaves([value]), 0
    for end in range(1, len(text) + 1):
        values = FinishedValues()
        values.feed(text[:end])
        known = _leaves(values.value)
        assert known.items() <= whole.items()
        assert len(known) >= before
        before = len(known)
    assert known == whole


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("text", "wanted", "found", "value"),
    [
        ('{"a": 1, "b": [2, {"c": 3}], "d": 4', [("a",)], {("a",): 1}, {"a": 1}),
        ('{"a": 1, "b": [2, {"c": 3}], "d": 4', [("b",)], {("b",): [2, {"c": 3}]}, {"a": 1, "b": [2, {"c": 3}]}),
        ('{"a": 1, "b": [2, {"c": 3}], "d": 4', [("b", "1", "c")], {("b", "1", "c"): 3}, {"a": 1, "b": [2, {"c": 3}]}),
        ('{"a": 1, "b": [2, {"c": 3}], "d": 4', [("d",)], {}, {"a": 1, "b": [2, {"c": 3}]}),
        ('{"a": 1, "a": 2, "b": 3}', [("a",), ("b",)], {("a",): 1, ("b",): 3}, {"a": 2, "b": 3}),
        ('{"0": {"1": "x"}}', [("0", "1")], {("0", "1"): "x"}, {"0": {"1": "x"}}),
        ('{"\\udc00": "\\u0000"} ', [("\udc00",)], {("\udc00",): "\x00"}, {"\udc00": "\x00"}),
        ("[1] ", [()], {(): [1]}, [1]),
        ("[1", [()], {}, []),
        ("", [()], {}, None),
    ],
)
def test_finding_named_values(text: str, wanted: list[Path], found: dict[Path, Any], value: Any) -> None:
    """A value is found when it has finished, not before; nothing after the last one is built."""
    values = _fed(text, tuple(wanted))
    assert (values.found, values.value, values.satisfied) == (found, value, len(found) == len(wanted))


def test_an_integer_of_the_most_digits_is_survived() -> None:
    """The limit of `max_digits` is one that the parser can take."""
    digits = "9" * module.MOST_DIGITS
    values = FinishedValues()
    values.feed(f"[{digits}]")
    assert values.value == [int(digits)]


def test_a_text_that_is_no_json_is_not_judged_here() -> None:
    """The scanner is the judge: where the parser disagrees it goes silent."""
    values = FinishedValues([("b",)])
    values.feed('{"a": 1, "c": ?, ')
    values.feed('"b": 2}')
    assert (values.lost, values.satisfied, values.found) == (True, False, {})

"""Requests: the facts read from a body, and patches on the original."""

from __future__ import annotations

import pytest

from streamguard.request import Request

BODY = {
    "model": "m",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "häh"}, {"role": "assistant", "content": '{"a":'}],
    "tools": [{"name": "t", "input_schema": {"type": "object"}}, {"type": "web_search_1", "name": "web"}],
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "array"}}},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}


def test_facts() -> None:
    """The facts that guards need are read from the body."""
    request = Request(BODY)
    assert (request.model, request.max_tokens, request.prefill, request.thinking) == ("m", 1000, '{"a":', True)
    assert request.tools == {"t": {"type": "object"}}
    assert request.output_schema == {"type": "array"}
    assert request.input_bytes > len('"häh"'.encode())


def test_facts_of_a_bare_request() -> None:
    """What a request does not say is None or empty, never an error."""
    request = Request({"model": "m"})
    assert (request.max_tokens, request.prefill, request.thinking, request.tools) == (None, "", False, {})
    assert request.output_schema is None
    assert request.input_bytes == 0


def test_prefill_of_blocks() -> None:
    """A prefill may be given as text blocks."""
    blocks = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert Request({"messages": [{"role": "assistant", "content": blocks}]}).prefill == "ab"


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"model": "n"}, {"model": "n", "max_tokens": 1000, "m": {"a": 1, "b": 2}}),
        ({"max_tokens": {"multiply": 2}}, {"model": "m", "max_tokens": 2000, "m": {"a": 1, "b": 2}}),
        ({"max_tokens": {"multiply": 20, "max": 8192}}, {"model": "m", "max_tokens": 8192, "m": {"a": 1, "b": 2}}),
        ({"max_tokens": {"multiply": 2, "max": 500}}, {"model": "m", "max_tokens": 1000, "m": {"a": 1, "b": 2}}),
        ({"m": {"b": None, "c": 3}}, {"model": "m", "max_tokens": 1000, "m": {"a": 1, "c": 3}}),
        ({"max_tokens": None, "temperature": 0.2}, {"model": "m", "temperature": 0.2, "m": {"a": 1, "b": 2}}),
        (
            {"model": "n", "extra_body": {"model": "x", "max_tokens": {"multiply": 3}, "m": {"b": None}, "own": [1]}},
            {"model": "x", "max_tokens": 3000, "m": {"a": 1}, "own": [1]},
        ),
        ({"extra_body": None}, {"model": "m", "max_tokens": 1000, "m": {"a": 1, "b": 2}}),
    ],
)
def test_patches(patch: dict, expected: dict) -> None:
    """A patch goes on top of the original: nested, replacing, removing, scaling up to a ceiling that never lowers;
    `extra_body` is no field, what stands in it is."""
    original = Request({"model": "m", "max_tokens": 1000, "m": {"a": 1, "b": 2}})
    assert original.patched(patch).body == expected
    assert original.body == {"model": "m", "max_tokens": 1000, "m": {"a": 1, "b": 2}}


def test_scaling_needs_a_number() -> None:
    """Scaling a field that is not there is a mistake with a name."""
    with pytest.raises(ValueError, match="patch /max_tokens: multiply needs a number in the request, which has None"):
        Request({"model": "m"}).patched({"max_tokens": {"multiply": 2}})


def test_extra_body_needs_a_mapping() -> None:
    """Anything else in place of body fields is a mistake with a name."""
    with pytest.raises(ValueError, match="patch /extra_body: needs a mapping of body fields, not 5"):
        Request({"model": "m"}).patched({"extra_body": 5})


def test_half_an_emoji_can_be_measured() -> None:
    """A lone surrogate is JSON that some writers make: escaped, it has a length like everything else."""
    request = Request({"model": "m", "messages": [{"role": "user", "content": "\ud83d"}]})
    assert request.input_text == '[{"role":"user","content":"\\ud83d"}]'

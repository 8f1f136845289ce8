"""What the tests of one call share: answers in pieces, and calls whose sources are all closed."""

from __future__ import annotations

import pytest

import streamguard
from streamguard import (
    GaveUp,
    JsonDocument,
    Outcome,
    Policy,
    Retry,
    Rule,
)
from streamguard.events import (
    BlockStarted,
    BlockStopped,
    Delta,
    Metered,
    Started,
    Stopped,
    Usage,
)

GOOD = '{"total": 12, "lines": ["a", "b"]}'


BAD = '{"total": 12, "lines" ["a", "b"]}'


AGAIN = Retry(attempts=3, rules=[Rule(when=["*"])])


JSON = JsonDocument(expect="object")


def deltas(text: str, size: int = 4) -> list[list]:
    return [[Delta(0, "text", text[i : i + size])] for i in range(0, len(text), size)]


def head() -> list[list]:
    return [[Started(id="m1", model="m", usage=Usage(input_tokens=10))], [BlockStarted(0, "text", type="text")]]


def tail(stop: str = "end_turn", tokens: int = 9) -> list[list]:
    return [[BlockStopped(0)], [Metered(Usage(output_tokens=tokens), stop_reason=stop)], [Stopped(stop)]]


async def outcome(source, policy: Policy, **kwargs) -> Outcome:
    result = await streamguard.run(source, policy=policy, **kwargs)
    assert source.opened == source.closed
    return result


async def gave_up(source, policy: Policy, kind: type = GaveUp, **kwargs):
    with pytest.raises(kind) as caught:
        await streamguard.run(source, policy=policy, **kwargs)
    assert source.opened == source.closed
    return caught.value

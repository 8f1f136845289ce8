"""Providers that send too much: what a client keeps of it must not grow with it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from streamguard import api
from streamguard.errors import CallError
from streamguard.events import BlockStarted, BlockStopped, Started
from streamguard.guards.caps import Caps
from streamguard.guards.document.guard import JsonDocument
from streamguard.policy.model import Policy
from streamguard.testing import Script, ScriptedSource, faults, repeat, run_virtual, wire
from streamguard.testing.faults import Say
from streamguard.testing.steps import Item
from tests.matrix.configs import PRICES

POLICY = Policy(json=JsonDocument(), caps=Caps(characters=50_000, events=2_000), prices=PRICES)
"""Documents, and the two ceilings that bound what one attempt may keep: characters, and events of any kind."""

Made = Callable[[int], list[Item]]
_SAY = Say()


def _blocks(count: int) -> list[Item]:
    return [
        Started(),
        *([BlockStarted(index, "text", "text"), BlockStopped(index)] for index in range(count)),
    ]


ADVERSARIES: dict[str, Made] = {
    "an endless line": lambda n: [*_SAY.opened(), b"data: ", repeat([b"x" * 65_536], n // 50)],
    "comment lines for ever": lambda n: [*_SAY.opened(), repeat([b": " + b"x" * 1000 + b"\n"], n)],
    "comments for ever": lambda n: [*_SAY.opened(), repeat([b": " + b"x" * 1000 + b"\n\n"], n)],
    "lines without an event": lambda n: [*_SAY.opened(), repeat([b"retry: 1\n"], n)],
    "one event of many lines": lambda n: [*_SAY.opened(), repeat([b"data: " + b"x" * 1000 + b"\n"], n)],
    "pings for ever": lambda n: [*_SAY.opened(), repeat([wire.ping()], n)],
    "events nobody knows": lambda n: [*_SAY.opened(), repeat([wire.frame("new", {"type": "new", "x": "y" * 99})], n)],
    "usage for ever": lambda n: [*_SAY.opened(), repeat([wire.message_delta(None)], n)],
    "signatures for ever": lambda n: [
        *_SAY.start(),
        wire.block_start(0, "thinking"),
        repeat([wire.signature_delta("c2ln" * 20)], n),
    ],
    "blocks without end": _blocks,
    "a text without end": lambda n: [
        *_SAY.opened(),
        *_SAY.pieces('{"a": "'),
        repeat([*_SAY.pieces("abcdefgh" * 8)], n),
    ],
    "brackets without end": lambda n: [*_SAY.opened(), *_SAY.pieces('{"a": '), repeat([wire.text_delta("[" * 64)], n)],
    "digits without end": lambda n: [*_SAY.opened(), *_SAY.pieces('{"a": 1'), repeat([wire.text_delta("2" * 64)], n)],
}


async def _warm() -> None:
    """Load what is loaded at the first call."""
    await api.run(ScriptedSource(Script.of(_SAY.answer()), request=faults.request()), policy=POLICY)


def peak(name: str, count: int, policy: Policy = POLICY) -> tuple[str, int]:
    """How a call ends that meets an adversary, and the most bytes that it had allocated."""
    source = ScriptedSource(Script.of(ADVERSARIES[name](count)), request=faults.request())

    async def main() -> str:
        try:
            await api.run(source, policy=policy)
        except CallError as error:
            return error.reason
        return "accepted"

    run_virtual(_warm)
    tracemalloc.start()
    try:
        reason = run_virtual(main)
        return reason, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

"""Bounded memory and linear time, whatever is sent (I8)."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from streamguard import api
from streamguard.adapters.anthropic.source import messages
from streamguard.errors import CallError
from streamguard.events import BlockStarted, Delta, Started
from streamguard.guards.base import AttemptContext
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.panel import Panel
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.testing import ScriptedServer, encode, faults, repeat, run_virtual
from streamguard.testing.faults import Say
from tests.clients import plain_client
from tests.matrix.adversaries import ADVERSARIES, peak
from tests.matrix.configs import PRICES

MIB = 1 << 20


@pytest.mark.parametrize("name", ADVERSARIES)
def test_what_is_kept_does_not_grow(name: str) -> None:
    """An adversary who sends four times as much makes a client keep no more (within the script's own size)."""
    if name == "an endless line":
        ended, most = peak(name, 4_000)
        assert (ended, most < 8 * MIB) == ("transport.event_too_large", True)
        return
    (ended, few), (_, many) = peak(name, 3_000), peak(name, 12_000)
    own = 5 * MIB if name == "blocks without end" else MIB
    assert many < max(1.3 * few, few + own), f"{few / MIB:.1f} MiB, then {many / MIB:.1f} MiB ({ended})"
    assert many < 40 * MIB


def test_a_bomb_is_inflated_bit_by_bit() -> None:
    """64 MiB of comments in 64 KiB of gzip: read to its end, or to a clock, in bounded memory (F23)."""
    items = [encode("gzip"), *Say().opened(), repeat([b": " + b"0" * 65_534 + b"\n\n"], 1024)]

    async def main(url: str) -> str:
        async with plain_client(url) as client:
            tracemalloc.start()
            try:
                await api.run(messages(client, **faults.request()), policy=Policy(prices=PRICES))
            except CallError as error:
                return error.reason
        return "accepted"

    try:
        with ScriptedServer(items).in_thread() as server:
            reason = run_virtual(main, server.url, grace=0.5)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in ("transport.incomplete", "transport.decode")
    assert most < 24 * MIB


def test_time_is_linear_in_the_document() -> None:
    """Twice the document in the same small pieces takes about twice the time, not four times (F75)."""

    def seconds(pieces: int) -> float:
        panel = Panel(Policy(json=JsonDocument()).panel_guards, AttemptContext(request=Request(faults.request())), 0.0)
        began = time.process_time()
        panel.feed(Started(), 0.0)
        panel.feed(BlockStarted(0, "text"), 0.0)
        assert panel.feed(Delta(0, "text", '{"lines": [0'), 0.0) is None
        for n in range(pieces):
            assert panel.feed(Delta(0, "text", f', "line {n % 97}"'), 0.0) is None
        return time.process_time() - began

    ratios = []
    for _ in range(3):
        few = seconds(10_000)
        ratios.append(seconds(20_000) / few)
    assert min(ratios) < 3.0

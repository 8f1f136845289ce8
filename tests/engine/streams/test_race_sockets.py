"""A race with the SDK's own client over real sockets: the loser's connection ends, the winner's answer is whole."""

from __future__ import annotations

import anyio
import pytest

import streamguard
from streamguard import Policy, Retry, Rule, Runtime
from streamguard.pace.hedge import HedgeSpec
from streamguard.testing import BACKENDS, ScriptedServer, pause, wire
from tests.clients import plain_client

HEDGE = HedgeSpec(medians=1)
POLICY = Policy(hedge=HEDGE, retry=Retry(attempts=2, rules=[Rule(when=["*"])]))
SLOW = [*wire.text_stream("slow")[:3], pause(5.0), *wire.text_stream("slow")[3:]]
FAST = wire.text_stream("fast")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("silent", ["no head", "no output"])
def test_the_first_of_two_connections_is_left(silent, backend) -> None:
    """Whether the first request has a response head yet or not, the second one answers, and the first is hung up."""
    slow = [pause(5.0), *FAST] if silent == "no head" else SLOW

    async def main() -> None:
        runtime = Runtime()
        hedges = runtime.hedges(HEDGE, wire.MODEL)
        assert hedges is not None
        for _ in range(200):
            hedges.began()
            hedges.first_token(0.1)
        async with ScriptedServer(slow, FAST) as server, plain_client(server.url) as client:
            source = streamguard.messages(
                client, model=wire.MODEL, max_tokens=100, messages=[{"role": "user", "content": "x"}]
            )
            outcome = await streamguard.run(source, policy=POLICY, runtime=runtime)
            assert [(one.number, one.reason, one.hedge) for one in outcome.attempts] == [
                (1, "hedge.lost", None),
                (2, None, "won"),
            ]
            assert (outcome.text, len(server.exchanges)) == ("fast", 2)
            with anyio.fail_after(2):
                while any(one.open for one in server.exchanges):  # noqa: ASYNC110  the server sets no event
                    await anyio.sleep(0.01)

    anyio.run(main, backend=backend)

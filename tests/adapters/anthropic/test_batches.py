"""Message Batches through the SDK's own client, over sockets, against a server that speaks them."""

from __future__ import annotations

import functools
import time

import anthropic
import anyio
import pytest

from streamguard.adapters.anthropic.batches import BatchState, MessageBatches
from streamguard.source import SourceFailed
from streamguard.testing import BACKENDS, ScriptedServer, answer
from streamguard.testing.batches import BatchProvider


def provider(**options) -> BatchProvider:
    """A provider whose batches end at once."""
    return BatchProvider(
        lambda params, number: {"type": "errored", "error": {"type": "error", "error": {"type": "api_error"}}},
        seconds=options.pop("seconds", 0.0),
        epoch=time.time() - time.monotonic(),
        **options,
    )


def request(name: str) -> dict:
    """A request of a batch."""
    params = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": name}]}
    return {"custom_id": name, "params": params}


def talk(batches: BatchProvider, talks, backend: str = "asyncio"):
    """What comes of talking to a desk of the provider's."""

    async def main():
        async with (
            ScriptedServer(answer("{}"), batches=batches) as server,
            anthropic.AsyncAnthropic(api_key="x", base_url=server.url, max_retries=2) as client,
        ):
            return await talks(MessageBatches(client))

    with_timeout = functools.partial(_bounded, main)
    return anyio.run(with_timeout, backend=backend)


async def _bounded(main):
    with anyio.fail_after(20):
        return await main()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_is_submitted_looked_at_and_read(backend) -> None:
    """The five requests, as the API describes them."""

    async def talks(desk):
        made = await desk.create([request("a"), request("b")])
        seen = await desk.retrieve(made.id)
        listed = [one async for one in desk.since(0.0)]
        none = [one async for one in desk.since(made.created + 60)]
        lines = [line async for line in desk.results(made.id)]
        return made, seen, listed, none, sorted(lines)

    made, seen, listed, none, lines = talk(provider(), talks, backend)
    counts = {"processing": 0, "succeeded": 0, "errored": 2, "canceled": 0, "expired": 0}
    assert made == BatchState(id="msgbatch_000001", status="ended", created=made.created, counts=counts)
    assert (seen, listed, none, made.total) == (made, [made], [], 2)
    assert [line[:18] for line in lines] == [b'{"custom_id": "a",', b'{"custom_id": "b",']


def test_lists_of_more_than_one_page_are_read() -> None:
    """As many pages as it takes."""

    async def talks(desk):
        for at in range(205):
            desk_provider.create([request(str(at))], time.monotonic())
        return [one.id async for one in desk.since(0.0)]

    desk_provider = provider()
    found = talk(desk_provider, talks)
    assert found == [f"msgbatch_{number:06}" for number in range(205, 0, -1)]


@pytest.mark.parametrize(
    ("fault", "reason", "billable", "made"),
    [
        pytest.param("lost", "transport.reset", True, 0, id="never arrived"),
        pytest.param("unheard", "transport.reset", True, 1, id="answer lost"),
        pytest.param("cut", "transport.reset", True, 1, id="answer cut"),
        pytest.param(500, "provider.api_error", True, 0, id="500"),
        pytest.param(429, "provider.rate_limited", False, 0, id="429"),
        pytest.param(529, "provider.overloaded", False, 0, id="529"),
        pytest.param(404, "provider.not_found", False, 0, id="404"),
        pytest.param(401, "provider.authentication", False, 0, id="401"),
    ],
)
def test_a_failed_submission_says_whether_it_may_have_been_taken(fault, reason, billable, made) -> None:
    """It is asked once, whatever the client's own retries are."""

    async def talks(desk):
        with pytest.raises(SourceFailed) as failed:
            await desk.create([request("a")])
        return failed.value.failed

    batches = provider(faults={"create": [fault]})
    failed = talk(batches, talks)
    assert (failed.reason, failed.billable, len(batches.batches)) == (reason, billable, made)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_that_break_off_say_so(backend) -> None:
    """What came of them is given."""

    async def talks(desk):
        made = await desk.create([request(str(at)) for at in range(50)])
        lines = []
        with pytest.raises(SourceFailed) as failed:
            async for line in desk.results(made.id):
                lines.append(line)
        return lines, failed.value.failed.reason

    lines, reason = talk(provider(faults={"results": ["cut"]}), talks, backend)
    assert reason == "transport.reset"
    assert 20 <= len(lines) < 50


def test_results_of_a_batch_that_runs_are_refused() -> None:
    """In a typed error, with the SDK's words."""

    async def talks(desk):
        made = await desk.create([request("a")])
        with pytest.raises(SourceFailed) as failed:
            async for _ in desk.results(made.id):
                pass
        canceled = await desk.cancel(made.id)
        return failed.value.failed.message, canceled.status

    message, status = talk(provider(seconds=1000.0), talks)
    assert "results_url" in message
    assert status == "canceling"

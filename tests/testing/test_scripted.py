"""A provider in memory."""

from __future__ import annotations

import math

import anyio
import pytest

import streamguard.testing as kit
from streamguard.events import Delta, Failed, Ping, Stopped, Usage
from streamguard.request import Request
from streamguard.source import Attempt, SourceFailed
from streamguard.testing import answer, pause, script, stall, status, tool_answer, wire

A = Delta(0, "text", "a")


async def batches(source, number=1, request=None, most=math.inf):
    """What an attempt says, batch by batch, with the time of each; up to `most` batches."""
    said = []
    async with source.open(Attempt(number=number, request=request or source.request, deadline=math.inf)) as stream:
        async for batch in stream:
            said.append((anyio.current_time(), list(batch)))
            if len(said) >= most:
                break
    return said


async def events(source, number=1):
    """What an attempt says."""
    return [event for _, batch in await batches(source, number) for event in batch]


def test_answer(run_virtual):
    """A good answer comes event by event, and ends."""
    assert run_virtual(events, script(answer("hello"))) == answer("hello")
    assert answer("hello")[-1] == Stopped("end_turn")
    assert run_virtual(events, script(tool_answer("t", "{}"))) == tool_answer("t", "{}")


def test_batches_and_pauses(run_virtual):
    """A list is a batch; a pause passes before what follows it."""
    source = script([[A, A], pause(2.5), A, kit.send(b": comment\n\n"), pause(1)])
    assert run_virtual(batches, source) == [(0.0, [A, A]), (2.5, [A]), (2.5, [])]
    blind = script([[A, Ping()], Ping(), A, kit.send(b": comment\n\n")], sees_bytes=False)
    assert run_virtual(batches, blind) == [(0.0, [A]), (0.0, [A])]


def test_pause_before_the_head(run_virtual):
    """What stands before `status` happens while the attempt opens."""

    async def main():
        source = script([pause(3), status(200), pause(4), A])
        async with source.open(Attempt(number=1, request=None, deadline=math.inf)) as stream:
            opened = anyio.current_time()
            await stream.__anext__()
            return opened, anyio.current_time(), source.exchanges[0].head_at

    assert run_virtual(main) == (3.0, 7.0, 3.0)


def test_attempts_in_order_and_by_number(run_virtual):
    """Each attempt has its script; the last one goes on, and numbers go before."""
    source = script([A], [A, A], kit.on_attempt(3, [A, A, A]))
    assert [len(run_virtual(events, source, number)) for number in (1, 2, 3, 4, 5)] == [1, 2, 3, 2, 2]
    with pytest.raises(LookupError, match="says nothing about attempt 1"):
        run_virtual(events, script(kit.on_attempt(2, A)))
    with pytest.raises(ValueError, match="at least one attempt"):
        script()
    with pytest.raises(ValueError, match="a number twice"):
        script(kit.on_attempt(2, A), kit.on_attempt(2, A))


REFUSED = Failed(reason="provider.rate_limited", message="slow", type="rate_limit_error", status=429, billable=False)


@pytest.mark.parametrize(
    ("first", "failed"),
    [
        (REFUSED, REFUSED),
        (SourceFailed(REFUSED), REFUSED),
        (
            kit.error("overloaded_error", "busy", headers={"Retry-After": "7", "request-id": "r"}),
            Failed(
                reason="provider.overloaded",
                message="busy",
                type="overloaded_error",
                status=529,
                retry_after=7.0,
                request_id="r",
                billable=False,
            ),
        ),
        (
            status(502, body="<html>bad gateway</html>"),
            Failed(reason="provider.api_error", message="<html>bad gateway</html>", status=502),
        ),
        (
            status(200, {"content-type": "text/html"}, "<html>"),
            Failed(
                reason="transport.decode",
                message="the response is no event stream but text/html: '<html>'",
                status=200,
            ),
        ),
        (
            [kit.rst(), status()],
            Failed(reason="transport.reset", message="the connection ended before the response head"),
        ),
    ],
)
def test_no_stream(run_virtual, first, failed):
    """Whatever keeps a stream from opening is raised as the failure it is, and the attempt is over."""
    source = script(first)
    with pytest.raises(SourceFailed) as caught:
        run_virtual(events, source)
    assert caught.value.failed == failed
    assert (source.opened, source.closed) == (1, 1)
    assert source.billed[0].output_tokens == 0


@pytest.mark.parametrize("items", [LookupError("x"), [status(), LookupError("x")], [A, LookupError("x")]])
def test_exceptions_are_raised(run_virtual, items):
    """An exception in a script comes out where it stands, once, and closes the attempt."""
    source = script(items)
    with pytest.raises(LookupError, match="x"):
        run_virtual(events, source)
    assert (source.opened, source.closed) == (1, 1)


WORDED = Failed(reason="provider.api_error", message="x", type="api_error", status=200)
BROKEN = Failed(reason="transport.reset", message="the connection was reset", status=200)
SHORT = Failed(reason="transport.reset", message="the connection closed before the body was complete", status=200)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([A, kit.rst()], [A, BROKEN]),
        ([A, kit.fin()], [A, SHORT]),
        ([A, kit.half_close()], [A, SHORT]),
        ([kit.omit_last_chunk(), A], [A, SHORT]),
        ([status(framing="eof"), A, kit.fin()], [A]),
        ([status(framing="eof"), kit.omit_last_chunk(), A], [A]),
        ([status(framing="eof"), A, kit.rst()], [A, BROKEN]),
        ([A, BROKEN, A], [A, BROKEN]),
        ([A, Stopped(), kit.rst()], [A, Stopped()]),
        ([kit.event("error", wire.error_body("api_error", "x"))], [WORDED]),
    ],
)
def test_ends(run_virtual, items, said):
    """How a connection ends is told as a real one tells it; after the message's own end it does not matter."""
    assert run_virtual(events, script(items)) == said


def test_wire_steps_are_decoded(run_virtual):
    """Bytes go through the decoder and the translator; a frame may come in pieces."""
    source = script([kit.split(every=30), wire.text_stream("hello", usage={"input_tokens": 12, "output_tokens": 2})])
    said = [event for event in run_virtual(events, source) if not isinstance(event, Ping)]
    assert said == answer("hello")


@pytest.mark.parametrize("cut", [0, 9])
def test_gzip(run_virtual, cut):
    """A compressed body is read as it comes; without its trailer it ends like any other."""
    frames = wire.text_stream("hello")
    assert run_virtual(events, script([kit.encode("gzip", cut=cut), frames])) == run_virtual(events, script(frames))


def test_large_events(run_virtual):
    """An event over the bound is a failure, after what came before it."""
    source = script([wire.encode(A) + wire.text_delta("x" * 300)], max_event_bytes=200)
    *before, failed = run_virtual(events, source)
    assert before == [A]
    assert failed.reason == "transport.event_too_large"


def test_chunkings(run_virtual):
    """Every way to cut a script gives the same text; whole events survive all but the cuts of deltas."""
    for source in (script(answer("Grüße")), script(wire.text_stream("Grüße"))):
        names = []
        for name, cut in kit.chunkings(source, seeds=(5,)):
            names.append(name)
            said = run_virtual(events, cut)
            assert "".join(event.text for event in said if isinstance(event, Delta)) == "Grüße"
            assert (cut.opened, cut.closed, cut.request) == (1, 1, source.request)
        assert names == ["whole", "event", "byte", "seed 5"]
        assert source.opened == 0


def test_requests(run_virtual):
    """Bodies are recorded as patched; a source may be opaque, or have a request of its own."""
    source = script(answer("x"), request={"model": "m", "max_tokens": 3})
    assert source.request == Request({"model": "m", "max_tokens": 3})
    run_virtual(batches, source, 1)
    run_virtual(batches, source, 2, source.request.patched({"max_tokens": 4}))
    assert source.requests == [{"model": "m", "max_tokens": 3}, {"model": "m", "max_tokens": 4}]
    assert [one.number for one in source.exchanges] == [1, 2]
    opaque = script(answer("x"), request=None)
    run_virtual(batches, opaque)
    assert (opaque.request, opaque.requests) == (None, [None])


def test_stall_is_cancelled(run_virtual):
    """A stall ends by cancellation only, and the stream with it."""
    source = script([A, stall()])

    async def main():
        async with source.open(Attempt(number=1, request=None, deadline=math.inf)) as stream:
            said = [await stream.__anext__()]
            with anyio.move_on_after(3600) as scope:
                await stream.__anext__()
            assert scope.cancelled_caught
            said += [batch async for batch in stream]
            return said, anyio.current_time(), source.closed

    assert run_virtual(main) == ([(A,)], 3600.0, 0)
    (exchange,) = source.exchanges
    assert (exchange.closed_at, exchange.disconnected_at, exchange.complete) == (3600.0, 3600.0, False)


def test_opening_is_cancelled(run_virtual):
    """A cancelled open leaves nothing open."""
    source = script([stall(), status()])

    async def main():
        with anyio.move_on_after(5):
            await events(source)

    run_virtual(main)
    assert (source.opened, source.closed, source.exchanges[0].disconnected_at) == (1, 1, 5.0)


def test_an_endless_answer_yields(run_virtual):
    """An answer without end and without pauses lets other tasks run, and can be cancelled."""

    async def main():
        source = script(kit.repeat(A))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events, source)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        return source

    source = run_virtual(main)
    assert source.exchanges[0].deltas_sent > 5
    assert source.closed == 1


def test_expect_disconnect(run_virtual):
    """A client that stays is a violation, one that leaves is not."""
    source = script([A, kit.expect_disconnect(2), A])
    assert run_virtual(batches, source) == [(0.0, [A]), (2.0, [A])]
    assert source.violations == ["attempt 1: the client was still there after 2 s"]
    run_virtual(batches, source, 1, None, 1)
    assert len(source.violations) == 1


def test_message(run_virtual):
    """The provider's own message is kept where asked for."""

    async def main(source):
        async with source.open(Attempt(number=1, request=None, deadline=math.inf)) as stream:
            async for _ in stream:
                pass
            return stream.message()

    assert run_virtual(main, script(answer("hello"))) is None
    message = run_virtual(main, script(answer("hello"), messages=True))
    assert (message["content"], message["stop_reason"]) == ([{"type": "text", "text": "hello"}], "end_turn")


def test_raw_is_for_sockets(run_virtual):
    """What has no meaning in memory says so."""
    with pytest.raises(ValueError, match=r"raw\(\) is for sockets"):
        run_virtual(events, script([status(), kit.raw(b"x")]))
    with pytest.raises(ValueError, match="before the response head"):
        run_virtual(events, script(kit.raw(b"x")))


def test_pace_is_a_schedule(run_virtual):
    """Paced items come at their own times, and catch up after a slow consumer."""

    async def main():
        times = []
        source = script([kit.pace(10), kit.repeat(A, 6)])
        async with source.open(Attempt(number=1, request=None, deadline=math.inf)) as stream:
            async for _ in stream:
                times.append(round(anyio.current_time(), 9))
                if len(times) == 2:
                    await anyio.sleep(0.25)
        return times

    assert run_virtual(main) == [0.0, 0.1, 0.35, 0.35, 0.4, 0.5]


TEN = [kit.repeat(A, 10)]


@pytest.mark.parametrize(
    ("items", "most", "output"),
    [
        (TEN, 4, 4),
        (TEN, math.inf, 10),
        ([kit.truth(lag=3), *TEN], 4, 7),
        ([kit.truth(lag=30), *TEN], 4, 10),
        ([kit.truth(output=50), *TEN], 4, 20),
        ([kit.truth(output=50, lag=3), *TEN], 4, 23),
        ([kit.truth(output=50), *TEN], math.inf, 50),
        ([kit.truth(output=50, stops=False), *TEN], 1, 50),
        ([kit.truth(stops=False), *TEN], 1, 10),
        ([kit.truth(lag=5), kit.repeat(A)], 4, 9),
        ([kit.truth(stops=False), kit.repeat(A)], 4, 1024),
        (answer("x" * 40, usage=Usage(input_tokens=12, output_tokens=25)), 7, 13),
    ],
)
def test_bills(run_virtual, items, most, output):
    """What is billed: tokens of what was sent, plus what is made until the disconnect is noticed, up to the whole."""
    source = script(items)
    run_virtual(batches, source, 1, None, most)
    assert source.billed == [kit.Bill(input_tokens=12, output_tokens=output)]


def test_bill_of_everything(run_virtual):
    """Input and cache are billed as the truth says; bills add up."""
    source = script([kit.truth(5, 7, cache_read=2, cache_write=3), A])
    run_virtual(events, source)
    run_virtual(events, source)
    assert kit.total(source.billed) == kit.Bill(
        input_tokens=10, output_tokens=14, cache_read_tokens=4, cache_write_tokens=6
    )
    assert source.billed[0].usage == Usage(input_tokens=5, output_tokens=7, cache_read_tokens=2, cache_write_tokens=3)
    refused = script([kit.truth(input=9), kit.error()])
    with pytest.raises(SourceFailed):
        run_virtual(events, refused)
    assert refused.billed == [kit.Bill(input_tokens=9)]

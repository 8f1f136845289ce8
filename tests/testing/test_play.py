"""Steps as operations."""

from __future__ import annotations

import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamguard.testing as kit
from streamguard.events import BlockStarted, Delta, Failed, Metered, Ping, Started, Usage
from streamguard.source import SourceFailed
from streamguard.testing import wire
from streamguard.testing.play import (
    Anchor,
    Due,
    Emit,
    Expect,
    Facts,
    Gathering,
    Head,
    Raise,
    Stop,
    Verbatim,
    Wait,
    Write,
    facts,
    operations,
)
from streamguard.testing.steps import as_items

A = Delta(0, "text", "a")
FRAME = wire.encode(A)


def ops(*items, sockets=True, chunk=None, seed=0):
    """All operations of an attempt."""
    return list(operations(as_items(items), sockets=sockets, chunk=chunk, seed=seed))


RESET = Failed(reason="transport.reset", message="gone")
OVERLOADED = Failed(
    reason="provider.overloaded", message="busy", type="overloaded_error", retry_after=3, request_id="r"
)


X, Y = Write(b"x"), Write(b"y")
CUT = Failed(reason="transport.incomplete", message="")
SAME = {
    "nothing": ([], [Head(), Stop("end")]),
    "bytes": ([b"x"], [Head(), X, Stop("end")]),
    "fin": ([kit.fin(), A], [Head(), Stop("fin")]),
    "rst": ([kit.rst()], [Head(), Stop("rst")]),
    "half_close": ([kit.half_close()], [Head(), Stop("half_close")]),
    "omit_last_chunk": ([kit.omit_last_chunk(), b"x"], [Head(), X, Stop("cut")]),
    "expect_disconnect": ([kit.expect_disconnect(2)], [Head(), Expect(2), Stop("end")]),
    "repeat": ([kit.repeat(b"x", 2)], [Head(), X, X, Stop("end")]),
    "nested": (
        [kit.repeat([kit.repeat(b"x", 2), kit.pause(1)], 2)],
        [Head(), X, X, Wait(1), X, X, Wait(1), Stop("end")],
    ),
    "split every": (
        [kit.split(every=2), b"abx", kit.split(), b"abc"],
        [Head(), Write(b"ab"), X, Write(b"abc"), Stop("end")],
    ),
    "split at": ([kit.split(offsets=[3, 1, 9]), b"xbcy"], [Head(), X, Write(b"bc"), Y, Stop("end")]),
    "slow drip": ([kit.drip(2), b"xy"], [Head(), X, Wait(0.5), Y, Wait(0.5), Stop("end")]),
    "fast drip": ([kit.drip(100), b"abcdex"], [Head(), Write(b"abcde"), Wait(0.05), X, Wait(0.01), Stop("end")]),
    "pace": (
        [kit.pace(4), b"x", b"y", kit.pace(None), b"x"],
        [Head(), Anchor(), Due(0), X, Due(0.25), Y, Anchor(), X, Stop("end")],
    ),
    "gather": ([kit.gather(9), b"x"], [Head(), Gathering(9), X, Stop("end")]),
    "raw": ([kit.raw(b"x")], [Verbatim(b"x"), Stop("end")]),
    "late raw": ([kit.truth(1, 2), kit.pause(1), kit.raw(b"x")], [Wait(1), Verbatim(b"x"), Stop("end")]),
}
DIFFERENT = {
    "event": ([A], [Head(), Emit((A,)), Stop("end")], [Head(), Write(FRAME, 1), Stop("end")]),
    "batch": ([[A, A]], [Head(), Emit((A, A)), Stop("end")], [Head(), Write(FRAME * 2, 2), Stop("end")]),
    "before the head": (
        [kit.pause(1), kit.status(), A],
        [Wait(1), Head(), Emit((A,)), Stop("end")],
        [Wait(1), Head(), Write(FRAME, 1), Stop("end")],
    ),
    "reset": (
        [A, RESET, A],
        [Head(), Emit((A,)), Emit((RESET,)), Stop("end")],
        [Head(), Write(FRAME, 1), Stop("rst")],
    ),
    "incomplete": ([[A, CUT]], [Head(), Emit((A, CUT)), Stop("end")], [Head(), Write(FRAME, 1), Stop("end")]),
    "failed": (
        [kit.status(), OVERLOADED],
        [Head(), Emit((OVERLOADED,)), Stop("end")],
        [Head(), Write(wire.encode(OVERLOADED)), Stop("end")],
    ),
    "body": ([kit.status(200, body="hi")], [Head(body=b"hi"), Stop("end")], [Head(body=b"hi"), Stop("end")]),
}


@pytest.mark.parametrize("name", SAME)
def test_operations(name):
    """What each step does, the same in memory and over sockets."""
    items, expected = SAME[name]
    assert ops(*items, sockets=False) == expected
    assert ops(*items) == expected


@pytest.mark.parametrize("name", DIFFERENT)
def test_operations_of_events(name):
    """What neutral events do: handed out in memory, frames over sockets."""
    items, memory, sockets = DIFFERENT[name]
    assert ops(*items, sockets=False) == memory
    assert ops(*items) == sockets


def test_early_failure_is_raised_in_memory():
    """A failure that comes first is the source's own error; a broken connection is broken before the head."""
    (op,) = ops(RESET, sockets=False)
    assert isinstance(op, Raise)
    assert isinstance(op.error, SourceFailed)
    assert op.error.failed is RESET
    assert ops(RESET) == [Stop("rst")]


def test_exceptions():
    """An exception is raised in memory, before the head if it comes first; over sockets it is a reset."""
    error = LookupError("x")
    assert ops(error, sockets=False) == [Raise(error)]
    assert ops(A, error, sockets=False) == [Head(), Emit((A,)), Raise(error), Stop("end")]
    assert ops(error) == [Stop("rst")]
    assert ops(A, error) == [Head(), Write(FRAME, 1), Stop("rst")]


def test_early_failure_is_an_error_response():
    """A failure that comes first is the response: its status, headers and body."""
    head, stop = ops(OVERLOADED)
    assert stop == Stop("end")
    assert (head.code, dict(head.headers)) == (
        529,
        {"content-type": "application/json", "retry-after": "3", "request-id": "r"},
    )
    assert head.body == b'{"type": "error", "error": {"details": null, "type": "overloaded_error", "message": "busy"}}'


@pytest.mark.parametrize("cut", [0, 3, 8, 10_000])
def test_gzip(cut):
    """The body is one gzip stream whose pieces can be read at once; its last bytes can be missing."""
    frames = [wire.text_delta(str(number)) for number in range(20)]
    made = ops(kit.encode("gzip", cut=cut), *frames)
    assert made[0] == Head(headers=(("content-encoding", "gzip"),))
    writes = [op for op in made if isinstance(op, Write)]
    assert sum(op.deltas for op in writes) == 20
    whole = b"".join(op.data for op in ops(kit.encode("gzip"), *frames) if isinstance(op, Write))
    packed = b"".join(op.data for op in writes)
    assert packed == whole[: max(0, len(whole) - cut)]
    inflate = zlib.decompressobj(wbits=31)
    read = [inflate.decompress(op.data) for op in writes if op.data]
    if cut == 0:
        assert read == [*frames, b""]
    assert b"".join(frames).startswith(b"".join(read))
    assert inflate.eof == (cut == 0)


def test_facts():
    """Deltas, usage and truth are known before the script is played."""
    truth = kit.truth(input=7, output=9, lag=2)
    assert facts(as_items([*kit.answer("abcdefgh"), truth])) == Facts(
        truth=truth, coding=None, has_status=False, deltas=2, input_tokens=12, output_tokens=2
    )
    assert facts(as_items(wire.text_stream("abcdefgh", usage={"output_tokens": 5}))) == Facts(
        truth=None, coding=None, has_status=False, deltas=2, input_tokens=12, output_tokens=5
    )
    endless = [kit.status(), Started(), kit.repeat([A, Ping()]), Metered(Usage(output_tokens=3))]
    assert facts(as_items(endless)) == Facts(
        truth=None, coding=None, has_status=True, deltas=None, input_tokens=None, output_tokens=3
    )
    assert facts(as_items([kit.repeat([A, kit.repeat([[A, A]], 3)], 2)])).deltas == 14


def test_endless_scripts_are_lazy():
    """A script without an end can be played, cut in every way."""
    for chunk in (None, "whole", "event", "byte", 3):
        for sockets in (False, True):
            made = operations(as_items(kit.repeat([A])), sockets=sockets, chunk=chunk)
            assert len(list(itertools.islice(made, 50))) == 50


BODY = kit.answer("Grüße, 世界!", thinking="hm")
WIRE = wire.text_stream("Grüße, 世界!", style=wire.REAL)


@pytest.mark.parametrize("chunk", ["whole", "event", "byte", 1, 2, 3])
@pytest.mark.parametrize("body", [BODY, WIRE, [kit.split(every=7), *WIRE]], ids=["events", "bytes", "split"])
def test_chunks_carry_the_same_bytes(body, chunk):
    """However the stream is cut, its bytes and its number of deltas are the same."""
    whole, made = ops(*body), ops(*body, chunk=chunk)
    for of in (whole, made):
        assert (of[0], of[-1]) == (Head(), Stop("end"))
    joined = b"".join(op.data for op in whole[1:-1])
    assert b"".join(op.data for op in made[1:-1]) == joined
    assert sum(op.deltas for op in made[1:-1]) == sum(op.deltas for op in whole[1:-1])
    sizes = {"whole": 1, "event": joined.count(b"\n\n"), "byte": len(joined)}
    assert len(made) - 2 == sizes.get(chunk, len(made) - 2) > 0


def test_chunks_of_events():
    """In memory, events come all at once, one by one, or with deltas of one character; pauses stay where they are."""
    events = [BlockStarted(0, "text"), Delta(0, "text", "ab"), Ping()]
    items = [*events, kit.pause(1), A]
    assert ops(*items, sockets=False, chunk="whole") == [Head(), Emit(tuple(events)), Wait(1), Emit((A,)), Stop("end")]
    assert ops(*items, sockets=False, chunk="event") == [
        Head(),
        *(Emit((event,)) for event in events),
        Wait(1),
        Emit((A,)),
        Stop("end"),
    ]
    assert ops(*items, sockets=False, chunk="byte")[2:4] == [Emit((A,)), Emit((Delta(0, "text", "b"),))]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31), attempt=st.integers(1, 9))
def test_random_cuts(seed, attempt):
    """A seed cuts anywhere, the same way each time, and loses nothing."""
    made = ops(*BODY, sockets=False, chunk=seed, seed=attempt)
    assert made == ops(*BODY, sockets=False, chunk=seed, seed=attempt)
    events = [event for op in made if isinstance(op, Emit) for event in op.events]
    for kind in ("text", "thinking"):
        assert "".join(e.text for e in events if isinstance(e, Delta) and e.kind == kind) == "".join(
            e.text for e in BODY if isinstance(e, Delta) and e.kind == kind
        )
    assert [e for e in events if not isinstance(e, Delta)] == [e for e in BODY if not isinstance(e, Delta)]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31))
def test_random_splits(seed):
    """The same for `split(seed=…)`."""
    made = [op.data for op in ops(kit.split(seed=seed), *WIRE) if isinstance(op, Write)]
    assert b"".join(made) == b"".join(WIRE)
    assert len(made) > len(WIRE)
    assert max(map(len, made)) <= 40

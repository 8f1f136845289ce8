"""The vocabulary of scripts."""

from __future__ import annotations

import json

import pytest

import streamguard.testing as kit
from streamguard.events import Delta, Ping, Restarted
from streamguard.testing import steps
from streamguard.testing.steps import Pause, Repeat, Send, Status, as_items

A, B = Delta(0, "text", "a"), Delta(0, "text", "b")


@pytest.mark.parametrize(
    ("items", "flat"),
    [
        (A, (A,)),
        (b"x", (b"x",)),
        ([A, B], (A, B)),
        ([[A, B], A], ((A, B), A)),
        ([(A,)], ((A,),)),
        ([[b"x", b"y"], A], (b"x", b"y", A)),
        ([[b"x", [A, B]]], (b"x", (A, B))),
        ([kit.pause(1), [kit.fin(), A]], (kit.pause(1), kit.fin(), A)),
        ([], ()),
        ((item for item in (A, B)), (A, B)),
    ],
)
def test_items_are_flat_but_for_batches(items, flat):
    """Lists of events are batches and stay; any other list is spliced in."""
    assert as_items(items) == flat


@pytest.mark.parametrize(
    "items", ["text", 3, [A, "text"], [None], [kit.on_attempt(1, A)], Restarted(2), [[A, Restarted(2)]]]
)
def test_what_no_attempt_is_made_of(items):
    """Anything else is refused when the script is written."""
    with pytest.raises(TypeError, match="attempt is made of"):
        as_items(items)


def test_status_of_an_error_has_its_body():
    """A bare error status gets the body that belongs to it; others do not."""
    step = kit.status(529, {"retry-after": "3"})
    assert (step.code, dict(step.headers)) == (529, {"retry-after": "3", "content-type": "application/json"})
    assert json.loads(step.body or b"") == kit.wire.error_body("overloaded_error", "Overloaded")
    assert json.loads(kit.status(503).body or b"")["error"]["type"] == "api_error"
    assert kit.status(200) == Status()
    assert kit.status(200, body="<html>").body == b"<html>"


def test_error_has_the_status_of_its_type():
    """An error response knows its status, and may carry a code."""
    step = kit.error("rate_limit_error", "later", code="enforced_spend_limit_reached")
    assert step.code == 429
    assert json.loads(step.body or b"")["error"] == {
        "details": {"error_code": "enforced_spend_limit_reached"},
        "type": "rate_limit_error",
        "message": "later",
    }


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: kit.split(every=3, seed=1), "one of every"),
        (lambda: kit.split(every=0), "at least one byte"),
        (lambda: kit.pause(-1), "0 seconds or longer"),
        (lambda: kit.pause(float("nan")), "0 seconds or longer"),
        (lambda: kit.drip(0), "drip needs a rate above 0"),
        (lambda: kit.pace(-1), "pace needs a rate above 0"),
        (lambda: kit.repeat([]), "something to repeat"),
    ],
)
def test_mistakes_are_told_where_they_are_made(write, message):
    """A step that makes no sense is refused where it is written."""
    with pytest.raises(ValueError, match=message):
        write()


def test_steps_are_values():
    """Steps compare, and say what they are."""
    assert kit.sleep(3) == Pause(seconds=3)
    assert kit.sleep is kit.pause
    assert kit.stall() == Pause(seconds=float("inf"))
    assert kit.send([b"a", b"b"]) == Send(data=b"ab")
    assert kit.event("ping", {"type": "ping"}) == Send(data=b'event: ping\ndata: {"type":"ping"}\n\n')
    assert kit.repeat(Ping(), 3) == Repeat(items=(Ping(),), times=3)


def test_public_names():
    """Every public name of the kit exists, is said once, and every step function is public."""
    assert len(set(kit.__all__)) == len(kit.__all__)
    assert [name for name in kit.__all__ if getattr(kit, name, None) is None] == []
    functions = {
        name
        for name, value in vars(steps).items()
        if callable(value) and getattr(value, "__module__", "") == steps.__name__ and name.islower() and name[0] != "_"
    }
    assert functions - set(kit.__all__) == {"as_items", "is_early_failure"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kit.nothing

"""Guards of one's own: when the function is called, what it is shown, and what its answers mean."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamguard.errors import PolicyError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Ping, Started, Stopped
from streamguard.guards.base import AttemptContext, Watch
from streamguard.guards.custom import AsyncWatch, CustomGuard, View, guard
from streamguard.verdict import Enough, Trip, Where

STREAM: tuple[Event, ...] = (
    Started(),
    BlockStarted(0, "thinking"),
    Delta(0, "thinking", "hm"),
    BlockStopped(0),
    BlockStarted(1, "text"),
    Ping(),
    Delta(1, "text", "abc"),
    Delta(1, "text", ""),
    Delta(1, "text", "de"),
    BlockStopped(1),
    BlockStarted(2, "text"),
    Delta(2, "text", "f"),
    Delta(2, "text", "gh"),
    BlockStopped(2),
    Stopped("end_turn"),
)


def seen(**options: Any) -> list[tuple[str, str, str, bool]]:
    """What a function is shown of the stream: text, new, event, stopped."""
    views: list[tuple[str, str, str, bool]] = []

    @guard(reason="house.test", **options)
    def record(view: View) -> None:
        views.append((view.text, view.new, type(view.event).__name__, view.stopped))

    watch = record.watch(AttemptContext(), 0.0)
    assert isinstance(watch, Watch)
    assert [watch.feed(event, 0.0) for event in STREAM if watch.wants is None or type(event) in watch.wants].count(None)
    return views


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            [
                ("abc", "abc", "Delta", False),
                ("abcde", "de", "Delta", False),
                ("abcdef", "f", "Delta", False),
                ("abcdefgh", "gh", "Delta", False),
            ],
        ),
        ({"every": 5}, [("abcde", "abcde", "Delta", False), ("abcdefgh", "fgh", "Stopped", True)]),
        ({"every": "block"}, [("abcde", "abcde", "BlockStopped", False), ("abcdefgh", "fgh", "BlockStopped", False)]),
        ({"every": 100}, [("abcdefgh", "abcdefgh", "Stopped", True)]),
        (
            {"every": "block", "kinds": ("text", "thinking")},
            [
                ("hm", "hm", "BlockStopped", False),
                ("hmabcde", "abcde", "BlockStopped", False),
                ("hmabcdefgh", "fgh", "BlockStopped", False),
            ],
        ),
        ({"kinds": ("tool_input",)}, []),
    ],
)
def test_when_it_is_called_and_with_what(options: dict[str, Any], expected: list[Any]) -> None:
    """With each delta, so many characters or each block; the rest at the end; only the kinds asked for."""
    assert seen(**options) == expected


def answer(value: Any, mode: str | None = None) -> CustomGuard:
    @guard(reason="house.rule", mode=mode)  # type: ignore[arg-type]
    def rule(view: View) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    return rule


OWN = Trip(reason="other.thing", message="m", guard="mine")
FAILED = "guard rule raised {}"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (None, None),
        ("too loud", Trip(reason="house.rule", message="too loud", where=Where(block=1, char=3), guard="rule")),
        ("", Trip(reason="house.rule", message="the guard tripped", where=Where(block=1, char=3), guard="rule")),
        (OWN, OWN),
        (Trip(reason="other.thing", message="m"), Trip(reason="other.thing", message="m", guard="rule")),
        (Enough("cut", 3), Enough("cut", 3)),
        (
            ValueError("no"),
            Trip(
                reason="guard.failed",
                message="guard rule raised ValueError: no",
                observed="ValueError",
                guard="rule",
            ),
        ),
        (
            True,
            Trip(
                reason="guard.failed",
                message="guard rule raised TypeError: answered True, which is not None, a message, a Trip or an Enough",
                observed="TypeError",
                guard="rule",
            ),
        ),
    ],
)
def test_what_an_answer_means(value: Any, verdict: Any) -> None:
    """Plain and asynchronous functions give the same verdict for the same answer; what they raise is a trip."""
    plain = answer(value)
    assert plain.watch(AttemptContext(), 0.0).feed(Delta(1, "text", "abc"), 0.0) == verdict

    async def rule(view: View) -> Any:
        return plain(view)

    watch = guard(reason="house.rule")(rule).watch(AttemptContext(), 0.0)
    assert isinstance(watch, AsyncWatch)
    assert watch.feed(Delta(1, "text", "abc"), 0.0) is None
    (view,) = watch.pending()
    assert watch.pending() == []
    assert asyncio.run(watch.check(view)) == verdict


def test_an_interrupt_goes_through() -> None:
    """Only exceptions of the check itself are trips: a keyboard interrupt or a cancellation is nobody's verdict."""
    with pytest.raises(KeyboardInterrupt):
        answer(KeyboardInterrupt()).watch(AttemptContext(), 0.0).feed(Delta(0, "text", "x"), 0.0)

    async def cancelled(view: View) -> None:
        raise asyncio.CancelledError

    async def run() -> None:
        watch = guard(reason="house.rule")(cancelled).watch(AttemptContext(), 0.0)
        assert isinstance(watch, AsyncWatch)
        await watch.check(View(text="x"))

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def test_an_asynchronous_guard_collects_until_it_is_asked() -> None:
    """Views wait in order, each with the text as it was when it became due."""

    class Moderation:
        async def __call__(self, view: View) -> None: ...

    watch = guard(reason="house.rule", every=3)(Moderation()).watch(AttemptContext(attempt=2), 0.0)
    assert isinstance(watch, AsyncWatch)
    for event in STREAM:
        watch.feed(event, 0.0)
    views = watch.pending()
    assert [(view.text, view.new, view.attempt.attempt) for view in views] == [
        ("abc", "abc", 2),
        ("abcdef", "def", 2),
        ("abcdefgh", "gh", 2),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reason": "shouting"}, "reason must be dotted lower-case words such as 'house.shouting', not 'shouting'"),
        ({"reason": "json.mine"}, "reason 'json.mine' has a prefix of this package's own"),
        ({"reason": "timeout.mine"}, "reason 'timeout.mine' has a prefix of this package's own"),
        ({"reason": "house.x", "every": 0}, "every must be 'delta', 'block' or a positive number of characters, not 0"),
        ({"reason": "house.x", "every": True}, "every must be"),
        ({"reason": "house.x", "kinds": "text"}, "kinds must be a tuple of text, thinking, tool_input, not 'text'"),
        ({"reason": "house.x", "kinds": ()}, "kinds must be a tuple"),
        ({"reason": "house.x", "mode": "off"}, "mode must be one of enforce, observe, not 'off'"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    """A mistake is told where the guard is made, not in the middle of a stream."""
    with pytest.raises(PolicyError, match=r"@guard: ") as error:
        guard(**options)
    assert message in str(error.value)


def test_content_is_a_prefix_for_everybody() -> None:
    """`content.*` names are the policy's own."""
    made = guard(reason="content.shouting", mode="observe", name="calm")(lambda view: None)
    assert (made.name, made.mode, made.reason, made.asynchronous) == ("calm", "observe", "content.shouting", False)
    assert len({made, made}) == 1
    assert made(View(text="x")) is None

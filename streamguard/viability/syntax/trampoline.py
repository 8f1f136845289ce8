"""Run functions that call each other deeply on a list, instead of Python's stack.

A step is a generator: it yields the step it calls, is sent that step's result, and returns its own. So the depth of a
document or a schema costs memory, and no frame of whoever calls. Where the answer is known without a call, a step may
yield a boolean in its place.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeVar

_ROOM: Final = 64
"""Frames of Python's stack that whatever runs in steps takes at most."""

T = TypeVar("T")

Steps = Generator["Steps[Any] | bool", Any, T]
"""A call in steps: yields the calls it makes, is sent their results, returns its own."""


def run(first: Steps[T]) -> T:
    """Return the result of a call in steps."""
    stack: list[Steps[Any]] = [first]
    call = first.send
    value: Any = None  # a generator is begun with None
    while True:
        try:
            inner = call(value)
        except StopIteration as done:
            stack.pop()
            value = done.value
            if not stack:
                return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
            call = stack[-1].send
        else:
            if inner.__class__ is bool:
                value = inner
                continue
            stack.append(inner)  # type: ignore[arg-type]  # a class is no guard for mypy
            call = inner.send  # type: ignore[union-attr]
            value = None


def need_room(frames: int = _ROOM) -> None:
    """Make sure that Python's stack has room, before anything is called that does not survive if it has not.

    `referencing` keeps its tables in rpds, which turns a `RecursionError` into a panic that no `except Exception` sees.

    :raises RecursionError: it has not.
    """
    if frames:
        need_room(frames - 1)

# ruff: noqa: ARG001  a patch takes what the original takes
"""Hold the table of mutants, and ways to write one down.

A mutant is a patch, never an edit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

Mutation = Callable[[], contextlib.AbstractContextManager[Any]]
MUTANTS: dict[str, Mutation] = {}
NOTICED_BY: dict[str, tuple[str, ...]] = {}
"""The tests that must notice a mutant, by its name. One that stands here is not asked of the probes."""


def mutant(name: str, *, by: tuple[str, ...] = ()) -> Callable[[Mutation], Mutation]:
    """Register a mutant.

    Args:
        name: What is switched off, in words.
        by: Tests that must notice it, as pytest names them. Without any, the probes look for it.
    """

    def register(made: Mutation) -> Mutation:
        MUTANTS[name] = made
        if by:
            NOTICED_BY[name] = by
        return made

    return register


def off(name: str, owner: Any, attribute: str, value: Any = None, *, by: tuple[str, ...] = ()) -> None:
    """A method that does nothing but return `value`; asynchronous where it was."""
    import inspect

    if inspect.iscoroutinefunction(getattr(owner, attribute)):

        async def nothing(*args: Any, **options: Any) -> Any:
            return value

    else:

        def nothing(*args: Any, **options: Any) -> Any:
            return value

    mutant(name, by=by)(lambda: patch.object(owner, attribute, nothing))


def after(name: str, owner: Any, attribute: str, change: Callable[..., Any], *, by: tuple[str, ...] = ()) -> None:
    """A method after which `change(self, result, *args)` has the last word."""
    original = getattr(owner, attribute)

    def changed(self: Any, *args: Any, **options: Any) -> Any:
        return change(self, original(self, *args, **options), *args)

    mutant(name, by=by)(lambda: patch.object(owner, attribute, changed))


def setting(**values: Any) -> Callable[..., Any]:
    def change(self: Any, result: Any, *args: Any) -> Any:
        for name, value in values.items():
            setattr(self, name, value)
        return result

    return change


def both(*patches: Any) -> contextlib.ExitStack:
    """Join patches to one mutant."""
    stack = contextlib.ExitStack()
    for one in patches:
        stack.enter_context(one)
    return stack

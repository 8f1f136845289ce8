# ruff: noqa: ARG001  a patch takes what the original takes
"""The table of mutants, and the helpers that write its rows. A mutant is a patch, never an edit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

Mutation = Callable[[], contextlib.AbstractContextManager[Any]]
MUTANTS: dict[str, Mutation] = {}


def mutant(name: str) -> Callable[[Mutation], Mutation]:
    def register(made: Mutation) -> Mutation:
        MUTANTS[name] = made
        return made

    return register


def off(name: str, owner: Any, attribute: str, value: Any = None) -> None:
    """A method that does nothing but return `value`; asynchronous where it was."""
    import inspect

    if inspect.iscoroutinefunction(getattr(owner, attribute)):

        async def nothing(*args: Any, **options: Any) -> Any:
            return value

    else:

        def nothing(*args: Any, **options: Any) -> Any:
            return value

    MUTANTS[name] = lambda: patch.object(owner, attribute, nothing)


def after(name: str, owner: Any, attribute: str, change: Callable[..., Any]) -> None:
    """A method after which `change(self, result, *args)` has the last word."""
    original = getattr(owner, attribute)

    def changed(self: Any, *args: Any, **options: Any) -> Any:
        return change(self, original(self, *args, **options), *args)

    MUTANTS[name] = lambda: patch.object(owner, attribute, changed)


def setting(**values: Any) -> Callable[..., Any]:
    def change(self: Any, result: Any, *args: Any) -> Any:
        for name, value in values.items():
            setattr(self, name, value)
        return result

    return change


def both(*patches: Any) -> contextlib.ExitStack:
    """Several patches as one."""
    stack = contextlib.ExitStack()
    for one in patches:
        stack.enter_context(one)
    return stack

# ruff: noqa: ARG005  a patch takes what the original takes
"""Mutants of checks and of what guards of one's own look up, with the tests that must notice each."""

from __future__ import annotations

from unittest.mock import patch

from bench.mutants.billing import value
from bench.mutants.registry import mutant, off
from streamguard.guards.checks import arguments, custom
from streamguard.guards.checks.arguments import Arguments
from streamguard.guards.checks.custom import AsyncCheckWatch, CustomCheck, CustomCheckWatch
from streamguard.guards.document import so_far
from streamguard.guards.document.finished import FinishedValue
from streamguard.guards.document.lookahead import Ahead

_SO_FAR = "tests/guards/document/test_so_far.py"
EVERY = (f"{_SO_FAR}::test_every_view_has_what_is_complete",)
LIVE = (f"{_SO_FAR}::test_it_looks_while_the_answer_comes",)

off("values: what has come since is not read", so_far.SoFar, "note", by=LIVE)
value("values: a number is complete before it ends", so_far, "NUMBER", -1, by=EVERY)
value("values: names are not escaped", so_far, "escape", str, by=EVERY)
mutant("values: a document that was read ahead is shown", by=EVERY)(
    lambda: patch.object(Ahead, "shown", property(lambda self: self._reader.read))
)

_CUSTOM = "tests/guards/checks/test_custom.py"
CALLS = (f"{_CUSTOM}::test_each_call_is_made_once_and_at_once",)
ANSWERS = (f"{_CUSTOM}::test_what_an_answer_means",)

off("functions: what an object lacks still comes", arguments, "_leads", False, by=CALLS)
off("functions: items do not begin", Arguments, "_begin", arguments._Item((), ()), by=CALLS)
value("functions: one key tells items apart", arguments, "_keys", lambda place, path: path[:1], by=CALLS)
mutant("functions: an item is judged by its first value", by=CALLS)(
    lambda: patch.object(arguments._Item, "left", property(lambda self: 0, lambda self, count: None))
)
off("functions: no plain one is asked", CustomCheckWatch, "_ask", by=ANSWERS)
off("functions: no asynchronous one is asked", AsyncCheckWatch, "check", by=ANSWERS)
off("functions: what they raise is let pass", custom._FunctionWatch, "raised", by=ANSWERS)
value(
    "functions: any two items go together",
    arguments,
    "max",
    lambda found, **options: (),
    by=(f"{_CUSTOM}::test_bad_arguments_are_refused_by_name",),
)
off(
    "functions: needs are not held against the schema",
    CustomCheck,
    "mistakes",
    (),
    by=(f"{_CUSTOM}::test_needs_that_the_schema_does_not_know",),
)
mutant("functions: they share what they are given", by=(f"{_CUSTOM}::test_a_function_may_change_what_it_is_given",))(
    lambda: patch.object(FinishedValue, "fresh", lambda self: self.value)
)

# ruff: noqa: ARG005  a patch takes what the original takes
"""Mutants of checks and of what guards of one's own look up, with the tests that must notice each."""

from __future__ import annotations

from decimal import Decimal
from unittest.mock import patch

from bench.mutants.billing import value
from bench.mutants.registry import both, mutant, off
from streamguard.guards.checks import arguments, compiler, custom, evaluation, gathering, program
from streamguard.guards.checks.arguments import Arguments
from streamguard.guards.checks.custom import AsyncCheckWatch, CustomCheck, CustomCheckWatch
from streamguard.guards.checks.evaluation import Scope
from streamguard.guards.checks.gathering import Gathering
from streamguard.guards.checks.program import Program
from streamguard.guards.checks.types import ANYTHING, SchemaTypes
from streamguard.guards.checks.values import Absent
from streamguard.guards.checks.watch import CheckWatch, FollowingWatch
from streamguard.guards.document import so_far
from streamguard.guards.document.finished import FinishedValue
from streamguard.guards.document.lookahead import Ahead
from streamguard.retry import rules
from streamguard.verdict import Where

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

_VERDICTS = "tests/guards/checks/test_verdicts.py"
EARLY = (f"{_VERDICTS}::test_every_split_says_what_the_whole_says",)
ORACLE = ("tests/testing/test_oracle_checks.py::test_it_agrees_with_the_guards",)
BROKEN = ("tests/guards/checks/test_broken.py::test_a_broken_expression_is_refused_where_it_stands",)
LATE = (f"{_VERDICTS}::test_of_a_repeated_name_the_last_value_counts",)

off("checks: none is decided", CheckWatch, "_decide", by=EARLY)
off("checks: what an object lacks still comes", Gathering, "_closed", by=EARLY)
off("checks: no item of a fold decides", Gathering, "_item", False, by=EARLY)
value(
    "checks: one name is as good as another on the way",
    gathering,
    "_leads",
    lambda path, to: True,
    by=(f"{_VERDICTS}::test_another_member_that_closes_says_nothing",),
)
mutant(
    "checks: a check of the whole is decided again with each value",
    by=("tests/guards/checks/test_bounds.py::test_it_is_decided_once",),
)(lambda: patch.object(Gathering, "over", property(lambda self: False, lambda self, over: None)))
value("checks: an array that is none is absent", gathering, "_no_array", lambda fold, array: Absent(), by=EARLY)
mutant("checks: a text is a condition", by=(f"{_VERDICTS}::test_a_condition_is_true_or_false",))(
    lambda: patch.object(program, "truth", bool)
)
mutant("checks: items are told apart by nothing", by=EARLY)(
    lambda: patch.object(Program, "scope", lambda self, *scope: Scope(*scope[:3], Decimal(0), self.slots))
)
mutant("checks: nothing waits for other places", by=EARLY)(
    lambda: patch.object(Gathering, "_left", property(lambda self: set(), lambda self, left: None))
)
mutant("checks: a later value of a name is not waited for", by=LATE)(
    lambda: patch.object(
        FollowingWatch, "_repeats", property(lambda self: False, lambda self, repeats: None), create=True
    )
)
off("checks: what cannot be read is let pass", Program, "holds", True, by=ORACLE)
off("checks: no member is held against the schema", SchemaTypes, "member", ANYTHING, by=BROKEN)
mutant("checks: steps are not counted", by=("tests/guards/checks/test_bounds.py::test_a_runaway_is_stopped",))(
    lambda: both(*(patch.object(one, "charge", lambda scope, steps: None) for one in (evaluation, compiler)))
)
off(
    "checks: no block is marked",
    FollowingWatch,
    "where",
    Where(),
    by=("tests/guards/checks/test_doors.py::test_the_live_view",),
)
mutant(
    "checks: a check that failed twice is not told",
    by=("tests/guards/checks/test_calls.py::test_the_same_wrong_sum_twice_is_said",),
)(lambda: patch.object(rules, "_again", lambda before, ended: False))

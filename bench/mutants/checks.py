"""Mutants of checks and of what guards of one's own look up, with the tests that must notice each."""

from __future__ import annotations

from unittest.mock import patch

from bench.mutants.billing import value
from bench.mutants.registry import mutant, off
from streamguard.guards.document import so_far
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

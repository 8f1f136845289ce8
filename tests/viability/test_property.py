"""No valid instance of a random schema is ever aborted, and no search finds what a verdict rules out."""

from __future__ import annotations

import json
import random
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from streamguard.errors import SchemaError
from streamguard.viability import Schema, compile_schema
from streamguard.viability.syntax import scanner
from tests.viability.completing import find_completion
from tests.viability.feeding import each, feed, pieces, whole
from tests.viability.schemas import instances, older_schemas, schemas
from tests.viability.spelling import spelled

bounded = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def compiled(schema: Any) -> Schema:
    try:
        return compile_schema(schema)
    except SchemaError as error:
        if "without end" not in str(error):  # the only thing that can be wrong with a schema of this strategy
            raise
        assume(False)
        raise


def check(schema: Any, values: list[Any], seed: int) -> None:
    """Verdict and judge agree on every value, however it is written and cut, and whether names may repeat or not."""
    made = compiled(schema)
    repeating = compile_schema(schema, duplicate_names="allow")
    rng = random.Random(seed)
    for value in values:
        text = spelled(value, rng)
        accepted = made.validate(json.loads(text)) is None
        verdicts = {str(feed(made.prefix(), text, split)) for split in (each, pieces(seed), whole)}
        with mock.patch.object(scanner, "CONTAINER", 1):  # objects and arrays that are read whole, however short
            verdicts |= {str(feed(made.prefix(), text, split)) for split in (pieces(seed), whole)}
            assert (feed(repeating.prefix(), text, whole) is None) == accepted, text
        assert len(verdicts) == 1, (text, verdicts)
        assert (verdicts == {"None"}) == accepted, (text, verdicts)
        assert (feed(repeating.prefix(), text, pieces(seed)) is None) == accepted, text


@given(schemas, st.lists(instances, min_size=1, max_size=6), st.integers(0, 1000))
@bounded
def test_a_verdict_is_the_judges(schema: Any, values: list[Any], seed: int) -> None:
    """Alive at every prefix where the judge accepts the instance, dead by the end where not; in any split and order."""
    check(schema, values, seed)


@given(older_schemas, st.lists(instances, min_size=1, max_size=6), st.integers(0, 1000))
@bounded
def test_a_verdict_is_the_judges_in_older_drafts(schema: Any, values: list[Any], seed: int) -> None:
    """The same for draft-04, 06, 07 and 2019-09."""
    check(schema, values, seed)


@given(schemas, instances, st.integers(0, 1000))
@bounded
def test_no_search_refutes_a_verdict(schema: Any, value: Any, seed: int) -> None:
    """What is dead cannot be completed, as far as a bounded search goes."""
    made = compiled(schema)
    text = spelled(value, random.Random(seed))
    dead = feed(made.prefix(), text, each)
    begin = "" if not made.satisfiable else None
    if dead is not None and dead.char != "eof":
        begin = text[: dead.char + 1] if begin is None else begin
        assert find_completion(begin, schema, lambda v: made.validate(v) is None, tries=60, seed=seed) is None


@given(schemas | older_schemas, st.lists(instances, min_size=1, max_size=6))
@bounded
def test_a_quick_yes_is_the_judges(schema: Any, values: list[Any]) -> None:
    """What the compiled constraints accept at once `jsonschema` accepts, and nothing else is accepted."""
    made = compiled(schema)
    assert [made.validate(value) for value in values] == [made._judge.validate(value) for value in values]

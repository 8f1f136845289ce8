"""Every store against the model in memory: whatever is done by whomever, the answers are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamguard.batch.journal.contract import Ask, Busy, Result, RowJournal
from streamguard.batch.journal.memory import MemoryJournal
from tests.batch.journal.conftest import make_case

LEASE = 30.0

keys = st.sampled_from(["a", "b", "c"])
prints = st.sampled_from(["f", "f", "f", "g"])
owners = st.sampled_from(["x", "y", "z"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), owners, st.dictionaries(keys, prints, min_size=1)),
        st.tuples(st.just("finish"), keys, prints, st.sampled_from([None, None, "json.schema"])),
        st.tuples(st.just("put_back"), owners, st.lists(keys, min_size=1)),
        st.tuples(st.just("beat"), owners),
        st.tuples(st.just("leave"), owners),
        st.tuples(st.just("forget"), st.none() | st.lists(keys)),
        st.tuples(st.just("advance"), st.sampled_from([7.0, 31.0])),
    ),
    max_size=40,
)


def done(journal: RowJournal, step: tuple[Any, ...], number: int) -> Any:
    """Do one step, and return what can be compared of the answer."""
    match step:
        case ("claim", owner, rows):
            answers = journal.claim([Ask(*pair) for pair in rows.items()], owner, LEASE)
            return [round(one.seconds / 3) if isinstance(one, Busy) else one for one in answers]
        case ("finish", key, print_, reason):
            return journal.finish([Result(key, print_, b"%d" % number, reason)])
        case ("put_back", owner, some):
            return journal.put_back(some, owner)
        case ("beat", owner):
            return journal.beat(owner, LEASE)
        case ("leave", owner):
            return journal.leave(owner)
        case ("forget", some):
            return journal.forget(some)
    raise AssertionError(step)


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(steps=steps)
def test_answers_are_those_of_the_model(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, steps: list[tuple[Any, ...]]
) -> None:
    """Any sequence of verbs by three owners over three rows, with time that passes in between."""
    case = make_case(kind, tmp_path, request)
    model = MemoryJournal(clock=lambda: case.passed)
    try:
        journal = case.open()
        for number, step in enumerate(steps):
            if step[0] == "advance":
                case.advance(step[1])
                continue
            assert done(journal, step, number) == done(model, step, number), step
        assert list(journal.failures()) == list(model.failures())
    finally:
        case.close()

"""The catalogue: complete, named, and the same in memory and over sockets."""

from __future__ import annotations

import pytest

from streamguard.guards.completion import Completion
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.model import Policy
from streamguard.source import Attempt
from streamguard.testing import Script, ScriptedSource, faults, play, run_virtual
from streamguard.testing.oracle import Expectation
from tests.data import ROOT

NO_CLOCKS = Timeouts(connect=None, first_token=None, progress=None, progress_thinking=None, alive=None, total=1e6)


def test_every_number_has_its_place() -> None:
    """F01 to F98: each is a script, or shown elsewhere, or cannot be met; and nothing is in two of these."""
    groups = [{one.number for one in group} for group in (faults.ALL, faults.ELSEWHERE, faults.NOT_MET)]
    assert sorted(number for group in groups for number in group) == [f"F{n:02}" for n in range(1, 99)]


def test_names_and_words() -> None:
    """Every fault has a name of its own, says what goes wrong and what to make of it, and names its cases in pytest."""
    assert len(faults.BY_ID) == len(faults.ALL)
    for fault in faults.ALL:
        assert fault.title.endswith(".")
        assert fault.must
        assert (fault.__name__, fault.number) == (fault.id, fault.id[:3])


@pytest.mark.parametrize("one", faults.ELSEWHERE, ids=lambda one: one.number)
def test_what_is_shown_elsewhere_is(one: faults.Elsewhere) -> None:
    """The test files that the catalogue names exist."""
    assert all((ROOT / name).is_file() for name in one.tests)


def test_the_documentation_lists_them_all() -> None:
    """`docs/reference/faults.md` has every fault, by its id."""
    text = (ROOT / "docs" / "reference" / "faults.md").read_text()
    assert [fault.id for fault in faults.ALL if f"`{fault.id}`" not in text] == []


@pytest.mark.parametrize("shape", faults.SHAPES)
@pytest.mark.parametrize("fault", faults.ALL)
def test_conforming_means_that_nothing_is_wrong(fault: faults.Fault, shape: faults.Shape) -> None:
    """By the oracle: with completion alone, a stream that conforms is accepted, whatever its pace; where a stream does
    not, something is wrong with its end, its bytes or its document, or it never ends."""
    request = faults.request(shape)
    clocks = NO_CLOCKS if fault.conforms else NO_CLOCKS.model_copy(update={"total": 2e4})  # some never end
    whole = Policy(timeouts=clocks)
    ends = Expectation(fault.script(shape, event_bytes=4096), whole, request, event_bytes=4096).first()
    if fault.conforms:
        assert [cause.reasons for cause in ends] == [("whole",)]
    elif all(cause.accepted for cause in ends):
        document = {"schema": faults.SCHEMA} | ({} if shape == "text" else {"where": f"tool:{faults.TOOL}"})
        judged = Policy(timeouts=Timeouts(total=2e4), completion=Completion(), json=document, repetition={})
        again = Expectation(fault.script(shape, event_bytes=4096), judged, request, event_bytes=4096).first()
        assert not any(cause.accepted for cause in again), fault.id


def test_a_fault_may_last_or_go_away() -> None:
    """`times` says how often; from then on the answers are good."""
    fault = faults.BY_ID["F13-eof"]
    lasting, passing = fault.script(), fault.script(times=2)
    assert isinstance(passing, Script)
    assert [lasting.items(n) == passing.items(n) for n in (1, 2, 3)] == [True, True, False]
    assert passing.items(3) == passing.items(9) == tuple(faults.Say().answer())


@pytest.mark.parametrize("fault", [fault for fault in faults.ALL if not fault.sockets and not fault.slow])
def test_memory_and_sockets_play_the_same(fault: faults.Fault) -> None:
    """The bytes that the source in memory hands out, and those that the server writes, come from one definition."""
    items = fault.attempt(event_bytes=2048)
    written = [op.data for op in play.operations(items, sockets=True) if isinstance(op, play.Write)]
    source = fault.source(event_bytes=2048)

    async def main() -> int:
        attempt = Attempt(number=1, request=source.request, deadline=1e9)
        try:
            async with source.open(attempt) as stream:
                async for _ in stream:
                    pass
        except Exception:  # a fault may raise whatever it likes here: it is the bytes that are compared
            return source.exchanges[0].bytes_sent
        return source.exchanges[0].bytes_sent

    assert isinstance(source, ScriptedSource)
    if any(isinstance(op, play.Head) and op.body for op in play.operations(items, sockets=True)):
        return  # the body came with the head: there is no stream to compare
    # Nothing at all where the response head already says no.
    assert run_virtual(main) in (0, sum(map(len, written)))

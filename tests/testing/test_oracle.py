"""The oracle: on its own, right about documents, and never content with a record that lies."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from streamguard import api
from streamguard.errors import CallError
from streamguard.guards.document.guard import JsonDocument
from streamguard.policy.model import Policy
from streamguard.retry.rules import Retry, Rule
from streamguard.testing import faults, run_virtual
from streamguard.testing.oracle import Documents, Expectation
from streamguard.verdict import Trip
from streamguard.viability import compile_schema
from tests.data import ROOT

TWICE = Policy(json=JsonDocument(schema="request"), retry=Retry(attempts=2, rules=(Rule(when=("*",)),)))


def test_it_knows_nothing_of_the_implementation() -> None:
    """Importing the oracle by itself loads neither the engine nor guards, retry rules or viability."""
    code = (
        "import sys, streamguard.testing.oracle; "
        "print(*sorted(name for name in sys.modules if name.startswith('streamguard.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    own = {name.removeprefix("streamguard.").split(".")[0] for name in done.stdout.split()}
    source = "".join(file.read_text() for file in (ROOT / "streamguard/testing/oracle").glob("*.py"))
    forbidden = ("engine", "attempt", "guards", "retry", "viability", "delivery", "adapters", "dispatch")
    assert [name for name in forbidden if f"streamguard.{name}" in source] == []
    assert "engine" not in own


TEXTS = (
    *(faults.GOOD[:n] for n in range(len(faults.GOOD) + 1)),
    *('{"id": "', '{"id": 7 "', '{"id":7,"id"', '{"x"', '{"kind": "let', '{"kind": "inv', '{"name":"Al"', "[", "x", ""),
    *(
        '{"\\u0069d"',
        '{"lines": [1',
        '{"lines": ["\\',
        '{"lines": ["\\x',
        '{"id": 01',
        '{"id": -',
        '{"id": +',
        "{,",
        '{"id",',
    ),
    *(faults.GOOD + " ", faults.GOOD + "x", '{"id": ' + "9" * 401, '{"lines": [' + "[" * 70),
)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[-24:]))
def test_beginnings_of_documents(text: str) -> None:
    """Regular expressions and the prefix detection agree on every beginning, dead or alive."""
    found = Documents(JsonDocument(), faults.SCHEMA, framed=True, may_end=False).life(text)
    prefix = compile_schema(faults.SCHEMA).prefix()
    dead = prefix.feed(text) if text else None
    assert found in (("dead",) if dead is not None else ("alive", "unsure"))


def _called(fault: str) -> tuple[Expectation, object, BaseException | None]:
    chosen = faults.BY_ID[fault]

    async def main() -> tuple[object, BaseException | None]:
        try:
            return await api.run(chosen.source(times=1), policy=TWICE), None
        except CallError as error:
            return error.record, error

    return Expectation(chosen.script(times=1), TWICE, faults.request()), *run_virtual(main)


def test_a_true_record_is_all_right() -> None:
    """The call as it was."""
    expected, record, error = _called("F41-number")
    assert expected.check(record, error) == []


LIES = {
    "another reason": lambda r: _first(r, ended=msgspec.structs.replace(r.attempts[0].ended, reason="transport.reset")),
    "accepted": lambda r: _first(r, ended=None, completed="whole"),
    "not accepted": lambda r: _last(r, completed=None),
    "another value": lambda r: msgspec.structs.replace(r, value={"id": 8}),
    "another count": lambda r: _last(
        r, usage=msgspec.structs.replace(r.attempts[1].usage, low=_more(r), high=_more(r))
    ),
    "a patch": lambda r: _last(r, patch={"max_tokens": 1}),
    "a hint": lambda r: _last(r, hint="The last answer was rejected"),
    "a mark": lambda r: msgspec.structs.replace(r, marked=(Trip(reason="json.ungrounded", message=""),)),
    "one attempt less": lambda r: msgspec.structs.replace(r, attempts=r.attempts[:1]),
    "one attempt more": lambda r: msgspec.structs.replace(r, attempts=(*r.attempts, r.attempts[1])),
    "another number": lambda r: _last(r, number=3),
    "no attempt": lambda r: msgspec.structs.replace(r, attempts=()),
    "too slow": lambda r: _last(r, times=msgspec.structs.replace(r.attempts[1].times, end=30.0)),
}


def _first(record, **changes):
    return msgspec.structs.replace(
        record, attempts=(msgspec.structs.replace(record.attempts[0], **changes), *record.attempts[1:])
    )


def _last(record, **changes):
    return msgspec.structs.replace(
        record, attempts=(*record.attempts[:-1], msgspec.structs.replace(record.attempts[-1], **changes))
    )


def _more(record):
    usage = record.attempts[1].usage.high
    return msgspec.structs.replace(usage, output_tokens=usage.output_tokens + 1)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_noticed(lie: str) -> None:
    """A record that is changed in one thing is not all right."""
    expected, record, error = _called("F41-number")
    assert expected.check(LIES[lie](record), error) != []


def test_the_wrong_error_is_noticed() -> None:
    """An outcome with an error, and a failure without one."""
    expected, record, error = _called("F41-number")
    assert expected.check(record, KeyError("x")) != []
    lasting = Expectation(faults.BY_ID["F41-number"].script(), TWICE, faults.request())
    assert lasting.check(record, error) != []

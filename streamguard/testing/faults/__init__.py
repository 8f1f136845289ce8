"""The fault catalogue: what has really gone wrong between clients and providers, each as a script.

    @pytest.mark.parametrize("fault", faults.ALL)
    def test_never_lies(fault, run_virtual):
        ...
        outcome = run_virtual(ask, fault.source())

One definition serves the source in memory (`fault.source()`) and the server on sockets
(`ScriptedServer(fault.script())`). The document may stand in text or in a tool's input (`fault.script("tool")`), and
the fault may last or go away (`times=1`: the second attempt is answered well). Faults that wait (`fault.slow`) want
virtual time.

Numbers are those of the catalogue in `docs/reference/faults.md`. What is no matter of one stream is listed
too: `ELSEWHERE` says which tests show it, `NOT_MET` why this package cannot meet it.
"""

from __future__ import annotations

from streamguard.testing.faults import accounting, content, ending, errors, liveness, servers, wireform
from streamguard.testing.faults.base import (
    EVENT_BYTES,
    GOOD,
    SCHEMA,
    SHAPES,
    TOOL,
    Fault,
    Items,
    Say,
    Shape,
    request,
    with_truth,
)
from streamguard.testing.faults.elsewhere import ELSEWHERE, NOT_MET, Elsewhere

_CHAPTERS = (liveness, ending, errors, content, wireform, accounting, servers)

ALL: tuple[Fault, ...] = tuple(fault for chapter in _CHAPTERS for fault in chapter.CHAPTER.faults)
"""Every fault that a script can show, in the catalogue's order."""

BY_ID: dict[str, Fault] = {fault.id: fault for fault in ALL}

__all__ = [
    "ALL",
    "BY_ID",
    "ELSEWHERE",
    "EVENT_BYTES",
    "GOOD",
    "NOT_MET",
    "SCHEMA",
    "SHAPES",
    "TOOL",
    "Elsewhere",
    "Fault",
    "Items",
    "Say",
    "Shape",
    "request",
    "with_truth",
]

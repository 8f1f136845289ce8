"""What may be claimed of an answer that stands although a guard that only observes tripped."""

from __future__ import annotations

from streamguard.guards.base import Document
from streamguard.guards.panel import Panel
from streamguard.verdict import Completed

JUDGES = frozenset({"completion", "json"})
"""The guards whose word `completed` gives: the protocol was kept, the end is a good one, the document is valid."""


def would_have_rejected(panel: Panel, document: Document | None, completed: Completed | None) -> bool:
    """Whether a guard that only observes would not have let the answer stand.

    Judged by the end: an observed clock that an answer outlived says nothing about the answer.
    """
    if any(seen.trip.guard in JUDGES for seen in panel.observed):
        return True
    if completed == "enough":
        return False
    return not (document.complete if document else completed == "whole")

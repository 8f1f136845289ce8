"""`streamguard status`: how a job stands, from its journal alone."""

from __future__ import annotations

import json
import sys

import msgspec

from streamguard.cli.commands.exits import Exit
from streamguard.errors import JobError, Problem
from streamguard.jobs.report.status import look, status_text
from streamguard.jobs.report.timeline import HANG, timeline
from streamguard.jobs.store.journal import read_journal
from streamguard.jobs.store.journal_records import believed
from streamguard.terminal import columns, fitted, print_result, printable


def main(out: str, *, trace: str | None, as_json: bool) -> int:
    """Print it.

    :raises JobError: there is no journal, or no such row.
    """
    journal = read_journal(out)
    if journal is None:
        raise JobError(Problem(file=out, problem="no journal of a job stands beside it"))
    width = columns(sys.stdout)
    with journal:
        if trace is not None:
            line = journal.line(trace)
            if line is None:
                raise JobError(Problem(file=out, problem=f"the row {trace!r} has no result"))
            with believed(str(journal.path)):
                story = timeline(line, journal.detail(trace))
                text = "\n".join(fitted(printable(said), _hang(said), width) for said in story)
        else:
            status = look(journal, out)
            text = json.dumps(msgspec.to_builtins(status), indent=2) if as_json else status_text(status, width)
    print_result(text + "\n")
    return Exit.OK


def _hang(said: str) -> int:
    """Where the lines begin that a line of a story is broken into: below its text, behind the time."""
    return HANG if said.startswith(" ") else 0

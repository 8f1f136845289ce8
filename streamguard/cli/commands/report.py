"""`streamguard report`: what a job came to, as one HTML file or as JSON."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from streamguard.cli.commands.exits import Exit
from streamguard.errors import JobError, Problem
from streamguard.jobs.report.report import report
from streamguard.jobs.report.report_html import page
from streamguard.jobs.store.journal import read_journal
from streamguard.terminal import print_result, put


def main(out: str, *, html: str) -> int:
    """Write it; `-` is standard output. Read by its owner only: it quotes what models said.

    :raises JobError: there is no journal, or the file cannot be written.
    """
    journal = read_journal(out)
    if journal is None:
        raise JobError(Problem(file=out, problem="no journal of a job stands beside it"))
    with journal:
        text = page(report(journal, out))
    if html == "-":
        print_result(text)
        return Exit.OK
    path = Path(html)
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError as mistake:
        raise JobError(Problem(file=html, problem=f"cannot be written: {mistake.strerror or mistake}")) from mistake
    put(sys.stderr, f"{html}: written\n")
    return Exit.OK

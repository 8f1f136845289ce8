"""`streamguard init`: write the files of a job that runs at once, as they stand in `demo/job/`."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from streamguard.cli.commands.exits import Exit
from streamguard.errors import JobError, Problem
from streamguard.terminal import printable, put

FILES = ("job.yaml", "policy.yaml", "invoice.schema.json", "invoice.j2", "invoices.jsonl")
"""What is written, with what a person opens first in front."""


def main(folder: str) -> int:
    """Write the files and say what to do next.

    :raises JobError: a file of that name is there already, or the folder cannot be written; then nothing is written.
    """
    there = Path(folder)
    try:
        taken = [name for name in FILES if (there / name).exists()]
        if taken:
            problems = [
                Problem(file=str(there / name), problem="is there already; nothing was written") for name in taken
            ]
            raise JobError(problems)
        there.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (there / name).write_bytes(files("streamguard.demo").joinpath("job", name).read_bytes())
    except (OSError, ValueError) as error:
        raise JobError(
            Problem(file=folder, problem=f"cannot be written: {getattr(error, 'strerror', error)}")
        ) from error
    inside = "" if folder == "." else f"cd {printable(folder)}\n  "
    put(
        sys.stdout,
        f"""\
Wrote {", ".join(FILES)} to {printable(folder)}.

Look at the job, and send nothing:
  {inside}streamguard check job.yaml

Run it without a key, against a simulated provider:
  streamguard demo --serve 8765          (in another terminal; Ctrl-C ends it)
  streamguard run job.yaml --base-url http://127.0.0.1:8765

Run it for real, with ANTHROPIC_API_KEY set:
  streamguard run job.yaml
""",
    )
    return Exit.OK

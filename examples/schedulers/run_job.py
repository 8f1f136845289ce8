# ruff: noqa: INP001  an example, not a package
"""Run a job as a scheduler's task: what each exit code of `streamguard run` means for the scheduler.

A job resumes by itself, so a task that is tried again asks only for the rows that are left.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


class TryAgain(Exception):
    """The provider was not well, or the task was ended by a signal: try the task again later."""


class GiveUp(Exception):
    """Only a person can help: do not try the task again."""


def run_job(job: str, *options: str) -> dict[str, Any]:
    """Run a job file and return its summary.

    :param job: the path of the job file.
    :param options: more options of `streamguard run`.
    :raises TryAgain: exit code 5 (the provider only failed), 130 or 143 (a signal).
    :raises GiveUp: exit code 2 (usage, policy, input), 4 (stopped by a budget), 1 (internal error).
    """
    command = [sys.executable, "-m", "streamguard", "run", job, "--json", "--quiet", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  its log goes to the task's
    if done.returncode in (0, 3):  # 3: finished, and some rows failed; the summary says which reasons
        return dict(json.loads(done.stdout))
    if done.returncode in (5, 130, 143):
        raise TryAgain(f"{job}: exit code {done.returncode}")
    raise GiveUp(f"{job}: exit code {done.returncode}")

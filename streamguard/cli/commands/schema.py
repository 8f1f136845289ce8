"""`streamguard schema`: the format of policy or job files, as a JSON Schema for editors and reviews."""

from __future__ import annotations

import json
import sys

from streamguard.cli.commands.exits import Exit


def main(*, job: bool = False) -> int:
    """Print it.

    :param job: of job files.
    """
    from streamguard.jobs.jobfile import job_schema
    from streamguard.policy.json_schema import policy_schema

    sys.stdout.write(json.dumps(job_schema() if job else policy_schema(), indent=2) + "\n")
    sys.stdout.flush()
    return Exit.OK

"""`streamguard schema`: the format of policy files, as a JSON Schema for editors and reviews."""

from __future__ import annotations

import json
import sys

from streamguard.commands.exits import Exit


def main() -> int:
    """Print it."""
    from streamguard.policy_schema import policy_schema

    sys.stdout.write(json.dumps(policy_schema(), indent=2) + "\n")
    sys.stdout.flush()
    return Exit.OK

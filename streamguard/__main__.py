"""Run the command line: `streamguard`, or `python -m streamguard`."""

from __future__ import annotations

import sys

from streamguard.errors import ConfigError
from streamguard.files.extras import needs


def main() -> None:
    """Run the command line, or say what to install for it.

    :raises SystemExit: always, with the exit code; 2 where the extra `cli` is not installed.
    """
    try:
        with needs("the command line", "cli"):
            from streamguard.cli import main as commands
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    commands.main()


if __name__ == "__main__":
    main()

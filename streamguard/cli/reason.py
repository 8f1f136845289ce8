"""`streamguard reason NAME`: what a reason means, and what to do."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from streamguard.cli.options import finish

Name = Annotated[str | None, typer.Argument(metavar="REASON", help="Such as json.schema; none: a list of all.")]


def reason(context: typer.Context, name: Name = None) -> None:
    """Say what a reason means, and what to do."""

    def body() -> int:
        from streamguard.errors import ConfigError
        from streamguard.files.reading import shipped_page
        from streamguard.files.suggest import did_you_mean
        from streamguard.terminal import columns, fitted, put
        from streamguard.verdict import REASONS

        rows = dict(re.findall(r"`([a-z_.]+)` \| (.*) \|$", shipped_page("reasons.md"), re.MULTILINE))
        if name is None:
            put(sys.stdout, "".join(f"{key:<28}{says}\n" for key, says in REASONS.items()))
            return 0
        if name not in rows:
            known = did_you_mean(name, rows)
            raise ConfigError(f"{name}: no reason of this package{known} (checks and patterns have names of your own)")
        happened, todo = rows[name].split(" | ")
        for sentence in (f"{name}: {happened}", f"What to do: {todo}"):
            put(sys.stdout, fitted(sentence, 0, columns(sys.stdout)) + "\n")
        return 0

    finish(context, body)

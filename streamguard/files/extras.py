"""What the package alone does not bring: the extras of this distribution, and the sentence that names a missing one.

In charge of words. It imports nothing: the import stands where it is needed, inside `needs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from streamguard.errors import ConfigError

DISTRIBUTION: Final = "streamguard-llm"

Extra = Literal["aiohttp", "bedrock", "cli", "local", "postgres", "proxy", "redis"]


def missing(what: str, extra: Extra, packages: Iterable[str]) -> str:
    """Return the sentence for packages that are not installed.

    :param what: what needs them, such as `the live view`.
    :param extra: which extra brings them.
    """
    names = list(packages)
    are = "is" if len(names) == 1 else "are"
    return f"{what} needs {' and '.join(names)}, which {are} not installed: pip install '{DISTRIBUTION}[{extra}]'"


@contextmanager
def needs(what: str, extra: Extra, kind: type[ConfigError] = ConfigError) -> Iterator[None]:
    """Import what an extra brings inside this block.

    :param kind: the error that a caller expects here.
    :raises ConfigError: it is not installed; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top in ("", "streamguard"):
            raise
        raise kind(missing(what, extra, [top])) from error

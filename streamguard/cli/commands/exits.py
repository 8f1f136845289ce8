"""Exit codes, and how a command ends: with a code and a sentence, never with a bare traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from enum import IntEnum

from streamguard.errors import ConfigError, Problem, StreamguardError
from streamguard.terminal import printable, put, silence


class Exit(IntEnum):
    """What a command's exit code means. Signals are 128 and their number: 130 for SIGINT, 143 for SIGTERM."""

    OK = 0
    INTERNAL = 1
    """A mistake of this package or of the machine."""
    INPUT = 2
    """Usage, policy, input or credentials: nobody but a person can help."""
    FAILED = 3
    """Finished, but too many records failed."""
    BUDGET = 4
    """Stopped by a budget: no failure, and nothing to try again before there is room."""
    PROVIDER = 5
    """Stopped, since the provider only failed: run it again when the provider is well."""


def guarded(body: Callable[[], int], *, debug: bool) -> int:
    """Run a command's body; whatever it raises becomes a sentence on standard error and an exit code.

    :param debug: let what is unexpected through, with its traceback.
    """
    try:
        return body()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough of it; as if the signal had ended us.
        silence(sys.stdout)
        return 128 + 13
    except Exception as error:
        cause = _alone(error)
        if isinstance(cause, ConfigError):
            complain(cause.problems)
            return Exit.INPUT
        if debug:
            raise
        known = isinstance(cause, StreamguardError | OSError)
        kind = "" if known else f"unexpected {type(cause).__name__}: "
        put(sys.stderr, f"streamguard: {kind}{printable(cause)} (streamguard --debug … shows where)\n")
        return Exit.INTERNAL


def _alone(error: BaseException) -> BaseException:
    """The error itself, where task groups have wrapped a single one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def complain(problems: Iterable[Problem]) -> None:
    """Mistakes on standard error, one line each."""
    for problem in problems:
        put(sys.stderr, printable(problem) + "\n")

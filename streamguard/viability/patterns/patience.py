"""Time limits of regular expressions, with patience: the limit is the wall's time, of which a busy machine takes some.

A pattern that backtracks for ever does so each time; one that was only interrupted is done at the second try.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

TRIES: Final = 3
"""How often a search is tried. Whoever has lost the processor three times in a row for longer than the search may take
has other worries."""


def patiently(search: Callable[..., Any], *args: Any, timeout: float) -> Any:
    """`search(*args, timeout=…)`, tried again if it runs out of time.

    :raises TimeoutError: it ran out of time each time.
    """
    for _ in range(TRIES - 1):
        try:
            return search(*args, timeout=timeout)
        except TimeoutError:
            continue
    return search(*args, timeout=timeout)

"""The rest of the catalogue: faults that no single stream shows, and faults that this package cannot meet."""

from __future__ import annotations

import msgspec


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that is no script."""

    number: str
    title: str
    why: str
    """Why it is no script, or why it cannot be met."""
    tests: tuple[str, ...] = ()
    """The test files that show it."""


_MET = {
    "F11": ("A request waits in a queue before any timer starts.", "needs several calls", "tests/matrix/test_time.py"),
    "F12": ("The wall clock steps; the machine sleeps.", "is the machine's clock", "tests/matrix/test_time.py"),
    "F30": ("A gateway asks again without streaming.", "is a proxy's doing", "tests/proxy/test_faults.py"),
    "F31": ("A poison record is asked again at every run.", "needs a job", "tests/jobs/store/test_resume.py"),
    "F32": ("A broad `except` retries a cancellation.", "is the caller's doing", "tests/matrix/test_cancellation.py"),
    "F35": ("A local denial counts as the provider's failure.", "needs a budget", "tests/budgets/test_queue.py"),
    "F66": ("Check, then spend: a race.", "needs many calls", "tests/budgets/stores/test_stateful.py"),
    "F67": ("Holds leak when a call is cancelled.", "is the caller's doing", "tests/budgets/test_reservation.py"),
    "F68": ("A hold that shrinks, is skipped or fails open.", "needs a budget", "tests/budgets/test_upper_bound.py"),
    "F69": ("Worst-case holds starve large requests.", "needs many calls", "tests/budgets/test_queue.py"),
    "F70": ("An unknown model costs nothing; prices that are no numbers.", "is a table", "tests/pricing/test_price.py"),
    "F71": ("Cancelled requests leak pool slots.", "needs many calls", "tests/matrix/test_leaks.py"),
    "F72": ("`break` leaves generators open.", "is the caller's doing", "tests/matrix/test_cancellation.py"),
    "F73": ("A timer swallows a cancellation.", "is the caller's doing", "tests/matrix/test_cancellation.py"),
    "F74": ("A blocked loop makes timers late.", "is the caller's doing", "tests/matrix/test_time.py"),
    "F75": ("Quadratic parsing of prefixes.", "is about size", "tests/matrix/test_memory.py"),
    "F76": ("A torn last line of output.", "needs a job", "tests/jobs/store/test_output.py"),
    "F77": ("Resuming by position.", "needs a job", "tests/jobs/test_kills.py"),
    "F78": ("A checkpoint that ignores a changed configuration.", "needs a job", "tests/jobs/test_job.py"),
    "F79": ("Lost rows at the end go unnoticed.", "needs a job", "tests/jobs/store/test_output.py"),
    "F81": ("A proxy drops headers or `event:` lines.", "is a proxy's doing", "tests/proxy/test_faults.py"),
    "F82": ("Redis loses counters or scripts.", "needs a store", "tests/budgets/stores/test_redis.py"),
    "F83": ("`database is locked`.", "needs a store", "tests/budgets/stores/test_sqlite.py"),
}

ELSEWHERE: tuple[Elsewhere, ...] = tuple(
    Elsewhere(number=number, title=title, why=why, tests=(test,)) for number, (title, why, test) in _MET.items()
)
"""Faults that are met, and shown by tests of their own."""

NOT_MET: tuple[Elsewhere, ...] = (
    Elsewhere(
        number="F16",
        title="HTTP/2 resets a stream, or goes away.",
        why="the SDK's clients speak HTTP/1.1; one built for HTTP/2 has its errors named as resets, as an unprocessed "
        "request is not told apart",
    ),
)
"""Faults that this package cannot meet as it is."""

"""What signals mean to a job that runs in a terminal or under a scheduler."""

from __future__ import annotations

import os
import signal
from typing import Final

import anyio
import anyio.abc

from streamguard.jobs.progress.progress import Progress
from streamguard.jobs.runner import Runner

LEAVING: Final = 1.0
"""Seconds after which a job that was told to abort what runs is left for good. Closing takes a tenth of that."""


class Signals:
    """SIGINT and SIGTERM: the first ends the job in order, the second at once."""

    def __init__(self, runner: Runner, progress: Progress, drain: float) -> None:
        self.first: int | None = None
        self._runner = runner
        self._progress = progress
        self._drain = drain
        self._aborting = False

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Listen until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async with anyio.create_task_group() as tasks:
                async for number in received:
                    if self._aborting:
                        self._leave(number)
                    name = signal.Signals(number).name
                    if self.first is None and self._drain > 0:
                        self._progress.say(
                            f"{name}: no row begins any more, what runs has {self._drain:g} s; once more to abort it"
                        )
                        self._runner.interrupt(name, self._drain)
                    else:
                        self._aborting = True
                        self._progress.say(f"{name}: aborting what runs; once more to leave at once")
                        self._runner.interrupt(name)
                        tasks.start_soon(self._leave_soon, number)
                    self.first = self.first or int(number)

    async def _leave_soon(self, number: int) -> None:
        await anyio.sleep(LEAVING)
        self._leave(number)

    def _leave(self, number: int) -> None:
        # Every row that ended is in the journal, whole; the next run makes the rest of it.
        self._progress.close()
        os._exit(128 + number)

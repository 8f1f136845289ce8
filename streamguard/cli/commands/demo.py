"""`streamguard demo`: the same job without and with guards, and nothing to be had for it: no key, no download.

In charge of the command: what it is given, what it says meanwhile, what it prints. The comparison is `demo.compare`'s.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, TextIO

import msgspec

from streamguard.cli.commands.exits import Exit
from streamguard.errors import JobError, Problem
from streamguard.terminal import print_result, printable, put

DOCUMENTS: Final = 200
LOCAL_DOCUMENTS: Final = 10
"""By default, of a small model on one thread: some minutes."""

MOST_DOCUMENTS: Final = 10_000
CONCURRENCY: Final = 8
LOCAL_CONCURRENCY: Final = 2
SAY_EVERY: Final = 15.0
"""Seconds between two lines of progress that go to no terminal."""

WIDTH: Final = 100
"""Columns of notes that go to no terminal."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    documents: int | None = None
    seed: int = 1
    concurrency: int | None = None
    keep: str | None = None
    as_json: bool = False
    local: bool = False
    serve: int | None = None
    bad_answers: float | None = None
    speed: float | None = None


def main(options: Options) -> int:
    """Run the demo, or serve the local model until somebody says stop.

    :raises JobError: an option that makes no sense.
    :raises LocalModelError: the local model cannot be run here.
    """
    _check(options)
    if options.serve is not None:
        return _serve_local(options.serve) if options.local else _serve(options.serve, options)
    from streamguard.demo import compare, table

    began = time.monotonic()
    with ExitStack() as stack:
        folder = _folder(options.keep, stack)
        order = compare.Order(
            documents=options.documents or (LOCAL_DOCUMENTS if options.local else DOCUMENTS),
            seed=options.seed,
            concurrency=options.concurrency or (LOCAL_CONCURRENCY if options.local else CONCURRENCY),
            folder=folder,
        )
        if options.local:
            from streamguard.demo.local_model import serving

            model = stack.enter_context(serving(parallel=order.concurrency, say=_say))
            comparison = compare.compare_local(order, model, stack.enter_context(_Progress(sys.stderr)))
        else:
            comparison = compare.compare_simulated(order, stack.enter_context(_Progress(sys.stderr)))
    took = time.monotonic() - began
    if options.as_json:
        text = json.dumps(table.as_object(comparison, local=options.local) | {"took_seconds": took}, indent=2) + "\n"
    else:
        text = _comparison_text(comparison, local=options.local, took=took)
        if options.keep is not None:
            text += f"\nThe job's files are in {printable(options.keep)}.\n"
    print_result(text)
    return Exit.OK


def _check(options: Options) -> None:
    if options.documents is not None and not 1 <= options.documents <= MOST_DOCUMENTS:
        raise JobError(f"--documents must be from 1 to {MOST_DOCUMENTS:,}, got {options.documents}")
    if options.concurrency is not None and not 1 <= options.concurrency <= 100:
        raise JobError(f"--concurrency must be from 1 to 100, got {options.concurrency}")
    if options.bad_answers is not None and not 0 <= options.bad_answers <= 1:
        raise JobError(f"--bad-answers must be a share from 0 to 1, got {options.bad_answers:g}")
    if options.speed is not None and not 0.1 <= options.speed <= 1000:
        raise JobError(f"--speed must be from 0.1 to 1000, got {options.speed:g}")
    if (options.bad_answers, options.speed) != (None, None) and (options.serve is None or options.local):
        raise JobError("--bad-answers and --speed are for the simulated provider: say --serve PORT, too")
    if options.serve is not None and not 0 <= options.serve <= 65_535:
        raise JobError(f"--serve must be a port, or 0 for any that is free, got {options.serve}")


def _folder(keep: str | None, stack: ExitStack) -> Path:
    """Where the job's files go."""
    if keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamguard-demo-")))
    folder = Path(keep)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise JobError(Problem(file=keep, problem="is not empty: --keep makes a new folder, or fills an empty one"))
    except OSError as error:
        raise JobError(Problem(file=keep, problem=f"cannot be used: {error.strerror or error}")) from error
    return folder


def _say(text: str) -> None:
    put(sys.stderr, f"{printable(text)} …\n")


class _Progress:
    """How far the comparison is, for people: a bar on a terminal, elsewhere a line when one is due. A `Reporter`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._task: Any = None
        self._total = self._done = 0
        self._said = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self._close()
        _say(text)

    def began(self, documents: int) -> None:
        """See `Reporter`."""
        self._total, self._done, self._said = documents, 0, time.monotonic()
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("documents"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._task = self._bar.add_task("", total=documents)
            self._bar.start()

    def done(self) -> None:
        """See `Reporter`."""
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
        elif time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            put(self._stream, f"  {self._done:,} of {self._total:,} documents\n")

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            with suppress(OSError):  # the terminal is gone
                bar.stop()


def _comparison_text(comparison: object, *, local: bool, took: float) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from streamguard.demo import table
    from streamguard.demo.compare import Comparison

    assert isinstance(comparison, Comparison)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    grid.add_column("")
    for name in ("without guards", "with guards", ""):
        grid.add_column(name, justify="right", no_wrap=True)
    for row in table.rows(comparison):
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as captured:
        order = comparison.order
        console.print(
            Text(f"{order.documents} documents, {order.concurrency} at a time, seed {order.seed}, {comparison.model}")
        )
        console.print(grid)
        for note in (*table.notes(comparison, local=local), f"All of it took {took:.0f} s here."):
            console.print(Text(note))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _serve(port: int, options: Options) -> int:
    """Serve the simulated provider until Ctrl-C or SIGTERM."""
    from streamguard.demo import provider

    order = provider.Order(
        seed=options.seed,
        bad_answers=provider.Order().bad_answers if options.bad_answers is None else options.bad_answers,
        speed=options.speed or 1.0,
    )
    try:
        with _until_told() as stop, provider.provider(order, port=port).in_thread() as server:
            put(sys.stdout, f"{server.url}\n")
            put(
                sys.stderr,
                "The simulated provider speaks Messages there, and needs no key. Ctrl-C ends it. In another terminal:\n"
                f"  streamguard run job.yaml --base-url {server.url}        (streamguard init makes a job.yaml)\n",
            )
            stop.wait()
    except OSError as error:
        raise JobError(f"--serve {port}: cannot listen on 127.0.0.1:{port}: {error.strerror or error}") from error
    return Exit.OK


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    import signal

    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve_local(port: int) -> int:
    """Serve the local model until Ctrl-C or SIGTERM."""
    from streamguard.demo.local_model import serving

    with _until_told() as stop, serving(port=port, parallel=LOCAL_CONCURRENCY, say=_say) as model:
        put(sys.stdout, f"{model.url}\n")
        put(
            sys.stderr,
            f"{model.name} speaks Messages there, and needs no key; it completes text and knows no chat. "
            "Ctrl-C ends it.\n"
            f"  streamguard run IN.jsonl --policy streamguard:extraction --base-url {model.url} "
            f"--model {model.name} --out OUT.jsonl\n",
        )
        stop.wait()
    # To be ended is what it was started for.
    return Exit.OK

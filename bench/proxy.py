"""What a hop adds: latency and CPU per event of `streamguard proxy` and of nginx, in one run.

This process is client and upstream at once, so that one clock dates an event when it leaves and when it arrives; each
hop is a process of its own, on another core. Streams are paced as a live model's and evenly spread. `added` is the
quantile of the hop minus that of the direct way. Best of the rounds, which are shuffled.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from streamguard.testing import wire

RATE = 20
"""Events a second and stream: deltas of recorded streams have about 4 tokens, at 80 tokens a second."""

SECONDS = 1.6
ROUNDS = 3
STREAMS = (1, 50, 200)

POLICIES = {
    "guards off": "off",
    "live, chat policy": "streamguard:interactive_chat",
    "live, full extraction": "LIVE",
}

LIVE_EXTRACTION = """\
version: 1
extends: streamguard:extraction
deliver: live
json:
  schema:
    type: object
    properties: {words: {type: array, items: {type: string, maxLength: 200}}}
    required: [words]
    additionalProperties: false
completion: {require_content: false}
"""

BODY = b'{"model":"claude-haiku-5-5","max_tokens":64000,"stream":true,"messages":[{"role":"user","content":"Go on."}]}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NGINX = """\
worker_processes 1;
worker_cpu_affinity {mask};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 200; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


class Hop(msgspec.Struct):
    """A way to the upstream."""

    name: str
    port: int
    pid: int | None = None

    def cpu(self) -> float:
        """Seconds of CPU that its process has used."""
        if self.pid is None:
            return 0.0
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


class Measured(msgspec.Struct):
    """What one round of one hop gave."""

    p50: float
    p99: float
    cpu: float
    """µs per event; 0 for no process of its own."""


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with a paced stream, each event dated when it leaves."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(HEAD)
            for frame in (wire.message_start(), wire.block_start(), wire.text_delta('{"words": ["begin"')):
                writer.write(_chunk(frame))
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(int(RATE * SECONDS)):
                await asyncio.sleep(began + (number + 1) / RATE - loop.time())
                writer.write(_chunk(wire.text_delta(f', "at {time.monotonic_ns():020d}"')))
            for frame in (wire.text_delta("]}"), wire.block_stop(), wire.message_delta(), wire.message_stop()):
                writer.write(_chunk(frame))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            if b"connection: close" in head.lower():
                writer.close()
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def one_stream(port: int, after: float, lags: list[float]) -> None:
    """Read one answer, and note how old each event is on arrival."""
    await asyncio.sleep(after)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: bench\r\ncontent-type: application/json\r\n"
    writer.write(head.encode() + f"content-length: {len(BODY)}\r\nconnection: close\r\n\r\n".encode() + BODY)
    rest = b""
    while piece := await reader.read(65_536):
        now = time.monotonic_ns()
        *dated, rest = (rest + piece).split(b"at ")
        if dated:
            lags += [(now - int(part[:20])) / 1e6 for part in [*dated[1:], rest] if part[:20].isdigit()]
            rest = b"" if len(rest) >= 20 else b"at " + rest
    writer.close()


async def measure(hop: Hop, streams: int) -> Measured:
    """One round."""
    lags: list[float] = []
    before = hop.cpu()
    await asyncio.gather(*(one_stream(hop.port, number / streams / RATE, lags) for number in range(streams)))
    # The first second of all streams is their start: connections, requests, first reads.
    expected = streams * int(RATE * SECONDS)
    if len(lags) < expected * 0.98:
        raise RuntimeError(f"{hop.name}: {len(lags)} of {expected} events arrived")
    lags.sort()
    cpu = (hop.cpu() - before) / len(lags) * 1e6
    return Measured(lags[len(lags) // 2], lags[int(len(lags) * 0.99)], cpu)


def _figures(measured: Measured) -> tuple[float, float, float]:
    return measured.p50, measured.p99, measured.cpu


@contextmanager
def process(command: list[str], port: int, core: int) -> Iterator[int]:
    """A process that listens; ended in the end."""
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(running.pid, {core})
    first_in_line(running.pid)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield running.pid
    finally:
        running.terminate()
        running.wait(10)


def first_in_line(pid: int) -> None:
    """Before everybody else on a machine that is shared, where that is allowed."""
    with suppress(PermissionError, AttributeError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def hops(upstream_port: int, folder: Path, core: int) -> Iterator[list[Hop]]:
    """All of them."""
    with ExitStack() as stack:
        found = [Hop("direct", upstream_port)]
        if shutil.which("nginx"):
            port = free_port()
            config = folder / "nginx.conf"
            mask = f"{1 << core:b}"
            config.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port, mask=mask))
            command = [shutil.which("nginx") or "nginx", "-c", str(config), "-g", "daemon off;"]
            master = stack.enter_context(process(command, port, core))
            first_in_line(worker := int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0]))
            found.append(Hop("nginx", port, worker))
        (folder / "live.yaml").write_text(LIVE_EXTRACTION)
        for name, policy in POLICIES.items():
            port = free_port()
            chosen = str(folder / "live.yaml") if policy == "LIVE" else policy
            options = ["--policy", chosen, "--upstream", f"http://127.0.0.1:{upstream_port}"]
            command = [sys.executable, "-m", "streamguard", "proxy", *options, "--listen", f"127.0.0.1:{port}"]
            found.append(Hop(name, port, stack.enter_context(process([*command, "--drain", "0"], port, core))))
        yield found


async def rounds(folder: Path, core: int, show: Callable[[str], None]) -> None:
    server = await asyncio.start_server(upstream, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    opened = hops(port, folder, core)
    # In a thread: while the hops start, they try this upstream.
    found = await asyncio.to_thread(opened.__enter__)
    try:
        for hop in found:
            await measure(hop, 1)
        for streams in STREAMS:
            results: dict[str, list[Measured]] = {hop.name: [] for hop in found}
            for _ in range(ROUNDS):
                for hop in random.sample(found, len(found)):
                    results[hop.name].append(await measure(hop, streams))
            # What else runs on the machine only ever adds: the best round says most about the hop.
            best = {
                name: Measured(*map(min, zip(*map(_figures, rounds), strict=True))) for name, rounds in results.items()
            }
            direct = best["direct"]
            for hop in found:
                got = best[hop.name]
                cpu = "" if hop.pid is None else f"{got.cpu:8.0f}"
                show(
                    f"{streams:8} {hop.name:24} {got.p50:8.2f} {got.p99:8.2f} {got.p50 - direct.p50:9.2f} "
                    f"{got.p99 - direct.p99:9.2f} {cpu}"
                )
    finally:
        server.close()
        await asyncio.to_thread(opened.__exit__, None, None, None)


def main() -> None:
    """Print the table."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    first_in_line(os.getpid())
    print(f"{RATE} events/s and stream, {SECONDS:g} s; ms from the upstream's write to the client's read; µs of CPU")
    print(f"{'streams':>8} {'hop':24} {'p50':>8} {'p99':>8} {'added p50':>9} {'added p99':>9} {'CPU/event':>8}")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(rounds(Path(folder), cores[-1], print))
    load = statistics.fmean(os.getloadavg()[:1])
    print(f"{len(cores)} cores, load {load:.1f}, Python {sys.version.split()[0]}")
    with suppress(PermissionError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, set(cores))

"""A proxy under siege: what a good client sees while a stranger, or another client, does everything that hurts at once.

    python -m bench.siege --seconds 60            # a stranger without a token
    python -m bench.siege --seconds 60 --tenant   # a client with a token of its own

The proxy is the real command, in a process of its own, in front of a scripted upstream; so is the attacker. Prints the
good client's latencies, the proxy's peak memory and tracebacks; exit code 1 if a bound of docs/load.md is
broken.

A machine that is busy makes latencies that are not the proxy's. So the good client asks two servers by turns: the
proxy, and a bare one beside it that nobody attacks and that answers at once; its latencies are the machine's share.
`--bare` sends the same siege to such a server instead of the proxy: what a loop that does nothing makes of it. And
`--real-time` gives the servers and the good client a core that the attacker, and whatever else runs, cannot take from
them: as if they were on machines of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import multiprocessing
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from streamguard.testing import ScriptedServer, wire

TOKENS = {"good": "good-token-0123456789", "bad": "bad-token-0123456789"}
KEY = "sk-ant-api03-siege-0123456789"
ASKED = {"model": "m", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
BODY = json.dumps(ASKED).encode()
METHODS = ("PUT", "DELETE", "POST", "OPTIONS")
P99, MEMORY = 0.2, 300
"""The bounds: seconds for the good client's 99th percentile, MiB for the proxy."""


def head(
    token: str | None, *lines: str, path: str = "/v1/messages", method: str = "POST", length: int | None = None
) -> bytes:
    said = [f"{method} {path} HTTP/1.1", "host: localhost", "content-type: application/json", *lines]
    said += [f"x-api-key: {token}"] if token else []
    said += [f"content-length: {length}"] if length is not None else []
    return "\r\n".join([*said, "", ""]).encode()


def bombs() -> list[bytes]:
    fillers = (b"[],", b"{},", b"1.5,", b'"ab",', b'"\\n",', b'{"a":[{"b":1}]},')
    start, end = b'{"model":"m","max_tokens":5,"messages":[', b"1]}"
    texts = [start + filler * ((20 << 20) // len(filler)) + end for filler in fillers]
    texts += [
        start + b'"' + piece * ((20 << 20) // len(piece)) + b'",' + end for piece in (b"\\n", b'\\"', b"a", b"\\u00e9")
    ]
    return [gzip.compress(text, 6) for text in texts]


class Attacker:
    """Everything at once, from many threads, against one port."""

    def __init__(self, port: int, token: str | None) -> None:
        self.port, self.token = port, token
        self.over = threading.Event()
        self.held: list[socket.socket] = []
        self.counts: dict[str, int] = {}

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def say(self, data: bytes, *, read: bool = True, piece: int | None = None) -> None:
        with self.connection() as client:
            for at in range(0, len(data), piece or len(data)):
                client.sendall(data[at : at + (piece or len(data))])
            if read:
                client.recv(65_536)

    def hold(self, data: bytes, more: bytes = b"") -> None:
        client = self.connection()
        client.sendall(data)
        if more:
            time.sleep(0.01)
            client.sendall(more)
        self.held.append(client)
        while len(self.held) > 400:
            self.held.pop(0).close()

    def attacks(self) -> dict[str, Callable[[], None]]:
        one = b"1\r\nx\r\n" * 20_000
        chunked = "transfer-encoding: chunked"
        common = {
            "hold nothing": lambda: self.hold(b""),
            "hold half a head": lambda: self.hold(b"POST /v1/messages HTTP/1.1\r\nx: "),
            "hold a refused body": lambda: self.hold(head(None, length=1_000_000), b"x"),
            "hold a refused chunk": lambda: self.hold(head(None, chunked), b"5\r\nab"),
            "tiny chunks": lambda: self.say(head(None, chunked) + one),
            "drip": lambda: self.say(head(None, length=50) + b"x" * 50, piece=1),
            "paths": lambda: self.say(head(None, path="/_streamguard/" + "-ey" * 2600, method="GET")),
            "methods": lambda: self.say(
                head(None, path="/healthz", method=random.choice(["PUT", "DELETE", "POST"]), length=0)
            ),
            "garbage": lambda: self.say(random.randbytes(5000)),
            "headers": lambda: self.say(head(None, *(f"x-{n}: {'v' * 600}" for n in range(99)), method="GET")),
            "no answer read": lambda: self.hold(head(None, path="/_streamguard/view.js", method="GET") * 200),
            "gone": lambda: self.say(head(None, length=10), read=False),
            "pipeline": lambda: self.say(head(None, path="/healthz", method="GET") * 500),
        }
        if self.token is None:
            return common
        token, packed = self.token, bombs()
        big = json.dumps({**ASKED, "system": "x, y" * 2_000_000}).encode()

        def bomb() -> None:
            data = random.choice(packed)
            self.say(head(token, "content-encoding: gzip", length=len(data)) + data)

        return {
            **{name: attack for name, attack in common.items() if name.startswith("hold") or name == "gone"},
            "bombs": bomb,
            "large bodies": lambda: self.say(head(token, length=len(big)) + big),
            "large bodies, gone": lambda: self.say(head(token, length=len(big)) + big, read=False),
            "hold a body": lambda: self.hold(head(token, length=1_000_000), b"x" * 60_000),
            "tiny chunks": lambda: self.say(head(token, chunked) + one),
            "many requests": lambda: self.say((head(token, length=len(BODY)) + BODY) * 20),
            "slow readers": lambda: self.hold((head(token, length=len(BODY)) + BODY) * 50),
            "deep": lambda: self.say(head(token, length=60_000) + b"[" * 60_000),
        }

    def run(self, name: str, attack: Callable[[], None]) -> None:
        while not self.over.is_set():
            try:
                attack()
            except OSError:
                time.sleep(0.01)
            self.counts[name] = self.counts.get(name, 0) + 1


def real_time() -> None:
    """Give this process, its threads and those it has started a real-time priority."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in (0, *map(int, children)):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(5))


def attack(port: int, token: str | None, seconds: float, counts: multiprocessing.Queue[dict[str, int]]) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    attacker = Attacker(port, token)
    threads = [threading.Thread(target=attacker.run, args=one, daemon=True) for one in attacker.attacks().items()]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    attacker.over.set()
    counts.put(attacker.counts)


def started(folder: Path, upstream: str, log: Path, more: str = "") -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clients = [f"  - {{name: {name}, token_env: STREAMGUARD_{name.upper()}}}" for name in TOKENS]
    lines = [
        f'version: 1\nlisten: "127.0.0.1:{port}"\nupstream: {upstream}\nkey_env: ANTHROPIC_API_KEY\nclients:',
        *clients,
    ]
    (folder / "p.yaml").write_text("\n".join(lines) + "\n" + more)
    environment = {"ANTHROPIC_API_KEY": KEY} | {f"STREAMGUARD_{name.upper()}": token for name, token in TOKENS.items()}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamguard", "proxy", "--config", str(folder / "p.yaml")],
            stderr=out,
            stdout=out,
            env={**os.environ, **environment},
        )
    for _ in range(200):
        try:
            httpx2.get(f"http://127.0.0.1:{port}/healthz")
            break
        except httpx2.TransportError:
            time.sleep(0.05)
    return process, port


def memory(pid: int) -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # type: ignore[index]


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bare(asyncio.Protocol):
    """Answers every head that ends, with the same few bytes. No limits, no clocks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._seen = transport, b""

    def data_received(self, data: bytes) -> None:
        self._seen = self._seen[-3:] + data
        if b"\r\n\r\n" in self._seen:
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nmessage_stop")  # type: ignore[attr-defined]


def bare(listener: socket.socket) -> None:
    """Serve as `Bare` does, for ever."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, sock=listener, backlog=2048)
        await server.serve_forever()

    asyncio.run(main())


def bare_server() -> tuple[multiprocessing.Process, int]:
    """Such a server in a process of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    process = multiprocessing.Process(target=bare, args=(listener,), daemon=True)
    process.start()
    return process, listener.getsockname()[1]


def asked(port: int) -> tuple[float, bool]:
    """Seconds that a whole answer takes on a new connection, and whether it is one."""
    began, found = time.monotonic(), b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(head(TOKENS["good"], length=len(BODY)) + BODY)
            while b"message_stop" not in found and (piece := client.recv(65_536)):
                found += piece
    except OSError:
        pass
    return time.monotonic() - began, found.startswith(b"HTTP/1.1 200") and b"message_stop" in found


class Latencies:
    """What a good client saw of one server."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.failed = 0

    def ask(self, port: int) -> None:
        """Ask once more."""
        took, whole = asked(port)
        self.times.append(took)
        self.failed += not whole

    def at(self, share: float) -> float:
        """The latency that so many did not exceed, in seconds."""
        return sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * share))]

    def __str__(self) -> str:
        p50, p99, worst = (f"{self.at(share) * 1000:.0f} ms" for share in (0.5, 0.99, 1))
        return f"{len(self.times)} answers, {self.failed} failed; p50 {p50}, p99 {p99}, worst {worst}"


def good(port: int, beside: int, seconds: float) -> tuple[Latencies, Latencies]:
    """A good client of the server, and of the one beside it by turns; a new connection each time."""
    both, until = (Latencies(), Latencies()), time.monotonic() + seconds
    while time.monotonic() < until:
        for latencies, where in zip(both, (port, beside), strict=True):
            latencies.ask(where)
            time.sleep(0.01)
    return both


def besieged(port: int, pid: int, beside: int, token: str | None, seconds: float) -> Latencies:
    """Attack a port and print what a good client has of it; its latencies."""
    quiet, _ = good(port, beside, 3)
    counts: multiprocessing.Queue[dict[str, int]] = multiprocessing.Queue()
    attacker = multiprocessing.Process(target=attack, args=(port, token, seconds, counts), daemon=True)
    attacker.start()
    before = cpu(pid)
    found, machine = good(port, beside, seconds)
    used = (cpu(pid) - before) / seconds
    print(f"attacks: {counts.get(timeout=30)}")
    attacker.terminate()
    attacker.join()
    print(f"good client: {found}; without attacks p50 {quiet.at(0.5) * 1000:.0f} ms")
    print(f"bare server beside it: {machine}; the p99 is {found.at(0.99) / machine.at(0.99):.1f} times its")
    print(f"it had {used:.0%} of a core; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tenant", action="store_true", help="attack as a client with a token")
    parser.add_argument("--bare", action="store_true", help="attack a server that does nothing, for comparison")
    parser.add_argument("--real-time", action="store_true", help="keep the attacker off the servers' core")
    options = parser.parse_args()
    prepare = real_time if options.real_time else lambda: None
    token = TOKENS["bad"] if options.tenant else None
    _, beside = bare_server()
    if options.bare:
        other, port = bare_server()
        assert other.pid is not None
        prepare()
        besieged(port, other.pid, beside, token, options.seconds)
        return 0
    with tempfile.TemporaryDirectory() as name, ScriptedServer(wire.text_stream("fine")).in_process() as upstream:
        log = Path(name) / "log"
        process, port = started(Path(name), upstream.url, log)
        prepare()
        try:
            found = besieged(port, process.pid, beside, token, options.seconds)
            time.sleep(3)
            peak, text = memory(process.pid), log.read_text(errors="replace")
            tracebacks, size = text.count("Traceback"), len(text)
            alive = process.poll() is None
        finally:
            process.terminate()
            process.wait(10)
    print(f"peak memory {peak:.0f} MiB, {tracebacks} tracebacks, log {size / 1024:.0f} KiB, alive {alive}")
    return int(not alive or found.at(0.99) > P99 or peak > MEMORY or tracebacks > 0 or found.failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())

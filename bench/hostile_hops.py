"""Mutated requests and mutated upstream answers through a real proxy: every one has a status, none is a 500.

    python -m bench.hostile_hops --requests 20000 --answers 20000

Requests are broken bytes on a connection of their own; answers are broken bytes of an upstream, met by a good request.
Counts answers by status, and what must not be: 500, no answer, a body that is no typed error, tracebacks, and
connections that are left over. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from bench.siege import BODY, KEY, TOKENS, head, started
from streamguard.testing import wire

GOOD = b"".join(one if isinstance(one, bytes) else b"" for one in wire.text_stream("fine"))
SPLICES = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\xff", b"0", b"-1", b"99999999999999999999", b"{", b"[", b'"', b"\\"),
    *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"host: b\r\n"),
    *(b"HTTP/1.1 200 OK\r\n\r\n", b"event: error\n", b"data: null\n\n", b"\n\n", b"5\r\nhello\r\n", b"0\r\n\r\n"),
    *(b"retry-after: 1e999\r\n", b"content-encoding: gzip\r\n", b"content-type: text/html\r\n", b": x\n\n"),
]


def mutant(chance: random.Random, seed: bytes) -> bytes:
    """A few changes at random places."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(SPLICES)
            case 1:
                del data[at : at + chance.randint(1, 40)]
            case 2 if at < len(data):
                data[at] = chance.randrange(256)
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 200)]
            case _:
                data = data[:at] if chance.random() < 0.2 else data
    return bytes(data)


def exchange(port: int, data: bytes, seconds: float = 8.0) -> bytes:
    """What comes back; the request's end is said."""
    found = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=seconds) as client:
        client.sendall(data)
        while piece := client.recv(65_536):
            found += piece
            ended = re.search(rb"content-length: (\d+)", found)
            if ended and len(found.partition(b"\r\n\r\n")[2]) >= int(ended[1]):
                break
    return found


class Upstream:
    """Answers every request with the next mutant of an answer, and closes."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._lock = threading.Lock()
        length = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(GOOD)
        chunked = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        error = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": f"no {KEY}"}}).encode()
        self.seeds = [
            length + GOOD,
            chunked + b"%x\r\n%b\r\n" % (len(GOOD), GOOD) + b"0\r\n\r\n",
            b"HTTP/1.1 529 Overloaded\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(error)
            + error,
            b"HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: %d\r\n\r\n" % len(error) + error,
        ]
        for _ in range(16):
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with suppress(OSError), client:
                client.settimeout(5)
                asked = b""
                while b"\r\n\r\n" not in asked:
                    piece = client.recv(65_536)
                    if not piece:
                        break
                    asked += piece
                with self._lock:
                    answer = mutant(self._chance, self._chance.choice(self.seeds))
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                with suppress(OSError):
                    while client.recv(65_536):
                        pass


def requests() -> list[bytes]:
    """What requests are made of."""
    token = TOKENS["good"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(BODY[at : at + 40]), BODY[at : at + 40]) for at in range(0, len(BODY), 40))
    close = "connection: close"
    return [
        head(token, close, length=len(BODY)) + BODY,
        head(token, close, "transfer-encoding: chunked") + chunks + b"0\r\n\r\n",
        head(None, close, length=len(BODY)) + BODY,
        head(token, close, method="GET", path="/v1/models"),
        head(token, close, path="/v1/messages/count_tokens", length=len(BODY)) + BODY,
        head(None, close, method="GET", path="/_streamguard/state"),
        head(None, close, method="GET", path="/healthz"),
        head(TOKENS["bad"], close, method="GET", path="/metrics"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=12)
    options = parser.parse_args()
    statuses: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    examples: dict[str, bytes] = {}
    lock = threading.Lock()

    def note(kind: str, data: bytes, answer: bytes) -> None:
        found = re.match(rb"(?:HTTP/1\.1 100 Continue\r\n\r\n)?HTTP/1\.1 (\d+)", answer)
        status = found[1].decode() if found else "none"
        problem = None
        if status == "500":
            problem = f"{kind}: 500"
        elif KEY.encode() in answer:
            problem = f"{kind}: the key"
        elif b"x-streamguard-" in answer and int(status) >= 400 and b'"error": {"type": "' not in answer:
            # What is relayed without guards is passed on as it came, broken or not.
            problem = f"{kind}: {status}, untyped"
        with lock:
            statuses[f"{kind} {status}"] += 1
            if problem:
                wrong[problem] += 1
                examples.setdefault(problem, data[:600] + b" ... " + answer[:300])

    upstream = Upstream(options.seed)
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        limits = (
            "policy: p.chat.yaml\nroutes:\n  - {path: /off, policy: off}\n"
            "limits: {head_seconds: 1, body_seconds: 1, idle_seconds: 1, requests_per_second: 100000}\n"
        )
        chat = "version: 1\nextends: streamguard:interactive_chat\ntimeouts: {total: 5}\nretry: {attempts: 1}\n"
        (Path(name) / "p.chat.yaml").write_text(chat)
        process, port = started(Path(name), upstream.url, log, limits)
        seeds = requests()
        off = head(TOKENS["good"], "connection: close", path="/off/v1/messages", length=len(BODY)) + BODY
        plain = BODY.replace(b"true", b"false")
        good = [seeds[0], off, head(TOKENS["good"], "connection: close", length=len(plain)) + plain, seeds[3]]

        def work(number: int) -> None:
            chance = random.Random(options.seed * 1000 + number)
            for _ in range(options.requests // options.threads):
                data = mutant(chance, chance.choice(seeds))
                note("request", data, exchange(port, data))
            for _ in range(options.answers // options.threads):
                note("answer", b"", exchange(port, chance.choice(good)))

        began = time.monotonic()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(options.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(4)
        text = log.read_text(errors="replace")
        gone = exchange(port, head(TOKENS["good"], method="GET", path="/healthz"))
        left = sum(f":{port:04X}" in line and " 01 " in line for line in Path("/proc/net/tcp").read_text().splitlines())
        process.terminate()
        process.wait(10)
    for name_, count in sorted(statuses.items()):
        print(f"{name_}: {count}")
    print(f"{time.monotonic() - began:.0f} s; wrong: {dict(wrong)}; tracebacks {text.count('Traceback')}; left {left}")
    for problem, example in examples.items():
        print(problem, example)
    if "Traceback" in text:
        print(text[text.index("Traceback") - 500 :][:3000])
    return int(bool(wrong) or "Traceback" in text or left > 2 or b"200" not in gone)


if __name__ == "__main__":
    raise SystemExit(main())

"""Mutated requests and mutated upstream answers by the hundred thousand, in one process and in virtual time.

    python -m bench.hostile_campaign --requests 50000 --answers 50000 --seed 7

The connections, the framing, the application and the engine are the proxy's own, byte for byte; only the kernel's
sockets are left out: transports are objects in memory, and clocks cost nothing, so every connection is left to end by
its own clock. `bench.hostile_hops` does the same over sockets, with fewer bytes. Answers are read by h11, and so is
what the proxy sends upstream: a second reader, which must find the same requests.

Counts answers by status, and what must not be: a 500, an answer that is no HTTP or no typed error, the key, a stream
that ends without saying so, a traceback, anything that is left over. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import re
import time
from collections import Counter
from typing import Any, Final

import anyio
import h11

from bench import hostile_bytes
from bench.hostile_bytes import mutant
from bench.siege import KEY, TOKENS
from streamguard import Policy, Timeouts
from streamguard.http.clients import Clients
from streamguard.http.connection import ClientConnection
from streamguard.http.network import Connection
from streamguard.policy.file import load_policy
from streamguard.proxy.app import Proxy
from streamguard.proxy.config import ProxyConfig
from streamguard.proxy.configfile import Setup
from streamguard.proxy.log_redaction import RedactingFormatter
from streamguard.testing import run_virtual

BATCH: Final = 250
"""Exchanges at a time, of which nothing may be left over afterwards."""

SETTLED: Final = 10.0
"""Seconds after the last connection of a batch has ended by which all that it caused must have ended."""

PATHS: Final = re.compile(rb"/v1/(messages(/count_tokens)?|models(/[A-Za-z0-9._:@-]+)?)(\?[A-Za-z0-9._~%=&:+-]*)?")
"""What may be asked upstream."""

UPSTREAM: Final = ("127.0.0.1", 9)
CONFIG: Final[dict[str, Any]] = {
    "upstream": "http://127.0.0.1:9",
    "key_env": "ANTHROPIC_API_KEY",
    "clients": [{"name": name, "token_env": f"STREAMGUARD_{name.upper()}"} for name in TOKENS],
    "policies": {"chat": "x", "again": "x"},
    "policy": "chat",
    "routes": [{"path": "/off", "policy": "off"}, {"path": "/again", "policy": "again"}],
    "limits": {"requests_per_second": 1e6},
}


class MemoryTransport(asyncio.Transport):
    """One end of a connection, for the protocol that writes to it."""

    def __init__(self, protocol: asyncio.Protocol, peer: tuple[str, int]) -> None:
        super().__init__()
        self._protocol, self._peer = protocol, peer
        self.written = bytearray()
        self.news = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.closing = self.eof = False
        self.closed = asyncio.Event()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self._peer, "sockname": ("127.0.0.1", 8787)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closing:
            self.written += data
            self.news.set()

    def write_eof(self) -> None:
        self.eof = True
        self.news.set()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    def lose(self, error: Exception | None) -> None:
        """End the connection, by either side."""
        if not self.closing:
            self.closing = True
            self.news.set()
            self.reading.set()
            asyncio.get_running_loop().call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
        self.closed.set()

    async def give(self, data: bytes, chance: random.Random) -> None:
        """Hand bytes to the protocol, in pieces as a network would."""
        width = chance.choice((1 << 20, 1 << 20, 1460, 97, 17))
        for at in range(0, len(data), width):
            await self.reading.wait()
            if self.closing:
                return
            self._protocol.data_received(data[at : at + width])
            if len(data) > width:
                await asyncio.sleep(0)


class MemoryNetwork:
    """Connects to an upstream that answers with whatever `answer` gives."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None) -> Connection:  # noqa: ARG002
        """See `streamguard.http.network`."""
        assert (host, port) == UPSTREAM
        connection = Connection()
        transport = MemoryTransport(connection, UPSTREAM)
        connection.connection_made(transport)
        task = asyncio.get_running_loop().create_task(self._serve(transport))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(0)
        return connection

    async def _serve(self, transport: MemoryTransport) -> None:
        """Read requests by h11, answer with bytes; until the proxy closes, or the answer says so."""
        campaign, state = self._campaign, h11.Connection(h11.SERVER)
        while not transport.closing:
            event = state.next_event()
            if isinstance(event, h11.Request) and not PATHS.fullmatch(event.target):
                campaign.wrong["a path went upstream that is not served"] += 1
            elif isinstance(event, h11.EndOfMessage):
                data, ends = campaign.answer()
                await transport.give(data, campaign.chance)
                if ends:
                    transport.lose(None)
                elif data is campaign.good_answer:
                    length = len(data.partition(b"\r\n\r\n")[2])
                    state.send(h11.Response(status_code=200, headers=[("content-length", str(length))]))
                    state.send(h11.Data(data=bytes(length)))
                    state.send(h11.EndOfMessage())
                    state.start_next_cycle()
                    continue
                await transport.closed.wait()
            elif event is h11.NEED_DATA:
                transport.news.clear()
                if not transport.written and not transport.closing:
                    await transport.news.wait()
                state.receive_data(bytes(transport.written))
                transport.written.clear()


class Watched(logging.Handler):
    """Counts tracebacks, and lines with a secret in them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(RedactingFormatter([KEY, *TOKENS.values()]))
        self.tracebacks: list[str] = []
        self.secrets = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.secrets += KEY in text
        if record.exc_info or "Traceback" in text:
            self.tracebacks.append(text)


class Campaign:
    """One run: seeds, the proxy, and what was found."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.statuses: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.examples: dict[str, tuple[bytes, bytes]] = {}
        self.good_answer = hostile_bytes.answer(hostile_bytes.GOOD)
        self._answers = hostile_bytes.answers()
        self._mutate_answers = False

    def answer(self) -> tuple[bytes, bool]:
        """What the upstream says next, and whether it closes then."""
        if not self._mutate_answers:
            return self.good_answer, False
        data = mutant(self.chance, self.chance.choice(self._answers))
        self._last = data
        return data, self.chance.random() < 0.5

    async def run(self, requests: int, answers: int) -> None:
        """Send all, in batches."""
        shipped = load_policy("streamguard:interactive_chat").model_copy(update={"timeouts": Timeouts(total=20)})
        once = shipped.retry.model_copy(update={"attempts": 1})
        policies: dict[str, Policy | None] = {
            "off": None,
            "chat": shipped.model_copy(update={"retry": once}),
            "again": shipped.model_copy(update={"deliver": "committed"}),
        }
        config = ProxyConfig.model_validate_json(json.dumps(CONFIG))
        proxy = Proxy(Setup(config=config, policies=policies, default="chat", key=KEY, tokens=TOKENS))
        origin = proxy._upstream.origin
        origin._network = MemoryNetwork(self)  # type: ignore[assignment]
        clients = Clients(proxy, config.limits, proxy.count_refusal)
        mutated, well_formed = hostile_bytes.requests(), hostile_bytes.good_requests()
        for kind, total in (("request", requests), ("answer", answers)):
            self._mutate_answers = kind == "answer"
            for done in range(0, total, BATCH):
                async with anyio.create_task_group() as group:
                    for _ in range(min(BATCH, total - done)):
                        chance = random.Random(self.chance.getrandbits(64))
                        seed = chance.choice(well_formed if self._mutate_answers else mutated)
                        data = seed if self._mutate_answers else mutant(chance, seed)
                        group.start_soon(self._one, clients, kind, data, chance)
                # Of the clock's seconds: what takes longer to end is left over.
                await anyio.sleep(SETTLED)
                left = {
                    "connections": len(clients.connections),
                    "tasks": len(clients.tasks),
                    "upstream connections in use": len(origin._used),
                    "bytes of memory held": proxy._memory.held,
                    "calls": len(proxy.runtime.calls),
                    "requests under way": sum(proxy._under_way.values()),
                }
                for name, count in left.items():
                    self.wrong[f"left: {name}"] += count
        await proxy.aclose()

    async def _one(self, clients: Clients, kind: str, data: bytes, chance: random.Random) -> None:
        connection = ClientConnection(clients)
        transport = MemoryTransport(connection, (f"10.0.0.{chance.randrange(250)}", 5))
        connection.connection_made(transport)
        fate = chance.random()
        if fate < 0.03:
            connection.pause_writing()  # a client that reads nothing, ever
        await transport.give(data, chance)
        if fate > 0.95:  # one that leaves
            await anyio.sleep(chance.choice((0, 0, 0.01, 3)))
            transport.lose(ConnectionResetError())
        await transport.closed.wait()
        self._judge(kind, data, bytes(transport.written), left=fate < 0.03 or fate > 0.95)

    def _judge(self, kind: str, data: bytes, raw: bytes, *, left: bool) -> None:
        problems = [f"{kind}: the key"] if KEY.encode() in raw and KEY.encode() not in data else []
        if left:
            self.statuses[f"{kind} (left)"] += 1
        else:
            problems += [f"{kind}: {one}" for one in self._problems(kind, data, raw)]
        for problem in problems:
            self.wrong[problem] += 1
            self.examples.setdefault(problem, (data, raw))

    def _problems(self, kind: str, data: bytes, raw: bytes) -> list[str]:
        if not raw:
            self.statuses[f"{kind} none"] += 1
            return ["no answer"] if data else []
        found = []
        silent = data.startswith(b"HEAD ")
        while raw and not found:
            status, headers, body, whole, raw = read(raw, "HEAD" if silent else "GET")
            self.statuses[f"{kind} {status}"] += 1
            ours = any(name.startswith(b"x-streamguard-") for name in headers)
            if status is None:
                found.append("no HTTP")
            elif status == 500:
                found.append("500")
            elif status >= 400 and ours and not silent and not typed(body):
                found.append(f"{status}, untyped")
            elif status == 200 and b"x-streamguard-call" in headers and b"event-stream" in headers[b"content-type"]:
                if b"message_stop" not in body and b"event: error" not in body:
                    found.append("a stream without an end")
            elif status == 200 and b"x-streamguard-call" in headers and whole:
                json.loads(body)
        return found


def read(raw: bytes, method: str) -> tuple[int | None, dict[bytes, bytes], bytes, bool, bytes]:
    """The first response by h11: status, headers, body, whether it is whole, and what follows."""
    state = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    state.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    state.send(h11.EndOfMessage())
    status: int | None = None
    headers: dict[bytes, bytes] = {}
    body = bytearray()
    try:
        state.receive_data(raw)
        state.receive_data(b"")
        while True:
            event = state.next_event()
            if isinstance(event, h11.Response):
                status, headers = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, headers, bytes(body), True, bytes(state.trailing_data[0])
            elif not isinstance(event, h11.InformationalResponse):
                return status, headers, bytes(body), False, b""
    except h11.RemoteProtocolError:
        return status, headers, bytes(body), False, b""


def typed(body: bytes) -> bool:
    """Whether a body is an error in the provider's form."""
    try:
        found = json.loads(body)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("error"), dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--answers", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    watched = Watched()
    logging.getLogger().addHandler(watched)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    campaign = Campaign(options.seed)
    began, cpu = time.monotonic(), time.process_time()
    run_virtual(campaign.run, options.requests, options.answers, within=1e12)
    for name, count in sorted(campaign.statuses.items()):
        print(f"{name}: {count}")
    wrong = {name: count for name, count in campaign.wrong.items() if count}
    total = options.requests + options.answers
    print(
        f"{total} exchanges in {time.monotonic() - began:.0f} s ({time.process_time() - cpu:.0f} s of CPU); "
        f"wrong: {wrong}; tracebacks {len(watched.tracebacks)}; lines with a secret {watched.secrets}"
    )
    for problem, (data, raw) in campaign.examples.items():
        print(problem, data[:600], "...", raw[:600])
    for text in watched.tracebacks[:3]:
        print(text[:3000])
    return int(bool(wrong) or bool(watched.tracebacks) or watched.secrets > 0)


if __name__ == "__main__":
    raise SystemExit(main())

"""The running server: draining, signals, and a log without secrets; in this process and as the command."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import anyio
import httpx2
import pytest

from streamguard.errors import ConfigError
from streamguard.proxy.config import Listen
from streamguard.proxy.log_redaction import RedactingFormatter
from streamguard.proxy.server import bound_socket
from streamguard.testing import ScriptedServer, fin, pause, stall, wire
from tests.data import ROOT
from tests.proxy.running import KEY, LIVE, REQUEST, Running, error_of, until, with_proxy

GOOD = wire.text_stream("fine")
HALF = [wire.message_start(), wire.block_start(), wire.text_delta("a")]


def test_draining_lets_answers_end_and_takes_no_more() -> None:
    """After the first signal: what runs goes on to its end, what comes is refused, health says so."""

    async def test(running: Running) -> None:
        answers = []

        async def ask() -> None:
            answers.append(await running.ask())

        async with anyio.create_task_group() as tasks:
            # Connections that were open before, as a client's pool holds them.
            assert (await running.http.get(f"{running.url}/healthz")).status_code == 200
            tasks.start_soon(ask)
            await until(lambda: running.upstream.exchanges and running.upstream.exchanges[0].deltas_sent)
            running.proxy.draining = True
            health = await running.http.get(f"{running.url}/healthz")
            assert (health.status_code, health.json()) == (503, {"status": "draining"})
            refused = await running.ask()
            assert (refused.status_code, refused.headers["x-streamguard-refused"]) == (503, "draining")
            assert (refused.headers["connection"], refused.headers["retry-after"]) == ("close", "1")
            # Another instance will take it: the SDK may ask again.
            assert "x-should-retry" not in refused.headers
            running.server.stop()
        (answer,) = answers
        assert answer.content.count(b"event: message_stop") == 1
        assert len(running.upstream.exchanges) == 1

    with_proxy([[*HALF, pause(0.4), *GOOD[-3:]]], test, LIVE)


def test_an_open_live_view_does_not_hold_the_proxy_up() -> None:
    """A page that looks on is let go when draining begins."""

    async def test(running: Running) -> None:
        async with running.http.stream("GET", f"{running.url}/_streamguard/events") as page:
            pieces = page.aiter_raw()
            await anext(pieces)
            began = anyio.current_time()
            running.server.stop()
            async for _ in pieces:
                pass
        assert anyio.current_time() - began < 3

    with_proxy([GOOD], test, LIVE, drain=600)


def test_answers_that_do_not_end_in_time_are_interrupted_and_told() -> None:
    """When the time for draining is over: `operator.interrupt`, as an event or a status, and the upstream is left."""

    async def test(running: Running) -> None:
        answers: dict[bool, httpx2.Response] = {}

        async def ask(stream: bool) -> None:
            answers[stream] = await running.ask(stream=stream)

        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for stream in (True, False):
                tasks.start_soon(ask, stream)
            await until(lambda: len(running.proxy.runtime.calls) == 2)
            await until(lambda: all(one.deltas_sent for one in running.upstream.exchanges))
            await anyio.sleep(0.05)
            running.server.stop()
        assert anyio.current_time() - began < 3
        for stream, answer in answers.items():
            found = error_of(answer.content)["details"]["streamguard"]
            assert found["reason"] == "operator.interrupt"
            assert answer.status_code == (200 if stream else 422)
        assert running.proxy.runtime.calls == {}

    with_proxy([[*HALF, stall()]], test, LIVE, drain=0.2)


def test_a_second_signal_ends_it_at_once() -> None:
    """Whoever asks twice means it."""

    async def test(running: Running) -> None:
        async def ask() -> None:
            await running.ask()

        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: running.upstream.exchanges and running.upstream.exchanges[0].deltas_sent)
            running.server.stop()
            running.server.stop()
        assert anyio.current_time() - began < 3

    with_proxy([[*HALF, stall()]], test, LIVE, drain=600)


def test_an_address_that_is_taken_is_named() -> None:
    """Which address, and why; before anything is served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bound_socket(Listen(port=port))


SECRETS = (KEY, "operator-token-canary-0123")


@pytest.mark.parametrize(
    "text",
    [
        f"x-api-key: {KEY}",
        f"token {SECRETS[1]} of somebody",
        "authorization: Bearer abcdefghijklmnop.qrst",
        "https://me:hunter2-canary@api.example.com/v1",
        "sk-ant-api03-another-canary-key-0123456789",
    ],
)
def test_a_line_with_a_secret_is_redacted(text: str) -> None:
    """The known secrets by value, others by their look; in messages, arguments and exceptions."""
    formatter = RedactingFormatter(SECRETS)
    try:
        raise ValueError(text)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "said %s", (text,), sys.exc_info())
    line = formatter.format(record)
    assert "[redacted]" in line
    for secret in (*SECRETS, "hunter2-canary", "another-canary-key", "abcdefghijklmnop.qrst"):
        assert secret not in line


def test_a_line_moves_no_cursor() -> None:
    """Text of models and clients is spelled out."""
    record = logging.LogRecord("x", logging.ERROR, "", 1, "\x1b[2Jgone\u202e", (), None)
    assert "\\e[2Jgone\\u202e" in RedactingFormatter([]).format(record)


@contextmanager
def command(
    upstream: str, log: IO[bytes], *options: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`streamguard proxy` as a process, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    code = "import logging; logging.root.setLevel(logging.DEBUG); from streamguard.cli.main import main; main()"
    arguments = ["proxy", "--upstream", upstream, "--listen", f"127.0.0.1:{port}", *options]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=log, stdout=log, cwd=ROOT, env={**os.environ, **environment}
    )
    try:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx2.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx2.ConnectError:
                time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.wait()


def test_the_command_serves_drains_and_says_no_secret(tmp_path: Path) -> None:
    """With everything logged: answers, failures and refusals, then SIGTERM. No key, no token and no text in the log."""
    token = "client-token-canary-0123456789"
    bad = [wire.message_start(), wire.block_start(), wire.text_delta("canary text"), fin()]
    log_file = tmp_path / "log"
    with (
        ScriptedServer({"good": GOOD, "bad": bad}).in_thread() as upstream,
        log_file.open("wb") as log,
        command(
            upstream.url,
            log,
            *("--policy", "streamguard:interactive_chat", "--key-env", "ANTHROPIC_API_KEY", "--verbose"),
            *("--token-env", "ada=STREAMGUARD_ADA", "--drain", "2"),
            ANTHROPIC_API_KEY=KEY,
            STREAMGUARD_ADA=token,
        ) as (process, port),
    ):
        url = f"http://127.0.0.1:{port}/v1/messages"
        ask = {**REQUEST, "messages": [{"role": "user", "content": "canary prompt"}]}
        with httpx2.Client() as http:
            for headers in (
                {"x-api-key": token},
                {"x-api-key": "wrong-canary-0123456"},
                {"authorization": f"Bearer {token}"},
            ):
                http.post(url, json=ask, headers={**headers, "x-script": "good"})
            http.post(url, content=b"{broken canary", headers={"x-api-key": token, "content-type": "application/json"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    said = log_file.read_text()
    assert f"http://127.0.0.1:{port} guards {upstream.url}" in said
    assert "clients: ada" in said
    assert "SIGTERM: draining" in said
    for canary in (KEY, token, "wrong-canary", "canary prompt", "canary text", "broken canary"):
        assert canary not in said
    assert all(exchange.headers["x-api-key"] == KEY for exchange in upstream.exchanges)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--listen", "0.0.0.0:1"], "name at least one client with a token"),
        (["--policy", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--key-env", "HOME"], "'HOME' must be an environment variable"),
        (["--key-env", "STREAMGUARD_UNSET"], "the environment variable STREAMGUARD_UNSET is not set"),
        (["--upstream", "http://example.com"], "plain text over the network"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
    ],
)
def test_mistakes_end_the_command_before_it_serves(
    options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one sentence with its place on standard error."""
    from streamguard.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["proxy", *options])
    assert ended.value.code == 2
    assert message in capfd.readouterr().err

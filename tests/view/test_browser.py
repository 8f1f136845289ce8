"""The live view, and the relay's example page, in a real Chromium: what a person sees, and what a click does."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic
import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import uvicorn

import streamguard
from streamguard import JsonDocument, Policy, Retry, Rule, Runtime, Timeouts, messages
from streamguard.testing import ScriptedServer, expect_disconnect, pace, pause, script, wire
from streamguard.view import serve_view
from tests.data import ROOT
from tests.view.chromium import Page, browser, installed

pytestmark = pytest.mark.skipif(
    installed() is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)

MARKUP = "<img src=x onerror=\"document.title='owned'\"><b>bold</b> "


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """One browser for all tests, with a profile of its own."""
    folder = Path(tempfile.mkdtemp(prefix="streamguard-view-"))
    try:
        with browser(folder) as started:
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _clean(page: Page) -> Iterator[None]:
    """Nothing a test does may be complained about by the browser."""
    page.console.clear()
    yield
    assert page.console == []


def said(*pieces: str, thinking: str = "", bad: bool = False) -> list[Any]:
    """The beginning of an answer, over sockets."""
    items: list[Any] = [wire.message_start(usage={"input_tokens": 40})]
    if thinking:
        items += [wire.block_start(0, "thinking"), wire.thinking_delta(thinking, 0), wire.block_stop(0)]
    index = 1 if thinking else 0
    return [
        *items,
        wire.block_start(index),
        pace(200),
        *[wire.text_delta(piece, index) for piece in pieces],
        pace(None),
    ]


def whole(items: list[Any], index: int = 0) -> list[Any]:
    return [*items, wire.block_stop(index), wire.message_delta(usage={"output_tokens": 20}), wire.message_stop()]


@asynccontextmanager
async def calls(
    scripts: dict[str, list[list[Any]]], policy: Policy, runtime: Runtime, **about: Any
) -> AsyncIterator[Any]:
    """One running call for each script."""
    named = {name: script(*attempts) for name, attempts in scripts.items()}
    async with ScriptedServer(named) as provider, anyio.create_task_group() as tasks:
        client = anthropic.AsyncAnthropic(api_key="sk-ant-test", base_url=provider.url, max_retries=0)

        async def call(name: str) -> None:
            request = {"model": "claude-haiku-4-5", "max_tokens": 500, "messages": [{"role": "user", "content": "x"}]}
            source = messages(client, extra_headers={"x-script": name}, **request)
            with suppress(streamguard.CallError):
                await streamguard.run(source, policy=policy, runtime=runtime, labels={"row": name}, **about)

        for name in scripts:
            tasks.start_soon(call, name)
        yield provider
        tasks.cancel_scope.cancel()
        await client.close()


def driven(page: Page, main: Callable[..., Any], drive: Callable[..., Any]) -> None:
    """Run an async context with a server in it, and drive the browser meanwhile from a thread."""

    def drive_and_close(given: Any) -> None:
        try:
            drive(given)
        finally:
            page.close()

    async def both() -> None:
        async with main() as given:
            await anyio.to_thread.run_sync(drive_and_close, given)

    anyio.run(both)


def row(label: str) -> str:
    return f"[...document.querySelectorAll('.row')].find(row => row.innerText.includes('{label}'))"


def test_watch_and_interrupt(page: Page, tmp_path: Path) -> None:
    """A person sees a call stream, with its thinking apart and its markup as text, and ends it with a click: the
    provider sees the end of the connection at once, and the page says who did it."""

    @asynccontextmanager
    async def main() -> AsyncIterator[Any]:
        runtime = Runtime()
        endless = [*said(MARKUP, "so it ", "goes ", thinking=MARKUP), expect_disconnect(12)]
        policy = Policy(timeouts=Timeouts(total=90))
        async with calls({"first": [endless]}, policy, runtime) as provider, serve_view(runtime, port=0) as url:
            yield provider, url

    def drive(given: Any) -> None:
        provider, url = given
        page.open(url)
        page.until(row("first"))
        page.click(".row")
        page.until("document.querySelector('#detail .block:not(.thinking) pre')?.innerText.includes('goes')")
        assert page.text("#detail .block:not(.thinking) pre") == MARKUP + "so it goes "
        assert page.text("#detail .block.thinking pre") == MARKUP
        assert page.evaluate("document.querySelectorAll('#detail pre *').length") == 0
        assert "≈" in page.text("#detail .facts")
        # The clock "alive" stands only once the server has sent a ping; this one sends none.
        assert [word in page.text("#detail .clocks") for word in ("progress", "alive", "total")] == [True, False, True]
        first = page.text("#elapsed")
        page.until(f"document.getElementById('elapsed').innerText !== {first!r}")
        for dark in (False, True):
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            page.send("Emulation.setEmulatedMedia", features=scheme)
            page.screenshot(tmp_path / "view.png", scale=0.25)
            light, colours = looks(tmp_path / "view.png")
            assert (light < 90) if dark else (light > 200)
            assert colours > 50
        assert provider.exchanges[0].open
        page.click("#interrupt")
        page.until("document.querySelector('.head .state').innerText.includes('gave up: operator.interrupt')")
        assert not provider.exchanges[0].open
        assert provider.exchanges[0].disconnected_at is not None
        assert provider.violations == []
        assert "operator" in page.text("#detail .attempt .message")
        assert page.evaluate("document.title") != "owned"

    driven(page, main, drive)


def test_attempts_groups_and_pause(page: Page) -> None:
    """An aborted attempt shows its dead byte, the next one streams above it; calls of a group stand together as steps;
    admission is paused and resumed by the keyboard as well."""

    @asynccontextmanager
    async def main() -> AsyncIterator[Any]:
        runtime = Runtime()
        policy = Policy(json=JsonDocument(), retry=Retry(attempts=2, rules=[Rule(when=["json.*"])]))
        bad, good = said('{"to', 'tal" 12}'), [*said('{"total": ', "12"), pause(30)]
        scripts = {"step one": [bad, good], "step two": [whole(said('{"a": 1}'))]}
        async with calls(scripts, policy, runtime, group="agent 7"), serve_view(runtime, port=0) as url:
            yield url, runtime

    def drive(given: Any) -> None:
        url, runtime = given
        page.open(url)
        page.until("document.querySelector('.group h2')?.innerText.includes('2 steps')")
        assert "agent 7" in page.text(".group h2")
        page.evaluate(f"{row('step one')}.focus()")
        page.press("Enter")
        page.until("document.querySelectorAll('#detail .attempt').length === 2")
        page.until("document.querySelector('#detail .attempt pre').innerText === '{\"total\": 12'")
        assert page.text("#detail .attempt:nth-child(2) .reason") == "json.malformed"
        assert page.text("#detail .attempt:nth-child(2) mark.dead") == "1"
        assert page.text("#detail .attempt:nth-child(2) pre").startswith('{"total" 1')
        assert "dead byte 9" in page.text("#detail .attempt:nth-child(2) header")
        page.evaluate("document.getElementById('pause').focus()")
        page.press("Enter")
        page.until("!document.getElementById('paused').hidden")
        assert runtime.paused == "the live view's operator"
        page.press("Enter")
        page.until("document.getElementById('paused').hidden")
        assert runtime.paused is None
        page.evaluate(f"{row('step one')}.focus()")
        page.press("ArrowDown" if page.evaluate(f"{row('step one')} === document.querySelector('.row')") else "ArrowUp")
        assert "step two" in page.evaluate("document.activeElement.innerText")
        page.press("Escape")
        page.until("document.querySelector('#detail .empty')")

    driven(page, main, drive)


def test_the_token(page: Page) -> None:
    """A token behind the address's # opens the view and is gone from the address; without one the page asks for it."""

    @asynccontextmanager
    async def main() -> AsyncIterator[Any]:
        async with serve_view(Runtime(), port=0, token="0123456789abcdef") as url:
            yield url

    def drive(url: str) -> None:
        page.open(url.partition("#")[0])
        page.until("document.getElementById('ask').open")
        page.evaluate("document.getElementById('token').value = '0123456789abcdef'")
        page.click("#ask button")
        page.until("document.getElementById('link').innerText === 'live'")
        page.evaluate("sessionStorage.clear()")
        page.open(url)
        page.until("document.getElementById('link').innerText === 'live'")
        assert page.evaluate("location.href") == url.partition("#")[0]
        # A 401 is told in the log by the browser itself.
        page.console[:] = [line for line in page.console if "401" not in line]

    driven(page, main, drive)


@asynccontextmanager
async def chat(scripts: list[list[Any]]) -> AsyncIterator[Any]:
    """The relay's example, over a scripted provider."""
    spec = importlib.util.spec_from_file_location("relay_example", ROOT / "examples" / "relay" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    async with ScriptedServer(*scripts) as provider:
        client = anthropic.AsyncAnthropic(api_key="sk-ant-test", base_url=provider.url, max_retries=0)
        app = example.make_app(client)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server._serve, [listener])
                try:
                    yield provider, f"http://127.0.0.1:{listener.getsockname()[1]}/"
                finally:
                    server.should_exit = True
        await client.close()


def send(page: Page, text: str) -> None:
    page.evaluate(f"document.getElementById('say').value = {text!r}")
    page.click("form button")


def test_a_chat(page: Page) -> None:
    """The example's page shows an answer as it comes, forgets what was void, and its history has whole turns only; a
    page that is left ends the call."""
    scripts = [
        said("LOST LOST"),
        whole(said("Hello, ", MARKUP, thinking="hm"), 1),
        [*said("And "), expect_disconnect(12)],
    ]

    def drive(given: Any) -> None:
        provider, url = given
        page.open(url)
        page.until("document.getElementById('say')")
        send(page, "Hi")
        page.until("document.querySelector('.note:last-child')?.innerText.includes('✓')")
        assert page.text(".answer") == "Hello, " + MARKUP
        assert page.text(".thinking") == "hm"
        assert page.text(".note:last-child") == "asked again: transport.incomplete ✓"
        send(page, "Go on")
        page.until("[...document.querySelectorAll('.answer')].at(-1).innerText.includes('And')")
        page.send("Page.navigate", url="about:blank")
        for _ in range(200):
            if provider.exchanges[2].disconnected_at is not None:
                break
            page.evaluate("new Promise(done => setTimeout(done, 10))")
        assert provider.violations == []
        history = provider.requests[2]["messages"]
        assert [turn["role"] for turn in history] == ["user", "assistant", "user"]
        assert "LOST" not in str(history)

    driven(page, lambda: chat(scripts), drive)


def test_a_chat_without_an_answer(page: Page) -> None:
    """When there is no answer, the page says why in general words, and does not ask again."""

    def drive(given: Any) -> None:
        provider, url = given
        page.open(url)
        page.until("document.getElementById('say')")
        send(page, "Hi")
        page.until("document.querySelector('.note:last-child')?.innerText.includes('no answer')")
        assert "the stream ended before the message did" in page.text(".note:last-child")
        page.evaluate("new Promise(done => setTimeout(done, 300))")
        assert len(provider.exchanges) == 3

    driven(page, lambda: chat([said("x")] * 3), drive)


def looks(path: Path) -> tuple[float, int]:
    """The mean brightness of a PNG (8 bits, RGB or RGBA, as Chromium writes it), and how many colours it has."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, body, width, height, channels = 8, b"", 0, 0, 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", chunk[:10])
            assert depth == 8
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            body += chunk
        at += 12 + size
    raw, stride = zlib.decompress(body), width * channels
    before, total, colours = bytes(stride), 0, set()
    for y in range(height):
        line = bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        _unfilter(raw[y * (stride + 1)], line, before, channels)
        before = bytes(line)
        if y % 2 == 0:
            pixels = [bytes(line[x : x + 3]) for x in range(0, stride, channels * 4)]
            colours.update(pixels)
            total += sum(sum(pixel) / 3 for pixel in pixels) / len(pixels)
    return total / len(range(0, height, 2)), len(colours)


def _unfilter(kind: int, line: bytearray, above: bytes, channels: int) -> None:
    for x in range(len(line)):
        left = line[x - channels] if x >= channels else 0
        corner = above[x - channels] if x >= channels else 0
        up = above[x]
        if kind == 1:
            line[x] = (line[x] + left) & 255
        elif kind == 2:
            line[x] = (line[x] + up) & 255
        elif kind == 3:
            line[x] = (line[x] + (left + up) // 2) & 255
        elif kind == 4:
            guess = left + up - corner
            distances = abs(guess - left), abs(guess - up), abs(guess - corner)
            line[x] = (line[x] + (left, up, corner)[distances.index(min(distances))]) & 255

"""The live view over HTTP: pages, state, events, acts, refusals, and what every answer tells the browser about safety."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import anthropic
import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import streamguard
from streamguard import Interrupted, Policy, Runtime, messages
from streamguard.testing import ScriptedServer, answer, expect_disconnect, script, stall, wire
from streamguard.view import View, serve_view
from streamguard.view.app import FILES, HEADERS

TOKEN = "0123456789abcdef0123"
ACT = {"x-streamguard": "view"}
STARTED = [wire.message_start(), wire.block_start(), wire.text_delta("<b>Hello</b>")]


class Raw:
    """An ASGI application, asked without sockets."""

    def __init__(self, app: Any, client: Any = ("127.0.0.1", 4711)) -> None:
        self.app, self.client = app, client

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, root: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer that ends."""
        given = {"host": "localhost:8788"} | (headers or {})
        route, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": root + route,
            "root_path": root,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": self.client,
            "server": ("127.0.0.1", 8788),
            "scheme": "http",
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


def test_the_page(run_virtual) -> None:
    """The page and its files are served as what they are, with headers that let nothing else run or frame it."""

    async def main() -> None:
        raw = Raw(View(Runtime()))
        for path, (name, kind) in FILES.items():
            status, headers, body = await raw.ask("GET", path)
            assert (status, headers["content-type"]) == (200, kind)
            assert body == files("streamguard.view").joinpath("static", name).read_bytes()
            assert {name: headers[name] for name in HEADERS} == HEADERS
        policy = HEADERS["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy

    run_virtual(main)


def test_the_files_keep_to_what_the_policy_allows() -> None:
    """No file asks for anything from elsewhere, holds inline code or styles, or has a way to parse text as markup."""
    texts = {name: files("streamguard.view").joinpath("static", name).read_text() for name, _ in FILES.values()}
    outside = {url for text in texts.values() for url in re.findall(r"https?://[^\s\"'<>]+", text)}
    assert outside == {"http://www.w3.org/2000/svg"}  # the namespace of the icon, which nobody fetches
    page, code = texts["index.html"], texts["view.js"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", page) == []
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert re.findall(forbidden, code) == []
    assert "url(" not in texts["view.css"]
    assert "@import" not in texts["view.css"]


def test_the_state(run_virtual) -> None:
    """The state is one JSON, with the details of a call where they are asked for."""

    async def main() -> None:
        runtime = Runtime()
        view = View(runtime)
        await streamguard.run(script(answer("<b>Hello</b>")), policy=Policy(), runtime=runtime, labels={"row": 1})
        status, headers, body = await Raw(view).ask("GET", "/state")
        state = json.loads(body)
        [(name, row)] = state["finished"].items()
        assert (status, headers["content-type"], state["detail"]) == (200, "application/json", None)
        assert (row["completed"], row["labels"]) == ("whole", {"row": "1"})
        _, _, body = await Raw(view).ask("GET", f"/state?call={name}")
        detail = json.loads(body)["detail"]
        assert detail["attempts"]["1"]["blocks"][0]["text"] == "<b>Hello</b>"

    run_virtual(main)


def test_interrupt_pause_resume(run_virtual) -> None:
    """An operator ends a call and holds new ones back; who did it is on record."""

    async def main() -> None:
        runtime = Runtime()
        raw = Raw(View(runtime, by="Ada at the console"))
        errors: list[Interrupted] = []

        async def call() -> None:
            with pytest.raises(Interrupted) as caught:
                await streamguard.run(script([stall()]), policy=Policy(), runtime=runtime)
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(1)
            [name] = runtime.calls
            assert (await raw.ask("POST", f"/calls/{name}/interrupt"))[0] == 403
            assert (await raw.ask("GET", f"/calls/{name}/interrupt", ACT))[0] == 405
            assert errors == []
            status, _, body = await raw.ask("POST", f"/calls/{name}/interrupt", ACT)
            assert (status, json.loads(body)) == (202, {"interrupted": name})
        assert (errors[0].reason, errors[0].by) == ("operator.interrupt", "Ada at the console")
        status, _, body = await raw.ask("POST", f"/calls/{name}/interrupt", ACT)
        assert (status, json.loads(body)) == (404, {"error": f"no call '{name}' runs"})
        assert (await raw.ask("POST", "/pause"))[0] == 403
        assert runtime.paused is None
        assert (await raw.ask("POST", "/pause", ACT))[0] == 200
        assert runtime.paused == "Ada at the console"
        assert (await raw.ask("POST", "/resume", ACT))[0] == 200
        assert runtime.paused is None

    run_virtual(main)


@pytest.mark.parametrize("path", ["/state", "/events", "/calls/x/interrupt", "/pause", "/view.js", "/", "/nothing"])
def test_strangers(run_virtual, path: str) -> None:
    """Another machine, or another name for this one, gets a refusal and no word of the state."""

    async def main() -> None:
        view = View(Runtime())
        for raw, headers in ((Raw(view, ("10.0.0.7", 1)), ACT), (Raw(view), ACT | {"host": "evil.example"})):
            for method in ("GET", "POST"):
                status, told, body = await raw.ask(method, path, headers)
                assert (status, list(json.loads(body))) == (403, ["error"])
                assert "content-security-policy" in told

    run_virtual(main)


def test_the_token(run_virtual) -> None:
    """With a token the page is open and everything else is not; an answer says how to ask."""

    async def main() -> None:
        raw = Raw(View(Runtime(), token=TOKEN), ("203.0.113.9", 1))
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert (await raw.ask("GET", "/"))[0] == 200
        status, headers, _ = await raw.ask("GET", "/state")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert (await raw.ask("GET", "/state", bearer))[0] == 200
        assert (await raw.ask("POST", "/pause", bearer))[0] == 403
        assert (await raw.ask("POST", "/pause", bearer | ACT))[0] == 200
        assert (await raw.ask("GET", "/nothing", bearer))[0] == 404

    run_virtual(main)


def test_mounted(run_virtual) -> None:
    """Mounted anywhere in another application it works alike; without the last slash it sends there."""

    async def main() -> None:
        raw = Raw(Starlette(routes=[Mount("/ops/_streamguard", app=View(Runtime()))]))
        for path in ("/ops/_streamguard/", "/ops/_streamguard/view.js", "/ops/_streamguard/state"):
            assert (await raw.ask("GET", path))[0] == 200
        assert (await raw.ask("POST", "/ops/_streamguard/pause", ACT))[0] == 200
        assert (await raw.ask("GET", "/ops/_streamguard/nothing"))[0] == 404
        view = Raw(View(Runtime()))
        status, headers, _ = await view.ask("GET", "", root="/ops/_streamguard")
        assert (status, headers["location"]) == (307, "_streamguard/")

    run_virtual(main)


def test_websockets_and_lifespans(run_virtual) -> None:
    """What is no HTTP request is turned away."""

    async def main() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        view = View(Runtime())
        await view({"type": "websocket", "path": "/events", "headers": []}, None, send)
        await view({"type": "lifespan"}, None, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]

    run_virtual(main)


@asynccontextmanager
async def at_work(items: list[Any], **options: Any) -> AsyncIterator[Any]:
    """A provider, a call of it that runs, and the live view of the call's runtime."""
    runtime = Runtime()
    async with ScriptedServer(items) as provider, serve_view(runtime, port=0, **options) as url:
        client = anthropic.AsyncAnthropic(api_key="sk-ant-test", base_url=provider.url)

        async def call() -> None:
            source = messages(client, model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
            try:
                await streamguard.run(source, policy=Policy(), runtime=runtime)
            except Interrupted as error:
                ended.append(error)

        ended: list[Any] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(5):
                while not any(call.running and call.running.panel.transcript.text for call in runtime.calls.values()):  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            yield runtime, provider, url, ended
            tasks.cancel_scope.cancel()
        await client.close()


def test_over_sockets() -> None:
    """From a real browser's distance: state, events as they come, and an interrupt that the provider sees at once."""

    async def main() -> None:
        async with (
            at_work([*STARTED, expect_disconnect(5)]) as (runtime, provider, url, ended),
            httpx2.AsyncClient() as browser,
        ):
            [name] = runtime.calls
            assert (await browser.get(url)).status_code == 200
            moved = await browser.get(url.removesuffix("/_streamguard/") + "/")
            assert moved.headers["location"] == "/_streamguard/"
            async with browser.stream("GET", f"{url}events?call={name}") as events:
                assert events.headers["content-type"] == "text/event-stream; charset=utf-8"
                lines = events.aiter_lines()
                assert await anext(lines) == "event: state"
                told = json.loads((await anext(lines)).removeprefix("data: "))
                assert told["texts"][0]["text"] == "<b>Hello</b>"
                began = anyio.current_time()
                done = await browser.post(f"{url}calls/{name}/interrupt", headers=ACT)
                assert done.status_code == 202
                with anyio.fail_after(3):
                    while provider.exchanges[0].disconnected_at is None:  # noqa: ASYNC110
                        await anyio.sleep(0.001)
                assert provider.exchanges[0].disconnected_at - began < 0.5
                async for line in lines:
                    if "operator.interrupt" in line:
                        break
        assert provider.violations == []
        assert [error.reason for error in ended] == ["operator.interrupt"]

    anyio.run(main)


def test_leaving() -> None:
    """When the program's block ends, the view's server ends with it, though a browser still watches."""

    async def main() -> None:
        async with httpx2.AsyncClient() as browser, anyio.create_task_group() as tasks:
            watching = anyio.Event()

            async def watch(url: str) -> None:
                async with browser.stream("GET", f"{url}events") as events:
                    watching.set()
                    async for _ in events.aiter_lines():
                        pass

            async with serve_view(Runtime(), port=0) as url:
                tasks.start_soon(watch, url)
                await watching.wait()
                began = anyio.current_time()
            assert anyio.current_time() - began < 1
            with pytest.raises(httpx2.ConnectError):
                await browser.get(url)

    anyio.run(main)


def test_an_error_in_the_block() -> None:
    """The block's own error comes out as it is, in no group."""

    async def main() -> None:
        with pytest.raises(KeyError, match="own"):
            async with serve_view(Runtime(), port=0):
                raise KeyError("own")

    anyio.run(main)


def test_refusals() -> None:
    """What cannot be served is told before anything listens."""

    async def main() -> None:
        with pytest.raises(streamguard.ConfigError, match=r"could be seen by other machines: give it a token"):
            serve_view(Runtime(), "0.0.0.0")
        with pytest.raises(streamguard.ConfigError, match="at least 16 printable"):
            serve_view(Runtime(), token="short")
        async with serve_view(Runtime(), port=0) as url:
            port = int(url.split(":")[2].split("/")[0])
            with pytest.raises(
                streamguard.ConfigError, match=rf"cannot listen on 127.0.0.1:{port}: .*another port, or 0"
            ):
                async with serve_view(Runtime(), port=port):
                    pass
        async with serve_view(Runtime(), port=0, token="new") as url:
            address, _, token = url.partition("#token=")
            assert len(token) >= 32
            async with httpx2.AsyncClient() as browser:
                assert (await browser.get(f"{address}state")).status_code == 401
                bearer = {"authorization": f"Bearer {token}"}
                assert (await browser.get(f"{address}state", headers=bearer)).status_code == 200

    anyio.run(main)


def test_trio() -> None:
    """On trio it says what to do instead."""

    async def main() -> None:
        with pytest.raises(streamguard.ConfigError, match="needs asyncio"):
            async with serve_view(Runtime(), port=0):
                pass

    anyio.run(main, backend="trio")

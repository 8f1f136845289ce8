"""A headless Chromium, driven by the DevTools protocol over a pipe: no driver, no websocket, no port.

Blocking: from async tests call it in a worker thread.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
PATIENCE = 15.0


def installed() -> str | None:
    """The browser's path, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page of the browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._ids = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self._target: str | None = None
        self.console: list[str] = []
        """What the page complained about: errors, refused resources, uncaught exceptions."""

    def open(self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Show an address in a new tab."""
        self.close()
        self._target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Page.navigate", url=url)

    def close(self) -> None:
        """Close the tab."""
        target, self._target, self._session = self._target, None, None
        if target is not None:
            self.send("Target.closeTarget", targetId=target)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._next(until)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._heard(answer)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._reading, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _heard(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"].get("exception", params)))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.console.append(str(params["args"]))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, expression: str, patience: float = PATIENCE) -> Any:
        """The expression's value, as soon as there is one that counts."""
        end = time.monotonic() + patience
        while True:
            value = None
            with contextlib.suppress(RuntimeError):  # what is not there yet
                value = self.evaluate(f"(found => found instanceof Node || found)({expression})")
            if value:
                return value
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}\n{self.evaluate('document.body.innerText')}")
            time.sleep(0.03)

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def click(self, selector: str) -> None:
        """A mouse's click in the middle of an element, as a person's."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'nearest'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """A key."""
        for kind in ("keyDown", "keyUp"):
            extra = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" and kind == "keyDown" else {}
            code = {"Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "Escape": 27}.get(key)
            extra |= {"windowsVirtualKeyCode": code} if code else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **extra)

    def screenshot(self, path: Path, *, scale: float = 1) -> None:
        """What is seen of the page as a PNG."""
        width, height = self.evaluate("[innerWidth, innerHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png", clip=clip)["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in `folder`; ends with the block."""
    path = installed()
    assert path is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    arguments = [path, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    null = os.open(os.devnull, os.O_RDWR)
    # Above what they are copied to, so that none is overwritten by another.
    high = [os.dup(fd) if fd > 9 else _above(fd) for fd in (theirs_in, theirs_out, null)]
    actions = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
    actions += [(os.POSIX_SPAWN_DUP2, high[2], fd) for fd in (0, 1, 2)]
    pid = os.posix_spawn(path, arguments, {**os.environ, "HOME": str(folder)}, file_actions=actions, setpgroup=0)
    for fd in (theirs_in, theirs_out, null, *high):
        os.close(fd)
    page = Page(ours_in, ours_out)
    try:
        yield page
    finally:
        with contextlib.suppress(RuntimeError, TimeoutError, OSError):
            page._session = None
            page.send("Browser.close")
        os.close(ours_in)
        os.close(ours_out)
        _end(pid)


def _above(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD, 10)


def _end(pid: int) -> None:
    """Wait for the browser, and for those it started; end them if they take long."""
    until = time.monotonic() + 3
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

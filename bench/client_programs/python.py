"""One call by one Python client: python python.py CLIENT stream|json, with BASE_URL. Prints what the client sees."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

client, mode = sys.argv[1:]
url, streams = os.environ["BASE_URL"], mode == "stream"
os.environ["ANTHROPIC_API_KEY"] = "x"
MODEL, PROMPT = "claude-haiku-4-5", "Hi"


def langchain() -> Any:
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(model=MODEL, max_tokens=100, base_url=url)
    return "".join(str(part.text) for part in model.stream(PROMPT)) if streams else str(model.invoke(PROMPT).text)


def pydantic_ai() -> Any:
    from anthropic import AsyncAnthropic
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    provider = AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=url))
    agent = Agent(AnthropicModel(MODEL, provider=provider))
    if not streams:
        return agent.run_sync(PROMPT).output
    import asyncio

    async def read() -> str:
        async with agent.run_stream(PROMPT) as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    return asyncio.run(read())


def instructor() -> Any:
    import anthropic
    import instructor
    from pydantic import BaseModel

    class Row(BaseModel):
        a: int

    sdk = instructor.from_anthropic(anthropic.Anthropic(base_url=url), mode=instructor.Mode.ANTHROPIC_JSON)
    request: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": PROMPT}],
        "response_model": Row,
    }
    if streams:
        return str([str(part) for part in sdk.messages.create_partial(**request)][-1:])
    return str(sdk.messages.create(**request))


def litellm() -> Any:
    import litellm

    request = {"model": f"anthropic/{MODEL}", "messages": [{"role": "user", "content": PROMPT}], "api_base": url}
    if not streams:
        return litellm.completion(**request).choices[0].message.content
    return "".join(part.choices[0].delta.content or "" for part in litellm.completion(**request, stream=True))


PROGRAMS: dict[str, Callable[[], Any]] = {
    "langchain": langchain,
    "pydantic-ai": pydantic_ai,
    "instructor": instructor,
    "litellm": litellm,
}
try:
    print(json.dumps({"returned": PROGRAMS[client]()}))
except Exception as error:
    status = getattr(error, "status_code", None)
    print(json.dumps({"raised": type(error).__name__, "status": status, "message": str(error)[:120]}))

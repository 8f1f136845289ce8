# ruff: noqa: INP001  an example, not a package
"""A chat in a browser: guarded answers as server-sent events, and a history of whole turns only.

    pip install 'streamguard-llm[proxy]'
    ANTHROPIC_API_KEY=… python examples/relay/app.py

Then open http://127.0.0.1:8000/. In FastAPI the two endpoints are the same functions under `@app.get`.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import anthropic
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route

import streamguard
from streamguard import Conversation, Policy, Retry, Rule, Timeouts
from streamguard.view import View

POLICY = Policy(
    timeouts=Timeouts(first_token=20, progress=20, total=120),
    retry=Retry(attempts=3, rules=[Rule(when=["timeout.*", "transport.*", "provider.overloaded"])]),
)


def make_app(client: anthropic.AsyncAnthropic, policy: Policy = POLICY) -> Starlette:
    """The application: a page, answers, and the live view of what runs."""
    conversations: dict[str, Conversation] = {}
    runtime = streamguard.Runtime()

    async def page(request: Request) -> Response:
        answer = FileResponse(Path(__file__).with_name("page.html"))
        if "chat" not in request.cookies:
            answer.set_cookie("chat", secrets.token_urlsafe(), httponly=True, samesite="strict")
        return answer

    async def answer(request: Request) -> Response:
        name = request.cookies.get("chat", "")
        conversation = conversations.setdefault(name, Conversation(model="claude-haiku-4-5", max_tokens=2000))
        conversation.drop().user(request.query_params["say"])
        source: Any = streamguard.messages(client, **conversation.request())
        events = streamguard.stream(
            source, policy=policy, deliver="restarting", runtime=runtime, group=f"chat {name[:6]}"
        )
        return streamguard.relay.response(events, include=["thinking"], on_outcome=conversation.commit)

    return Starlette(routes=[Route("/", page), Route("/answer", answer), Mount("/_streamguard", View(runtime))])


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(make_app(anthropic.AsyncAnthropic(max_retries=0)), port=8000)

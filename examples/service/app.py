# ruff: noqa: INP001  an example, not a package
"""A FastAPI service: a plain endpoint that returns a checked value, and an endpoint that streams to a browser.

    pip install 'streamguard-llm[proxy]' fastapi uvicorn
    ANTHROPIC_API_KEY=… uvicorn --app-dir examples/service app:app --workers 1

One `Runtime` for the process: budgets, the retry quota, cool-downs and the pace are shared by all requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import anthropic
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field

import streamguard
from streamguard import Policy, Retry, Rule, Timeouts

EXTRACTION = streamguard.load_policy("streamguard:extraction")
CHAT = Policy(
    timeouts=Timeouts(first_token=20, progress=20, total=120),
    retry=Retry(attempts=3, rules=[Rule(when=["timeout.*", "transport.*", "provider.overloaded"])]),
)


class Invoice(BaseModel):
    """What the model must answer with; other members are ignored."""

    number: str
    total: Decimal = Field(ge=0)


class Document(BaseModel):
    """What clients send."""

    text: str = Field(max_length=100_000)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client and one runtime for all requests."""
    async with anthropic.AsyncAnthropic(max_retries=0) as client:
        app.state.client = client
        app.state.runtime = runtime = streamguard.Runtime()
        yield
        await runtime.aclose()


app = FastAPI(lifespan=lifespan)


def source(request: Request, prompt: str) -> Any:
    """The request to the provider."""
    return streamguard.messages(
        request.app.state.client,
        model="claude-haiku-4-5",
        max_tokens=1024,
        messages=[{"role": "user", "content": prompt}],
    )


@app.post("/extract")
async def extract(request: Request, document: Document) -> Invoice:
    """Return the checked value. Each way to give up is a status that says whether asking again helps."""
    prompt = f"Extract the invoice below as one JSON object.\n\n{document.text}"
    try:
        outcome = await streamguard.run(
            source(request, prompt), policy=EXTRACTION, output=Invoice, runtime=request.app.state.runtime
        )
    except streamguard.BudgetExhausted as error:
        raise HTTPException(503, {"reason": error.reason}, headers={"retry-after": "60"}) from error
    except streamguard.DeadlineExceeded as error:
        raise HTTPException(504, {"reason": error.reason}) from error
    except streamguard.CallError as error:
        raise HTTPException(502, {"reason": error.reason, "attempts": len(error.attempts)}) from error
    invoice: Invoice = outcome.value
    return invoice


@app.get("/answer")
async def answer(request: Request, say: str) -> Response:
    """Stream the answer as server-sent events: `text`, `restarted`, then `done` or `error`."""
    events = streamguard.stream(
        source(request, say), policy=CHAT, deliver="restarting", runtime=request.app.state.runtime
    )
    return streamguard.relay.response(events)

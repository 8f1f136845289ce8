"""Clients of the SDK for loopback."""

from __future__ import annotations

from typing import Any

import anthropic


def loopback() -> Any:
    """The SDK's HTTP client without certificates, whose loading takes twenty times as long as the rest of it."""
    return anthropic.DefaultAsyncHttpxClient(verify=False)


def plain_client(url: str) -> anthropic.AsyncAnthropic:
    """A client for a server on loopback."""
    return anthropic.AsyncAnthropic(api_key="sk-ant-test-key", base_url=url, http_client=loopback())

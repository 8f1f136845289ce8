"""Clients of the SDK for loopback."""

from __future__ import annotations

import anthropic


def plain_client(url: str) -> anthropic.AsyncAnthropic:
    """A client without certificates to load, which takes twenty times as long as the rest of it."""
    http = anthropic.DefaultAsyncHttpxClient(verify=False)
    return anthropic.AsyncAnthropic(api_key="sk-ant-test-key", base_url=url, http_client=http)

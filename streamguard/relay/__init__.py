"""A guarded stream for a browser: server-sent events, from any framework.

`response(events)` is a Starlette (and FastAPI) response; `Relay(events)` the same as an asynchronous iterator of bytes
for everything else. No framework is imported before `response` is called.
"""

from __future__ import annotations

from streamguard.relay.frames import Include, Style
from streamguard.relay.rejoin import Rejoin
from streamguard.relay.relay import HEADERS, Relay
from streamguard.relay.response import response

__all__ = ["HEADERS", "Include", "Rejoin", "Relay", "Style", "response"]

"""What a client may take of the proxy: sizes, counts and seconds. Plain data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from streamguard.guards.base import Settings

Bytes = Annotated[int, Field(ge=1024, le=1024**3)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Limits(Settings):
    """Bounds on one client's connection and request. All are answered with a documented status when exceeded."""

    head_bytes: Bytes = 65_536
    """Request line and headers together; nginx takes 32 KiB, node 16 KiB, Tomcat 8 KiB."""
    headers: Annotated[int, Field(ge=8, le=1000)] = 100
    """Header lines."""
    target_bytes: Annotated[int, Field(ge=64, le=65_536)] = 8192
    """The request's target, query included."""
    body_bytes: Bytes = 32 * 1024 * 1024
    """A request's body, after decompression too: the Messages API takes 32 MB."""
    body_values: Annotated[int, Field(ge=1000, le=10_000_000)] = 250_000
    """JSON values in a request's body, names included: one of three bytes takes a hundred in memory."""
    memory_bytes: Annotated[int, Field(ge=1024**2, le=1024**4)] = 128 * 1024 * 1024
    """What the requests under way may take for their bodies, about twice their bytes; one client three quarters of it,
    where there are several."""
    requests_per_client: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Requests of one client that may be under way at a time, where there are several clients."""
    requests_per_second: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 100.0
    """Of one client, where there are several; those beyond wait for their turn. One core guards about as many."""
    head_seconds: Seconds = 10.0
    """From the first byte of a connection, or of its next request, to the end of the headers."""
    body_seconds: Seconds = 60.0
    """From the end of the headers to the end of the body."""
    write_seconds: Seconds = 60.0
    """For which a client may take nothing of what waits for it; then its connection is reset."""
    idle_seconds: Seconds = 75.0
    """For which a connection may wait for its next request: longer than the 60 s of most balancers in front."""
    connections: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Clients connected at a time."""
    connections_per_address: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Of those, from one address. None: as many. Behind a balancer all clients have its address."""

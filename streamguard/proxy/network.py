"""Connections to the upstream, for httpcore's pool: where to may be checked at the very moment of connecting.

In charge of TCP and TLS. A name is resolved once, its addresses are judged, and one of those is connected to: between a
check and a connection that resolves again, a name can change its mind (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import anyio
import httpcore2
from httpcore2 import SOCKET_OPTION


class PublicOnly(httpcore2.AnyIOBackend):
    """Connects to public addresses only."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """See the base.

        :raises httpcore2.ConnectError: none of the host's addresses is public.
        """
        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        public = [address for address in addresses if is_public(address)]
        if not public:
            raise httpcore2.ConnectError(f"{host} leads to {', '.join(addresses)}, which is not public")
        for address in public[:-1]:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await super().connect_tcp(public[-1], port, timeout, local_address, socket_options)


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet. What an IPv6 address wraps is judged too."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            found = inner
        elif found in ipaddress.ip_network("64:ff9b::/96"):
            found = ipaddress.ip_address(int(found) & 0xFFFFFFFF)
    return found.is_global and not found.is_multicast

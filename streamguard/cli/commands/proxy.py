"""`streamguard proxy`: the configuration, the log, and the server until a signal."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec

from streamguard.adapters.anthropic.environment import has_uvloop
from streamguard.cli.commands.exits import Exit, complain
from streamguard.files.extras import needs
from streamguard.proxy.configfile import Setup, read_config, read_setup
from streamguard.terminal import put

SPARE_FILES = 256
"""Open files besides sockets of clients and the upstream: ledgers, libraries, sockets that are being closed."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    config: str | None = None
    policy: str | None = None
    upstream: str | None = None
    listen: str | None = None
    key_env: str | None = None
    token_env: tuple[str, ...] = ()
    drain: float | None = None
    verbose: bool = False
    allow_imports: bool = False

    def overrides(self) -> dict[str, Any]:
        """What of it stands above a configuration file, in the file's words."""
        given = {name: getattr(self, name) for name in ("policy", "upstream", "listen", "key_env", "drain")}
        overrides = {name: value for name, value in given.items() if value is not None}
        if self.token_env:
            overrides["clients"] = [_client(text) for text in self.token_env]
        return overrides


def main(options: Options) -> int:
    """Check everything, then serve until a signal.

    :raises ConfigError: a mistake that was found before anything was served.
    """
    with needs("the proxy", "proxy"):
        import h11  # noqa: F401
        import httpcore2  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
    config, folder = read_config(options.config, options.overrides())
    setup = read_setup(config, folder, allow_imports=options.allow_imports)
    complain(msgspec.structs.replace(one, problem=f"warning: {one.problem}") for one in setup.warnings)
    _log_to_stderr(setup, verbose=options.verbose)
    _allow_files(setup.config.limits.connections)
    # A thread that parses a large body gives the loop's its turn at once: that asks again after every system call, a
    # hundred times where as many connections are accepted.
    sys.setswitchinterval(0.0002)
    # What is loaded by now stays: the collector need not look at it again while streams wait.
    gc.collect()
    gc.freeze()
    # A full collection goes through every value of every body: with a million of them a fifth of a second. What ends
    # in cycles is young, and found by the others, which take a few milliseconds.
    gc.set_threshold(5_000, 5, 50)
    anyio.run(_serve, setup, backend_options={"use_uvloop": has_uvloop()})
    return Exit.OK


async def _serve(setup: Setup) -> None:
    from streamguard.proxy.app import Proxy
    from streamguard.proxy.server import ProxyServer, bound_socket

    listener = bound_socket(setup.config.listen)
    port = listener.getsockname()[1]
    server = ProxyServer(Proxy(setup))
    for budgets in (policy.budgets for policy in setup.policies.values() if policy is not None):
        for caveat in await server.proxy.runtime.accounts.caveats(budgets):
            put(sys.stderr, f"streamguard: {caveat}\n")
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.signals)
        await server.serve(listener, started=_announce(setup, port))
        tasks.cancel_scope.cancel()


def _allow_files(connections: int) -> None:
    """Raise the number of files that may be open, as far as it goes: a client has a socket, maybe one upstream too."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + SPARE_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _announce(setup: Setup, port: int) -> Callable[[], None]:
    config = setup.config
    where = config.listen.model_copy(update={"port": port})
    named = ", ".join(sorted(name for name, policy in setup.policies.items() if policy is not None)) or "off"
    who = "everybody on this machine" if config.open_to_all else ", ".join(client.name for client in config.clients)
    return lambda: _say(f"http://{where} guards {config.upstream} (policies: {named}; clients: {who})")


def _say(text: str) -> None:
    put(sys.stderr, f"streamguard: {text}\n")


def _log_to_stderr(setup: Setup, *, verbose: bool) -> None:
    from streamguard.proxy.log_redaction import RedactingFormatter, StrangersFilter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter([*setup.tokens.values(), setup.key or ""]))
    handler.addFilter(StrangersFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("streamguard").setLevel(logging.INFO if verbose else logging.WARNING)


def _client(text: str) -> Mapping[str, Any]:
    """`NAME=ENV`, or `ENV` for a client called `default`."""
    name, equals, env = text.partition("=")
    return {"name": name, "token_env": env} if equals else {"name": "default", "token_env": text}

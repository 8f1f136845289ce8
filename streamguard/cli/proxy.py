"""`streamguard proxy`: the command's signature."""

from __future__ import annotations

from typing import Annotated

import typer

from streamguard.cli.options import AllowImports, finish


def proxy(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="A YAML file; the other options stand above it.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", "-p", help="A policy file, streamguard:NAME, or off.")
    ] = None,
    upstream: Annotated[str | None, typer.Option("--upstream", help="Where every request goes.")] = None,
    listen: Annotated[str | None, typer.Option("--listen", help="HOST:PORT; 127.0.0.1:8787 by default.")] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", help="The variable with the provider's key; else clients bring theirs.")
    ] = None,
    token_env: Annotated[
        list[str] | None,
        typer.Option("--token-env", metavar="[NAME=]ENV", help="A client, and the variable with its token."),
    ] = None,
    drain: Annotated[
        float | None, typer.Option("--drain", help="Seconds that running answers get after a signal.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every call.")] = False,
    allow_imports: AllowImports = False,
) -> None:
    """Guard requests of other programs: an HTTP hop in front of the Messages API."""

    def body() -> int:
        from streamguard.cli.commands import proxy as command

        options = command.Options(
            config=config,
            policy=policy,
            upstream=upstream,
            listen=listen,
            key_env=key_env,
            token_env=tuple(token_env or ()),
            drain=drain,
            verbose=verbose,
            allow_imports=allow_imports,
        )
        return command.main(options)

    finish(context, body)

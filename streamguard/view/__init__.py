"""The live view: one page that shows what calls of a runtime do, and lets an operator step in.

`serve_view(runtime)` serves it beside a program; `View(runtime)` is the same as an ASGI application to mount. Needs the
extra `proxy` (Starlette); nothing of it is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamguard.files.extras import needs

if TYPE_CHECKING:
    from streamguard.view.app import View
    from streamguard.view.server import serve_view

__all__ = ["View", "serve_view"]

_HOME = {"View": "streamguard.view.app", "serve_view": "streamguard.view.server"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("the live view", "proxy"):
        return getattr(import_module(_HOME[name]), name)

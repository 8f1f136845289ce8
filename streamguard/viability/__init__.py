"""Can any continuation of this text be a JSON document that satisfies this schema?

`compile_schema(schema).prefix()` is fed a document piece by piece and says `Dead` with the first character after which
the answer is no. `SyntaxPrefix` does the same without a schema, and without importing what only schemas need.

Never a false "no". A true one may come late, at the end of the value concerned, where exactness would need a solver:

* two patterns, or a pattern and a `not` pattern, that no string suits together; likewise for names;
* several `contains` that cannot share the places left;
* patterns without `^` at their beginning, with `\\b`, look-behind or back-references; look-aheads in part;
* `not`, `oneOf` and `if` over so many alternatives that they are followed one by one (`formula.MOST`);
* `unevaluated*` below an `anyOf` of more than `formula._SPLIT` branches;
* numbers of more than `number_text.MOST` characters; strings beyond `regexes.MOST` for patterns without automaton;
* formats without a grammar in `formats`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamguard.viability.syntax.protocol import Dead, Duplicates, Prefix
from streamguard.viability.syntax.scanner import SyntaxPrefix

if TYPE_CHECKING:
    from streamguard.viability.compile import LateKeyword, Numbers, Schema, compile_schema

__all__ = [
    "Dead",
    "Duplicates",
    "LateKeyword",
    "Numbers",
    "Prefix",
    "Schema",
    "SyntaxPrefix",
    "compile_schema",
]

_FOR_SCHEMAS = ("LateKeyword", "Numbers", "Schema", "compile_schema")


def __getattr__(name: str) -> Any:
    if name in _FOR_SCHEMAS:  # jsonschema takes a tenth of a second to import
        from streamguard.viability import compile as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

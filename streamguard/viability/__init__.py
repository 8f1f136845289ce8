"""Can any continuation of this text be a JSON document that satisfies this schema?

`compile_schema(schema).prefix()` is fed a document piece by piece and says `Dead` with the first character after which
the answer is no. `SyntaxPrefix` does the same without a schema.
"""

from streamguard.viability.compile import LateKeyword, Numbers, Schema, compile_schema
from streamguard.viability.dead import Dead, Duplicates, Prefix
from streamguard.viability.scanner import SyntaxPrefix

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
